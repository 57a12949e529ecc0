//! What an allocator really gives for a request. `used_memory` is the sum of these, so every rule of the model ends here.

/// The allocator a server was built with.
///
/// INFO names jemalloc but not its quantum, and the same server costs up to a fifth more on the wider one (Redis 7.0
/// with 20-byte strings: 90 against 106 bytes a key), so it has to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// jemalloc with classes every 8 bytes up to 64: as Redis and Valkey build their bundled copy
    /// (`deps/Makefile`: `--with-lg-quantum=3`), so the official images and most managed services.
    JemallocQ8,
    /// jemalloc with classes every 16 bytes up to 64: the system library that distributions link.
    JemallocQ16,
    /// glibc's malloc. It hands out remainders of split chunks as they come, so its classes hold to about 2 %.
    Libc,
}

impl Allocator {
    /// Bytes charged for a request of `bytes`. jemalloc: its `SIZE_CLASSES`, four to a doubling above 64. glibc: chunks
    /// of 16 with 8 of them for the chunk's own size (`malloc.c:request2size`).
    pub const fn size_class(self, bytes: usize) -> usize {
        let quantum = match self {
            Self::JemallocQ8 => 8,
            Self::JemallocQ16 => 16,
            Self::Libc => return libc_usable(bytes),
        };
        match bytes {
            0..=8 => 8,
            9..=64 => bytes.next_multiple_of(quantum),
            _ => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
        }
    }
}

const fn libc_usable(bytes: usize) -> usize {
    let usable = (bytes + 8).next_multiple_of(16) - 8;
    if usable < 24 { 24 } else { usable }
}

#[cfg(test)]
mod tests {
    use super::Allocator::{JemallocQ8, JemallocQ16, Libc};

    #[test]
    fn size_classes_are_the_allocators() {
        // asked, quantum 8, quantum 16, glibc (malloc_usable_size)
        let classes = [
            (1, 8, 8, 24),
            (9, 16, 16, 24),
            (17, 24, 32, 24),
            (25, 32, 32, 40),
            (33, 40, 48, 40),
            (49, 56, 64, 56),
            (65, 80, 80, 72),
            (129, 160, 160, 136),
            (250, 256, 256, 264),
            (257, 320, 320, 264),
            (1_025, 1_280, 1_280, 1_032),
            (8_192, 8_192, 8_192, 8_200),
            (8_193, 10_240, 10_240, 8_200),
            (14_337, 16_384, 16_384, 14_344),
        ];
        for (asked, q8, q16, libc) in classes {
            let given = [JemallocQ8, JemallocQ16, Libc].map(|allocator| allocator.size_class(asked));
            assert_eq!(given, [q8, q16, libc], "{asked}");
        }
    }
}
