//! The `.tng` container: what is written is read, and nothing else is.
//!
//! Offsets are spelled out as in `docs/file-format.md`, so that this is a second reading of the layout.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tonnage::file::{FORMAT_VERSION, FileError, MAX_SECTIONS, Mapped, Tag, Writer};
use twox_hash::XxHash3_64;

const IDS: Tag = Tag::new("ids");
const CODES: Tag = Tag::new("codes_v2");
const EMPTY: Tag = Tag::new("empty");
const HEADER: usize = 1088;
const TABLE: usize = 24;
const CHECKSUM: usize = 1080;
const BLOCK: usize = 4 << 20;

/// A folder with one small file in it: sections of 24, 0 and 130 bytes.
fn small() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.tng");
    write_small(&path);
    (folder, path)
}

fn write_small(path: &Path) {
    let mut writer = Writer::create(path).unwrap();
    writer.section_bytes(IDS, bytemuck::cast_slice(&[7_u64, 8, u64::MAX])).unwrap();
    writer.section_bytes(EMPTY, &[]).unwrap();
    writer.section_bytes(CODES, &codes()).unwrap();
    writer.finish().unwrap();
}

fn codes() -> Vec<u8> {
    (0..130).map(|i| i ^ 0x55).collect()
}

fn files_in(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Put these bytes in a file and open it, mapped and resident: what the one refuses the other does, for the same reason.
fn open_bytes(folder: &TempDir, bytes: &[u8]) -> Result<Mapped, FileError> {
    let path = folder.path().join("forged.tng");
    fs::write(&path, bytes).unwrap();
    let (opened, resident) = (Mapped::open(&path), Mapped::open_resident(&path));
    let reason = |opened: &Result<Mapped, FileError>| opened.as_ref().err().map(ToString::to_string);
    assert_eq!(reason(&opened), reason(&resident));
    // Else the next write truncates it, for which some file systems wait for the disk.
    fs::remove_file(&path).unwrap();
    opened
}

#[test]
fn sections_come_back_as_written() {
    let (folder, path) = small();
    let file = Mapped::open(&path).unwrap();

    assert_eq!(file.numbers::<u64>(IDS).unwrap(), [7, 8, u64::MAX]);
    assert_eq!(file.section(CODES).unwrap(), codes());
    assert!(file.numbers::<u64>(EMPTY).unwrap().is_empty());
    assert_eq!(file.section(CODES).unwrap().as_ptr().addr() % 64, 0);
    let table: Vec<_> = file.sections().map(|s| (s.tag.to_string(), s.offset, s.length)).collect();
    let expected = [("ids", 1088, 24), ("empty", 1152, 0), ("codes_v2", 1152, 130)];
    assert_eq!(table, expected.map(|(tag, offset, length)| (tag.to_owned(), offset, length)));
    assert_eq!(file.len(), 1282);
    assert_eq!(file.len(), fs::metadata(&path).unwrap().len());
    assert_eq!(file.path(), path);
    assert_eq!(files_in(&folder), ["small.tng"]);
}

#[test]
fn sections_written_in_pieces_are_the_same_file() {
    let (folder, path) = small();
    let pieces = folder.path().join("pieces.tng");
    let mut writer = Writer::create(&pieces).unwrap();
    let mut ids = writer.section(IDS).unwrap();
    for id in [7_u64, 8, u64::MAX] {
        ids.write_all(&id.to_le_bytes()).unwrap();
    }
    ids.end().unwrap();
    writer.section(EMPTY).unwrap().end().unwrap();
    let mut section = writer.section(CODES).unwrap();
    for byte in codes() {
        section.write_all(&[byte]).unwrap();
    }
    section.end().unwrap();
    let summary = writer.finish().unwrap();

    assert_eq!(fs::read(&path).unwrap(), fs::read(&pieces).unwrap());
    let file = Mapped::open(&path).unwrap();
    assert_eq!(summary.content_hash, file.content_hash());
    assert_eq!(summary.bytes, file.len());
    assert_eq!(summary.sections, file.sections().collect::<Vec<_>>());
}

#[test]
fn sections_around_the_block_size_are_hashed_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.tng");
    for length in [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
        let bytes: Vec<u8> = (0..length).map(|i| ((i * 31) >> 3) as u8).collect();
        let mut writer = Writer::create(&path).unwrap();
        writer.section_bytes(CODES, &bytes).unwrap();
        writer.finish().unwrap();

        let file = Mapped::open(&path).unwrap();
        assert_eq!(file.section(CODES).unwrap(), bytes);
        let blocks: Vec<u8> = bytes.chunks(BLOCK).flat_map(|block| XxHash3_64::oneshot(block).to_le_bytes()).collect();
        assert_eq!(file.sections().next().unwrap().checksum, XxHash3_64::oneshot(&blocks));

        let mut damaged = fs::read(&path).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(matches!(open_bytes(&folder, &damaged), Err(FileError::Damaged { .. })));
    }
}

#[test]
fn content_hash_tells_contents_apart() {
    let folder = tempfile::tempdir().unwrap();
    let hash = |sections: &[(Tag, &[u8])]| {
        let path = folder.path().join("hash.tng");
        let mut writer = Writer::create(&path).unwrap();
        for (tag, bytes) in sections {
            writer.section_bytes(*tag, bytes).unwrap();
        }
        writer.finish().unwrap();
        Mapped::open(&path).unwrap().content_hash()
    };
    let hashes = [
        hash(&[]),
        hash(&[(IDS, b"")]),
        hash(&[(CODES, b"")]),
        hash(&[(IDS, b"a"), (CODES, b"b")]),
        hash(&[(CODES, b"b"), (IDS, b"a")]),
        hash(&[(IDS, b"b"), (CODES, b"a")]),
    ];
    let distinct: std::collections::HashSet<u64> = hashes.into();
    assert_eq!(distinct.len(), hashes.len());
}

#[test]
fn an_unfinished_writer_leaves_nothing_and_the_old_file_alone() {
    let (folder, path) = small();
    let before = fs::read(&path).unwrap();
    let mut writer = Writer::create(&path).unwrap();
    writer.section_bytes(CODES, &vec![9; 2 * BLOCK]).unwrap();
    assert_eq!(files_in(&folder).len(), 2, "the temporary file is beside the target");
    drop(writer);
    assert_eq!(files_in(&folder), ["small.tng"]);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_half_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.tng");
    let mut writer = Writer::create(&target).unwrap();
    writer.section_bytes(CODES, &vec![9; 2 * BLOCK]).unwrap();
    assert!(!target.exists());
    let half = files_in(&folder).pop().unwrap();
    let refused = Mapped::open(&folder.path().join(half));
    assert!(matches!(refused, Err(FileError::NotTng { .. })), "{refused:?}");
}

#[test]
fn a_map_survives_the_replacement_and_removal_of_its_file() {
    let (_folder, path) = small();
    let old = Mapped::open(&path).unwrap();
    let mut writer = Writer::create(&path).unwrap();
    writer.section_bytes(CODES, b"new").unwrap();
    writer.finish().unwrap();

    assert_eq!(old.section(CODES).unwrap(), codes());
    assert_eq!(Mapped::open(&path).unwrap().section(CODES).unwrap(), b"new");
    fs::remove_file(&path).unwrap();
    assert_eq!(old.section(CODES).unwrap(), codes());
}

#[test]
fn a_resident_file_holds_what_the_mapped_one_does_whatever_becomes_of_the_file() {
    let (_folder, path) = small();
    let resident = Mapped::open_resident(&path).unwrap();
    assert_eq!(resident.content_hash(), Mapped::open(&path).unwrap().content_hash());
    fs::write(&path, vec![0; 2000]).unwrap();
    assert_eq!(resident.section(CODES).unwrap(), codes());
    assert_eq!(resident.numbers::<u64>(IDS).unwrap(), [7, 8, u64::MAX]);
}

#[test]
fn a_section_dropped_before_its_end_spoils_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spoilt.tng");
    let mut writer = Writer::create(&path).unwrap();
    writer.section(IDS).unwrap().write_all(b"lost").unwrap();
    assert!(matches!(writer.section(CODES), Err(FileError::Refused { tag: IDS, .. })));
    assert!(matches!(writer.finish(), Err(FileError::Refused { tag: IDS, .. })));
    assert_eq!(files_in(&folder).len(), 0);
}

#[test]
fn a_tag_twice_or_one_section_too_many_is_refused_when_written() {
    let (folder, _) = small();
    let path = folder.path().join("many.tng");
    let mut writer = Writer::create(&path).unwrap();
    for i in 0..MAX_SECTIONS {
        writer.section_bytes(Tag::new(&format!("s{i}")), &[i as u8]).unwrap();
    }
    assert!(matches!(writer.section_bytes(Tag::new("s3"), b""), Err(FileError::Refused { .. })));
    assert!(matches!(writer.section_bytes(Tag::new("more"), b""), Err(FileError::Refused { .. })));
    writer.finish().unwrap();
    let file = Mapped::open(&path).unwrap();
    assert_eq!(file.section(Tag::new("s31")).unwrap(), [31]);
}

#[test]
fn what_is_asked_for_and_not_there_is_named() {
    let (_folder, path) = small();
    let file = Mapped::open(&path).unwrap();
    let missing = file.section(Tag::new("graph")).unwrap_err().to_string();
    assert_eq!(missing, format!("{}: has no section `graph`: build it again", path.display()));
    let misfit = file.numbers::<u32>(CODES).unwrap_err().to_string();
    assert!(misfit.contains("section `codes_v2` of 130 bytes is not a list of 4-byte numbers"), "{misfit}");
}

#[test]
fn targets_that_cannot_be_written_are_refused_before_any_work() {
    let (folder, path) = small();
    let refused = |path: &Path| matches!(Writer::create(path), Err(FileError::Io { .. }));
    assert!(refused(&folder.path().join("missing/x.tng")));
    assert!(refused(&path.join("beneath-a-file.tng")));
    assert!(refused(folder.path()));
    assert!(refused(Path::new("/")));
    assert!(refused(Path::new("")));
    assert_eq!(files_in(&folder), ["small.tng"]);
}

#[test]
fn a_folder_put_at_the_target_while_writing_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken.tng");
    let writer = Writer::create(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(writer.finish(), Err(FileError::Io { .. })));
    assert_eq!(files_in(&folder), ["taken.tng"]);
}

#[test]
fn what_is_no_file_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("missing"), folder.path().to_owned(), "/dev/zero".into()] {
        for opened in [Mapped::open(&path), Mapped::open_resident(&path)] {
            assert!(matches!(opened, Err(FileError::Io { .. })), "{}", path.display());
        }
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let (folder, path) = small();
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        for pattern in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= pattern;
            let refused = open_bytes(&folder, &bad).expect_err("a damaged file was opened");
            let named = match at {
                0..8 => matches!(refused, FileError::NotTng { .. }),
                8..12 => matches!(refused, FileError::NewerVersion { .. } | FileError::Damaged { .. }),
                12..HEADER => matches!(refused, FileError::Damaged { .. }),
                1112..1152 => matches!(refused, FileError::Malformed { .. }), // padding
                _ => matches!(refused, FileError::Damaged { .. }),
            };
            assert!(named, "byte {at} ^ {pattern:#x}: {refused}");
        }
    }
}

#[test]
fn every_other_length_is_found() {
    let (folder, path) = small();
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        let refused = open_bytes(&folder, &good[..length]);
        assert!(matches!(refused, Err(FileError::Length { .. })), "{length}: {refused:?}");
    }
    for more in 1..=256 {
        let longer = [&good[..], &vec![0; more]].concat();
        let refused = open_bytes(&folder, &longer);
        assert!(matches!(refused, Err(FileError::Length { .. })), "{more} more: {refused:?}");
    }
}

/// Change the bytes of a good file, give its header a valid checksum again, and open it.
fn forge(folder: &TempDir, good: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> FileError {
    let mut bytes = good.to_vec();
    change(&mut bytes);
    let checksum = XxHash3_64::oneshot(&bytes[..CHECKSUM]);
    put(&mut bytes, CHECKSUM, checksum);
    open_bytes(folder, &bytes).expect_err("a forged file was opened")
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Where section `i` keeps its offset; its length is 8 further.
fn offset_at(i: usize) -> usize {
    TABLE + i * 32 + 8
}

#[test]
fn hostile_tables_under_a_valid_checksum_are_refused() {
    let (folder, path) = small();
    let good = fs::read(&path).unwrap();
    let values = [0, 1, 24, 63, 64, 1024, 1087, 1089, 1153, 1216, 1282, u64::MAX - 63, u64::MAX];
    for section in 0..3 {
        for field in [offset_at(section), offset_at(section) + 8] {
            for value in values {
                // The only lengths among these that are right for their section.
                if field == offset_at(0) + 8 && value == 24 || field == offset_at(1) + 8 && value == 0 {
                    continue;
                }
                let refused = forge(&folder, &good, |bytes| put(bytes, field, value));
                assert!(
                    matches!(refused, FileError::Malformed { .. } | FileError::Damaged { .. }),
                    "byte {field} = {value}: {refused}"
                );
            }
        }
    }
}

#[test]
fn the_header_of_every_version_so_far_is_read_and_the_writer_writes_the_last() {
    let (folder, path) = small();
    let good = fs::read(&path).unwrap();
    assert_eq!(good[8..12], FORMAT_VERSION.to_le_bytes());
    for version in 1..=FORMAT_VERSION {
        let mut bytes = good.clone();
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let checksum = XxHash3_64::oneshot(&bytes[..CHECKSUM]);
        put(&mut bytes, CHECKSUM, checksum);
        let file = open_bytes(&folder, &bytes).unwrap();
        assert_eq!((file.section(CODES).unwrap(), file.len()), (&codes()[..], good.len() as u64), "version {version}");
    }
}

#[test]
fn hostile_headers_say_which_rule_they_break() {
    let (folder, path) = small();
    let good = fs::read(&path).unwrap();
    let says = |change: &dyn Fn(&mut Vec<u8>), words: &str| {
        let refused = forge(&folder, &good, change).to_string();
        assert!(refused.contains(words), "{refused}\nshould say: {words}");
    };
    says(&|bytes| bytes[12] = 33, "33 sections where 32 is the most");
    says(&|bytes| bytes[12..16].fill(0xff), "4294967295 sections where 32 is the most");
    says(&|bytes| bytes[12] = 4, "section 3 has no valid tag");
    says(&|bytes| bytes[12] = 2, "the sections end at 1152, the file at 1282");
    says(&|bytes| bytes[12] = 0, "the sections end at 1088, the file at 1282");
    says(&|bytes| put(bytes, 16, 1281), "1282 bytes long where 1281 are expected");
    says(&|bytes| put(bytes, 16, u64::MAX), "1282 bytes long where 18446744073709551615 are expected");
    says(&|bytes| bytes.copy_within(TABLE..TABLE + 8, TABLE + 32), "two sections `ids`");
    says(&|bytes| bytes[TABLE] = b'I', "section 0 has no valid tag");
    says(&|bytes| bytes[TABLE..TABLE + 8].fill(0), "section 0 has no valid tag");
    says(&|bytes| bytes[TABLE + 5] = b'x', "section 0 has no valid tag");
    says(&|bytes| put(bytes, offset_at(1), 1088), "section `empty` at 1088 does not follow what ends at 1112");
    says(&|bytes| put(bytes, offset_at(1), 1153), "section `empty` at 1153 does not follow what ends at 1112");
    says(&|bytes| put(bytes, offset_at(1), 1216), "section `empty` at 1216 does not follow what ends at 1112");
    says(&|bytes| put(bytes, offset_at(2) + 8, u64::MAX), "section `codes_v2` goes beyond the end of the file");
    says(&|bytes| put(bytes, offset_at(2) + 8, 131), "section `codes_v2` goes beyond the end of the file");
    says(&|bytes| put(bytes, offset_at(2) + 8, 129), "the sections end at 1281, the file at 1282");
    says(&|bytes| bytes[1000] = 1, "the header is not the one these sections have");
    says(&|bytes| bytes[1050] = 1, "the header is not the one these sections have");
    says(&|bytes| bytes[8] = 0, "the header is not the one these sections have");
    says(&|bytes| bytes[8] = 9, "written by a newer Tonnage (format 9, this reads up to 2): upgrade");
    says(&|bytes| bytes[4..6].copy_from_slice(b"\n\x1a"), "not a .tng file, or one translated as text");
}

#[cfg(unix)]
#[test]
fn the_file_is_as_readable_as_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = small();
    let other = folder.path().join("other");
    fs::write(&other, b"").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&other));
}
