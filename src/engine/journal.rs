//! What changed since the build, on disk: one record after another, each with its checksum.
//!
//! ```text
//! "tonnage changes 2\n"   then records:   length u32 | checksum u32 | place u64 | body
//! ```
//!
//! The place is that of the record in the file, so that one which has moved is known for what it is; its highest bit says
//! that the record was written together with the one before it. The checksum is the low half of XXH3-64 of the body,
//! seeded with the place. Numbers are little-endian. In files of version 1, which begin otherwise and are still read,
//! the place is only a seed and does not stand in the record.
//!
//! The one thing to know: what was torn and what was damaged are told apart. A write that was torn was never
//! acknowledged, and is dropped when the file is next opened. But where something is not whole, or is gone, and a later
//! write follows, what is lost was acknowledged: such a file is refused, and left as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Error, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::EngineError;
use super::live::NewItem;
use super::lock::Lock;
use super::request::OwnedId;
use crate::codec::MAX_COMPONENT;
use crate::input::MAX_ID_BYTES;

const MAGIC: &[u8] = b"tonnage changes 2\n";
const HEADER_BYTES: usize = 16;
/// Of version 1, whose records have no place. It differs in more than a number, so that a damaged byte makes neither of
/// the other.
const MAGIC_1: &[u8] = b"tonnage journal 1\n";
/// The highest bit of a place.
const TOGETHER: u64 = 1 << 63;
/// No file is longer, and no place is later.
const LAST_PLACE: u64 = 1 << 48;
/// No item is longer: 65,536 dimensions and as many bytes of tags.
const MOST_BYTES: usize = 4 << 20;
/// Nor any record: an item, and what stands before its parts.
const LONGEST_BYTES: usize = MOST_BYTES + (4 << 10);
/// A journal is not written anew before it has grown by so much. 1 MiB: it is read in milliseconds.
const SLACK_BYTES: u64 = 1 << 20;
/// Bytes that are hashed at the most in looking for a record behind what is not whole: some seconds. A torn write of any
/// size needs a fraction; that there is more to be tried was made so, and is refused.
const MOST_HASHED_BYTES: u64 = 32 << 30;

/// The first byte of a record's body, of those that hold an item, and the last of all.
const ADD: u8 = 2;
const ADD_WITH_NUMBERS: u8 = 5;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// Items by hash, and whether they are available.
    Available(Vec<(u64, bool)>),
    /// An item for the release of that fingerprint.
    Add(u64, Arc<NewItem>),
    /// Items by hash, away from that release.
    Delete(u64, Vec<u64>),
    /// Nothing counts but what belongs to these releases.
    Keep(Vec<u64>),
}

/// A journal, open for writing by this process alone.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes that are whole.
    len: u64,
    /// Whether there may be more, of a write that failed.
    torn: bool,
    /// Whether the disk has it that the path leads to this file.
    placed: bool,
    /// Bytes beyond which it is written anew.
    most: u64,
    _lock: Lock,
}

impl Journal {
    /// The changes in a file, which need not be there. A last write that was torn is left out.
    pub fn read(path: &Path) -> Result<Vec<Change>, EngineError> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes).map_err(|source| trouble(path, source))?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(trouble(path, error)),
        };
        changes(path, &bytes)
    }

    /// Puts a journal of these changes in the place of the file, whole or not at all.
    pub fn create(path: &Path, changes: &[Change], lock: Lock) -> Result<Self, EngineError> {
        let (file, len) = put(path, changes).map_err(|source| trouble(path, source))?;
        let (path, most) = (path.to_owned(), 2 * len + SLACK_BYTES);
        Ok(Self { path, file, len, torn: false, placed: false, most, _lock: lock })
    }

    /// Whether it is much longer than it was when it was last written anew.
    pub fn is_long(&self) -> bool {
        self.len > self.most
    }

    /// Writes it anew, of changes that lead to the same. When that fails it stays as it is, which says no less, and is not
    /// tried again before it has doubled.
    pub fn compact(&mut self, changes: &[Change]) {
        if let Ok((file, len)) = put(&self.path, changes) {
            (self.file, self.len, self.torn, self.placed) = (file, len, false, false);
        }
        self.most = 2 * self.len + SLACK_BYTES;
    }

    /// Adds changes, durable on return. What could not be written whole is taken back before the next.
    pub fn append(&mut self, changes: &[Change]) -> Result<(), EngineError> {
        let mut bytes = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            push(&mut bytes, self.len as usize, change, number > 0);
        }
        self.write(&bytes).map_err(|source| trouble(&self.path, source))?;
        self.len += bytes.len() as u64;
        self.torn = false;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if !self.placed {
            // until now the file that it took the place of would have said the same
            File::open(folder(&self.path))?.sync_all()?;
            self.placed = true;
        }
        if self.torn {
            self.file.set_len(self.len)?;
            self.file.seek(SeekFrom::Start(self.len))?;
        }
        self.torn = true;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }
}

/// The changes in the bytes of a file.
fn changes(path: &Path, bytes: &[u8]) -> Result<Vec<Change>, EngineError> {
    // one that was torn while it was created has acknowledged nothing
    if bytes.len() < MAGIC.len() && [MAGIC, MAGIC_1].iter().any(|magic| magic.starts_with(bytes)) {
        return Ok(Vec::new());
    }
    let has_places = bytes.starts_with(MAGIC);
    if !has_places && !bytes.starts_with(MAGIC_1) {
        return Err(unknown(path, 0, "it is not a journal of this version"));
    }
    let (mut changes, mut at) = (Vec::new(), MAGIC.len());
    while let Some(record) = record(bytes, at, has_places, &mut 0).filter(|record| record.place == at as u64) {
        let change = Change::decode(record.body);
        changes.push(change.ok_or_else(|| unknown(path, at, "the record is of no kind that this version knows"))?);
        at = record.end;
    }
    match later(bytes, at, has_places) {
        Some(next) => Err(EngineError::JournalDamaged { path: path.to_owned(), at, next }),
        None => Ok(changes),
    }
}

/// Where there is something that was written later than what is not whole at `at`: in a write of its own, or elsewhere.
fn later(bytes: &[u8], at: usize, has_places: bool) -> Option<usize> {
    let mut hashed_bytes = 0;
    (at..bytes.len()).find(|&next| match record(bytes, next, has_places, &mut hashed_bytes) {
        Some(record) => !record.follows || record.place != next as u64,
        None => hashed_bytes > MOST_HASHED_BYTES,
    })
}

/// Puts a file of these changes in the place of another, and says how long it is.
fn put(path: &Path, changes: &[Change]) -> std::io::Result<(File, u64)> {
    let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(folder(path))?);
    let (mut bytes, mut len) = (MAGIC.to_vec(), 0);
    for change in changes {
        push(&mut bytes, len, change, false);
        file.write_all(&bytes)?;
        len += bytes.len();
        bytes.clear();
    }
    file.write_all(&bytes)?;
    let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    Ok((file.persist(path)?, (len + bytes.len()) as u64))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn trouble(path: &Path, source: Error) -> EngineError {
    EngineError::Journal { path: path.to_owned(), source }
}

fn unknown(path: &Path, at: usize, what: &str) -> EngineError {
    trouble(path, Error::new(ErrorKind::InvalidData, format!("{what} (byte {at})")))
}

/// Appends the record of a change to bytes that begin at `start` of the file.
fn push(bytes: &mut Vec<u8>, start: usize, change: &Change, follows: bool) {
    let at = bytes.len();
    bytes.extend_from_slice(&[0; HEADER_BYTES]);
    change.encode(bytes);
    let (head, body) = bytes[at..].split_at_mut(HEADER_BYTES);
    let place = (start + at) as u64 | if follows { TOGETHER } else { 0 };
    head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[4..8].copy_from_slice(&checksum(body, place).to_le_bytes());
    head[8..].copy_from_slice(&place.to_le_bytes());
}

/// A record that is whole.
struct Record<'a> {
    body: &'a [u8],
    /// Where it was written.
    place: u64,
    /// Whether it was written together with the one before.
    follows: bool,
    /// Where it ends now.
    end: usize,
}

/// The record that begins at a place of a file, when it is whole. What has to be hashed to know is added to `hashed_bytes`.
fn record<'a>(file: &'a [u8], at: usize, has_places: bool, hashed_bytes: &mut u64) -> Option<Record<'a>> {
    let mut rest = file.get(at..)?;
    let (len, sum) = (take_u32(&mut rest)? as usize, take_u32(&mut rest)?);
    // one that does not say its place is here, by itself or together with the one before
    let places: &[u64] = if has_places { &[take_u64(&mut rest)?] } else { &[at as u64, at as u64 | TOGETHER] };
    let body = rest.get(..len).filter(|body| (1..=LONGEST_BYTES).contains(&body.len()))?;
    let place = places.iter().filter(|&place| place & !TOGETHER < LAST_PLACE).find(|&&place| {
        *hashed_bytes += body.len() as u64;
        checksum(body, place) == sum
    })?;
    let end = file.len() - rest.len() + body.len();
    Some(Record { body, place: place & !TOGETHER, follows: place & TOGETHER != 0, end })
}

fn checksum(body: &[u8], place: u64) -> u32 {
    XxHash3_64::oneshot_with_seed(place, body) as u32
}

impl Change {
    /// Hashes of one record at the most.
    pub const MOST_HASHES: usize = 100_000;

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Available(hashes) => {
                out.push(1);
                for (hash, available) in hashes {
                    out.extend_from_slice(&hash.to_le_bytes());
                    out.push(u8::from(*available));
                }
            }
            Self::Add(fingerprint, item) => {
                // items without numbers are written as they were before there were any
                out.push(if item.numbers.is_empty() { ADD } else { ADD_WITH_NUMBERS });
                out.extend_from_slice(&fingerprint.to_le_bytes());
                out.extend_from_slice(&item.made_s.to_le_bytes());
                put_text(out, &item.id.to_string());
                out.extend_from_slice(&(item.tags.len() as u32).to_le_bytes());
                item.tags.iter().for_each(|tag| put_text(out, tag));
                if !item.numbers.is_empty() {
                    out.extend_from_slice(&(item.numbers.len() as u32).to_le_bytes());
                }
                for (field, number) in &item.numbers {
                    put_text(out, field);
                    out.extend_from_slice(&number.to_le_bytes());
                }
                item.vector.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            }
            Self::Delete(fingerprint, hashes) => {
                out.push(3);
                out.extend_from_slice(&fingerprint.to_le_bytes());
                hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
            }
            Self::Keep(fingerprints) => {
                out.push(4);
                fingerprints.iter().for_each(|one| out.extend_from_slice(&one.to_le_bytes()));
            }
        }
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (&kind, mut rest) = body.split_first()?;
        match kind {
            1 => {
                let (pairs, []) = rest.as_chunks::<9>() else { return None };
                let pair = |&[h0, h1, h2, h3, h4, h5, h6, h7, available]: &[u8; 9]| {
                    (u64::from_le_bytes([h0, h1, h2, h3, h4, h5, h6, h7]), available == 1)
                };
                Some(Self::Available(pairs.iter().map(pair).collect()))
            }
            ADD | ADD_WITH_NUMBERS => {
                let fingerprint = take_u64(&mut rest)?;
                Some(Self::Add(fingerprint, Arc::new(item(rest, kind == ADD_WITH_NUMBERS)?)))
            }
            3 => Some(Self::Delete(take_u64(&mut rest)?, numbers(rest)?)),
            4 => Some(Self::Keep(numbers(rest)?)),
            _ => None,
        }
    }

    /// Whether a record can hold it.
    pub fn fits(&self) -> bool {
        match self {
            Self::Available(hashes) => hashes.len() <= Self::MOST_HASHES,
            Self::Delete(_, hashes) | Self::Keep(hashes) => hashes.len() <= Self::MOST_HASHES,
            Self::Add(_, item) => {
                let texts = item
                    .tags
                    .iter()
                    .chain(item.numbers.keys())
                    .chain([&item.id.to_string()])
                    .all(|text| text.len() <= MAX_ID_BYTES);
                let named = item.tags.len() * (MAX_ID_BYTES + 4) + item.numbers.len() * (MAX_ID_BYTES + 12);
                texts && named + 4 * item.vector.len() <= MOST_BYTES
            }
        }
    }
}

/// An item, from all that follows the fingerprint.
fn item(mut rest: &[u8], with_numbers: bool) -> Option<NewItem> {
    let made_s = take_u64(&mut rest)?;
    let id = OwnedId::parse(&take_text(&mut rest)?);
    let (mut tags, mut numbers) = (Vec::new(), BTreeMap::new());
    for _ in 0..take_u32(&mut rest)? {
        tags.push(take_text(&mut rest)?);
    }
    for _ in 0..if with_numbers { take_u32(&mut rest)? } else { 0 } {
        let field = take_text(&mut rest)?;
        numbers.insert(field, f64::from_bits(take_u64(&mut rest)?));
    }
    let (floats, []) = rest.as_chunks::<4>() else { return None };
    let vector: Vec<f32> = floats.iter().map(|&x| f32::from_le_bytes(x)).collect();
    let finite =
        vector.iter().all(|x| x.abs() <= MAX_COMPONENT) && numbers.values().all(|number: &f64| number.is_finite());
    finite.then_some(NewItem { id, tags, numbers, vector, made_s })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let len = take_u32(bytes)? as usize;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

fn numbers(bytes: &[u8]) -> Option<Vec<u64>> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return None };
    Some(numbers.iter().map(|&number| u64::from_le_bytes(number)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Change>, EngineError> {
        changes(Path::new("journal"), bytes)
    }

    /// Writes, each of some changes.
    fn some_writes() -> impl Strategy<Value = Vec<Vec<Change>>> {
        let hashes = || prop::collection::vec(any::<u64>(), 0..4);
        let item = ("[a-z]{1,8}", prop::collection::vec("[a-z]{1,8}", 0..3), prop::collection::vec(-1_f32..1.0, 0..8));
        let item = item.prop_map(|(id, tags, vector)| NewItem {
            id: OwnedId::parse(&id),
            tags,
            numbers: BTreeMap::new(),
            vector,
            made_s: 7,
        });
        let change = prop_oneof![
            prop::collection::vec(any::<(u64, bool)>(), 0..4).prop_map(Change::Available),
            (any::<u64>(), item).prop_map(|(release, item)| Change::Add(release, Arc::new(item))),
            (any::<u64>(), hashes()).prop_map(|(release, items)| Change::Delete(release, items)),
            hashes().prop_map(Change::Keep),
        ];
        prop::collection::vec(prop::collection::vec(change, 1..4), 1..12)
    }

    /// A file of these writes, and where its records begin, with the end of the last.
    fn file_of(writes: &[Vec<Change>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (MAGIC.to_vec(), Vec::new());
        for write in writes {
            for (number, change) in write.iter().enumerate() {
                starts.push(bytes.len());
                push(&mut bytes, 0, change, number > 0);
            }
        }
        starts.push(bytes.len());
        (bytes, starts)
    }

    proptest! {
        #[test]
        fn what_is_cut_out_takes_nothing_with_it_unsaid(
            writes in some_writes(), cuts in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 50),
        ) {
            let (whole, starts) = file_of(&writes);
            let all: Vec<Change> = writes.concat();
            prop_assert_eq!(&read(&whole).unwrap(), &all);
            for (from, to) in cuts {
                let place = |index: prop::sample::Index| MAGIC.len() + index.index(whole.len() + 1 - MAGIC.len());
                let (from, to) = (place(from).min(place(to)), place(from).max(place(to)));
                let left = [&whole[..from], &whole[to..]].concat();
                // several cuts may leave the same: what it begins with and what it ends with, as far as it does
                let same = |pair: &(&u8, &u8)| pair.0 == pair.1;
                let from = left.iter().zip(&whole).take_while(same).count();
                let to = whole.len() - left.iter().rev().zip(whole.iter().rev()).take_while(same).count();
                let before = starts[1..].iter().filter(|&&end| end <= from).count();
                // what begins at the cut's end or after it is whole, and somewhere else, behind all that is read
                let (gone, read_to) = (whole.len() - left.len(), starts[before]);
                let is_later = |&start: &usize| start >= to && start - gone >= read_to;
                let after = starts.iter().position(is_later).unwrap_or(all.len());
                match read(&left) {
                    Ok(changes) => {
                        prop_assert_eq!(&changes, &all[..before]);
                        prop_assert!(left == whole || after == all.len(), "{}..{} of {:?} cut out", from, to, starts);
                    }
                    Err(EngineError::JournalDamaged { at, next, .. }) => {
                        prop_assert_eq!((at, next + gone), (read_to, starts[after]));
                    }
                    Err(error) => prop_assert!(false, "{}", error),
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            let _ = read(&[if magic { MAGIC } else { MAGIC_1 }, &bytes].concat());
        }
    }

    #[test]
    fn files_of_version_1_are_read() {
        let all = [Change::Keep(vec![1, 2]), Change::Available(vec![(3, true)]), Change::Delete(4, vec![5])];
        let mut bytes = MAGIC_1.to_vec();
        for (at, change) in all.iter().enumerate() {
            let (mut body, place) = (Vec::new(), bytes.len() as u64);
            change.encode(&mut body);
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
            // the last two were one write
            bytes.extend_from_slice(&checksum(&body, if at == 2 { place | TOGETHER } else { place }).to_le_bytes());
            bytes.extend_from_slice(&body);
        }
        assert_eq!(read(&bytes).unwrap(), all);
        let second = MAGIC_1.len() + 8 + 17;
        bytes[second + 8] ^= 1;
        assert_eq!(read(&bytes).unwrap(), all[..1], "torn");
        bytes[second + 8] ^= 1;
        bytes[second - 1] ^= 1;
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, EngineError::JournalDamaged { at, next, .. } if (at, next) == (MAGIC.len(), second)));
    }
}
