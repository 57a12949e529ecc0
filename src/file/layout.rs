//! Where everything lies: the header's fields, the section table and the checksums.
//!
//! Plain encode and decode: the whole layout can be read here, and no file is touched.

use std::path::Path;

use rayon::prelude::*;
use twox_hash::XxHash3_64;

use super::error::FileError;
use super::tag::Tag;

/// The format written, and the newest one read.
pub const FORMAT_VERSION: u32 = 2;
/// Sections a file can hold. Twice what an index needs today; the table is part of the fixed header.
pub const MAX_SECTIONS: usize = 32;
/// Every section begins at a multiple of this: a cache line, so that any number type and any SIMD load is aligned.
pub const ALIGN: u64 = 64;

/// A byte with the high bit, CR LF, ^Z and LF after PNG's example: a transfer as text breaks one of them.
pub(super) const MAGIC: [u8; 8] = *b"\x89TNG\r\n\x1a\n";
/// Bytes hashed as one, the unit by which a large section is verified in parallel.
pub(super) const BLOCK_LEN: usize = 4 << 20;

const VERSION_AT: usize = MAGIC.len();
const COUNT_AT: usize = VERSION_AT + size_of::<u32>();
const FILE_LEN_AT: usize = COUNT_AT + size_of::<u32>();
const TABLE_AT: usize = FILE_LEN_AT + size_of::<u64>();
const ENTRY_LEN: usize = size_of::<Tag>() + 3 * size_of::<u64>();
const RESERVED_AT: usize = TABLE_AT + MAX_SECTIONS * ENTRY_LEN;
const CHECKSUM_AT: usize = RESERVED_AT + 32;
/// Bytes before the first section.
pub(super) const HEADER_LEN: usize = CHECKSUM_AT + size_of::<u64>();

// The figures drawn in docs/file-format.md.
const _: () = assert!(VERSION_AT == 8 && COUNT_AT == 12 && FILE_LEN_AT == 16 && TABLE_AT == 24);
const _: () = assert!(ENTRY_LEN == 32 && RESERVED_AT == 1048 && CHECKSUM_AT == 1080 && HEADER_LEN == 1088);
const _: () = assert!((HEADER_LEN as u64).is_multiple_of(ALIGN));

/// One line of the section table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionInfo {
    /// Its name.
    pub tag: Tag,
    /// Where it begins, in bytes from the file's beginning.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// XXH3-64 over its blocks' XXH3-64.
    pub checksum: u64,
}

/// Where the section after one that ends at `end` begins.
pub(super) const fn next_offset(end: u64) -> Option<u64> {
    end.checked_next_multiple_of(ALIGN)
}

/// The checksum of one block, and of the header.
pub(super) fn block_hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// A section's checksum from its blocks'. Two levels, so that blocks can be hashed apart.
pub(super) fn section_hash(blocks: &[u64]) -> u64 {
    XxHash3_64::oneshot(bytemuck::cast_slice(blocks))
}

/// A section's checksum, its blocks shared among rayon's threads.
pub(super) fn hash_section(bytes: &[u8]) -> u64 {
    let blocks: Vec<u64> = bytes.par_chunks(BLOCK_LEN).map(block_hash).collect();
    section_hash(&blocks)
}

/// One number for all that a file holds: the same tags with the same bytes in the same order.
pub(super) fn content_hash(sections: &[SectionInfo]) -> u64 {
    let mut bytes = Vec::with_capacity(sections.len() * 16);
    for section in sections {
        bytes.extend_from_slice(section.tag.as_bytes());
        bytes.extend_from_slice(&section.checksum.to_le_bytes());
    }
    XxHash3_64::oneshot(&bytes)
}

/// The header of a file of a version that ends where the last of `sections` does. There are at most [`MAX_SECTIONS`].
pub(super) fn encode(version: u32, sections: &[SectionInfo]) -> [u8; HEADER_LEN] {
    let file_len = sections.last().map_or(HEADER_LEN as u64, |last| last.offset + last.length);
    let mut header = [0; HEADER_LEN];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        header[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&MAGIC);
    put(&version.to_le_bytes());
    put(&(sections.len() as u32).to_le_bytes());
    put(&file_len.to_le_bytes());
    for section in sections {
        put(section.tag.as_bytes());
        put(&section.offset.to_le_bytes());
        put(&section.length.to_le_bytes());
        put(&section.checksum.to_le_bytes());
    }
    let checksum = block_hash(&header[..CHECKSUM_AT]);
    header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The sections of the file of `file_len` bytes at `path`, every rule of the header and the table checked.
///
/// Magic and version come first because they are all that another version promises to share with this one.
pub(super) fn decode(path: &Path, header: &[u8; HEADER_LEN], file_len: u64) -> Result<Vec<SectionInfo>, FileError> {
    if header[..VERSION_AT] != MAGIC {
        return Err(FileError::NotTng { path: path.to_owned() });
    }
    let version = u32_at(header, VERSION_AT);
    if version > FORMAT_VERSION {
        return Err(FileError::NewerVersion { path: path.to_owned(), got: version, reads: FORMAT_VERSION });
    }
    let (expected, got) = (u64_at(header, CHECKSUM_AT), block_hash(&header[..CHECKSUM_AT]));
    if expected != got {
        return Err(FileError::Damaged { path: path.to_owned(), part: "the header".into(), expected, got });
    }
    let expected = u64_at(header, FILE_LEN_AT);
    if expected != file_len {
        return Err(FileError::Length { path: path.to_owned(), expected, got: file_len });
    }
    let malformed = |what| FileError::Malformed { path: path.to_owned(), what };
    let sections = decode_table(header).map_err(malformed)?;
    check_table(&sections, file_len).map_err(malformed)?;
    // One content has one header in each version that exists: whatever is unused is zero.
    if version == 0 || encode(version, &sections) != *header {
        return Err(malformed("the header is not the one these sections have".into()));
    }
    Ok(sections)
}

fn decode_table(header: &[u8; HEADER_LEN]) -> Result<Vec<SectionInfo>, String> {
    let count = u32_at(header, COUNT_AT) as usize;
    if count > MAX_SECTIONS {
        return Err(format!("{count} sections where {MAX_SECTIONS} is the most"));
    }
    (0..count)
        .map(|i| {
            let at = TABLE_AT + i * ENTRY_LEN;
            Ok(SectionInfo {
                tag: Tag::from_bytes(bytes_at(header, at)).ok_or_else(|| format!("section {i} has no valid tag"))?,
                offset: u64_at(header, at + 8),
                length: u64_at(header, at + 16),
                checksum: u64_at(header, at + 24),
            })
        })
        .collect()
}

/// Sections follow each other with only their alignment between them and end where the file ends; this rules out
/// overlap, disorder, gaps and anything beyond the end at once.
fn check_table(sections: &[SectionInfo], file_len: u64) -> Result<(), String> {
    let mut end = HEADER_LEN as u64;
    for (i, &SectionInfo { tag, offset, length, .. }) in sections.iter().enumerate() {
        if sections[..i].iter().any(|before| before.tag == tag) {
            return Err(format!("two sections `{tag}`"));
        }
        if next_offset(end) != Some(offset) {
            return Err(format!("section `{tag}` at {offset} does not follow what ends at {end}"));
        }
        end = match offset.checked_add(length) {
            Some(end) if end <= file_len => end,
            _ => return Err(format!("section `{tag}` goes beyond the end of the file")),
        };
    }
    if end != file_len {
        return Err(format!("the sections end at {end}, the file at {file_len}"));
    }
    Ok(())
}

fn bytes_at<const N: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

fn u32_at(header: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(header, at))
}

fn u64_at(header: &[u8; HEADER_LEN], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(header, at))
}
