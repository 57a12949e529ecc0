//! What changed since the build, on disk: one record after another, each with its checksum.
//!
//! ```text
//! "tonnage journal 1\n"   then records:   length u32 | checksum u32 | body
//! ```
//!
//! The checksum is the low half of XXH3-64 of the body, seeded with the place of the record in the file, so that a record
//! is not taken for one elsewhere; the seed's highest bit says that it was written together with the one before it.
//! Numbers are little-endian.
//!
//! The one thing to know: what was torn and what was damaged are told apart. A write that was torn was never
//! acknowledged, and is dropped when the file is next opened. But where something is not whole and a later write
//! follows, what is lost was acknowledged: such a file is refused, and left as it is.

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

const MAGIC: &[u8] = b"tonnage journal 1\n";
const HEADER_BYTES: usize = 8;
/// No item is longer: 65,536 dimensions and as many bytes of tags.
const MOST_BYTES: usize = 4 << 20;
/// Nor any record: an item, and what stands before its parts.
const LONGEST_BYTES: usize = MOST_BYTES + (4 << 10);
/// A journal is not written anew before it has grown by so much. 1 MiB: it is read in milliseconds.
const SLACK_BYTES: u64 = 1 << 20;

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
        // one that was torn while it was created has acknowledged nothing
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            return Ok(Vec::new());
        }
        if !bytes.starts_with(MAGIC) {
            return Err(unknown(path, 0, "it is not a journal of this version"));
        }
        let (mut changes, mut at) = (Vec::new(), MAGIC.len());
        while let Some(Record { body, .. }) = record(&bytes, at) {
            let change = Change::decode(body);
            changes.push(change.ok_or_else(|| unknown(path, at, "the record is of no kind that this version knows"))?);
            at += HEADER_BYTES + body.len();
        }
        match (at + 1..bytes.len()).find(|&next| record(&bytes, next).is_some_and(|record| !record.follows)) {
            Some(next) => Err(EngineError::JournalDamaged { path: path.to_owned(), at, next }),
            None => Ok(changes),
        }
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
    let (len, sum) = (bytes.len() - at - HEADER_BYTES, checksum(&bytes[at + HEADER_BYTES..], start + at, follows));
    bytes[at..at + 4].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
}

/// A record that is whole.
struct Record<'a> {
    body: &'a [u8],
    /// Whether it was written together with the one before.
    follows: bool,
}

/// The record at a place of a file, when it is whole.
fn record(file: &[u8], at: usize) -> Option<Record<'_>> {
    let (&[l0, l1, l2, l3, s0, s1, s2, s3], rest) = file.get(at..)?.split_first_chunk::<HEADER_BYTES>()?;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let body = rest.get(..len).filter(|body| (1..=LONGEST_BYTES).contains(&body.len()))?;
    let sum = u32::from_le_bytes([s0, s1, s2, s3]);
    let follows = [false, true].into_iter().find(|&follows| checksum(body, at, follows) == sum)?;
    Some(Record { body, follows })
}

fn checksum(body: &[u8], at: usize, follows: bool) -> u32 {
    XxHash3_64::oneshot_with_seed(at as u64 | u64::from(follows) << 63, body) as u32
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
