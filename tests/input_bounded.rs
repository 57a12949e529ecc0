//! A matrix far larger than memory is opened, sampled and streamed in the memory of its buffers.

#![allow(clippy::unwrap_used, clippy::float_cmp)] // helpers of tests; the numbers are exact

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use tonnage::input::{InputError, Vectors};

const DIM: usize = 64;
const ROWS: usize = (8 << 30) / (DIM * 4);
const MIB: usize = 1 << 20;

/// Resident memory of this process, at its highest so far.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn an_8_gib_matrix_is_read_in_a_few_mib() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.npy");
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}, {DIM}), }}\n");
    let mut file = OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    // All holes: it takes no room on the disk.
    file.set_len((10 + header.len() + ROWS * DIM * 4) as u64).unwrap();

    let before = peak_bytes();
    let started = Instant::now();
    let vectors = Vectors::open(&path).unwrap();
    assert_eq!((vectors.rows(), vectors.dim()), (ROWS, DIM));
    let mut last = [1.0; 2 * DIM];
    vectors.read(ROWS - 2, &mut last).unwrap();
    assert_eq!(last, [0.0; 2 * DIM]);
    let rows: Vec<u32> = (0..1000).map(|i| (i * 7919 * 104_729 % ROWS) as u32).collect();
    vectors.gather(&rows, &mut vec![1.0; rows.len() * DIM]).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    let mut seen = 0;
    let stopped = vectors.for_each_chunk(4096, |first, rows| {
        assert_eq!(first, seen);
        seen += rows.len() / DIM;
        // 256 MiB are enough to see that nothing accumulates.
        if seen < (256 << 20) / (DIM * 4) { Ok(()) } else { vectors.read(ROWS, &mut [0.0; DIM]) }
    });
    assert!(matches!(stopped, Err(InputError::Request { .. })));
    let grown = peak_bytes() - before;
    assert!(grown < 16 * MIB, "{} MiB", grown / MIB);
}
