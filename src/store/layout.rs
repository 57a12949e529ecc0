//! Which user stands in which page, and the bytes of each page. No keys are written here.

use std::collections::BTreeMap;
use std::ops::Range;

use super::geometry::{self, Home};
use super::page::{self, FINGERPRINT_BYTES, HEADER_BYTES, Place};
use super::publish::{Ids, ReleaseSpec, Users};
use super::release::{self, Addressing, FORMAT, Manifest};
use super::{StoreError, footprint};
use crate::input::Id;
use crate::kv::memory::{Value, Values};

/// Seeds tried before giving up; a second is needed once in 20,000 releases of a million users.
const SEEDS: u64 = 8;

/// A release laid out: its manifest but for bytes and checksum, and the rows of each page.
pub(super) struct Layout<'a, 'u> {
    pub manifest: Manifest,
    users: &'a Users<'u>,
    rows: Rows,
}

/// The rows of each page.
enum Rows {
    /// Page by page in order.
    InOrder,
    /// `rows[starts[page]..starts[page + 1]]`, by ascending fingerprint.
    Grouped { starts: Vec<u32>, rows: Vec<u32> },
}

impl<'a, 'u> Layout<'a, 'u> {
    /// On a server that was not looked at. Addressing is chosen for the fewest bytes a user, unless there is one to take over.
    pub(super) fn new(
        spec: &ReleaseSpec,
        users: &'a Users<'u>,
        taken_over: Option<Addressing>,
    ) -> Result<Self, StoreError> {
        Self::at(Home::REFERENCE, spec, users, taken_over)
    }

    /// The same, chosen for where it goes.
    pub(super) fn at(
        home: Home,
        spec: &ReleaseSpec,
        users: &'a Users<'u>,
        taken_over: Option<Addressing>,
    ) -> Result<Self, StoreError> {
        if users.count == 0 {
            return Err(StoreError::BadSpec { what: "users", expected: "at least 1".to_owned(), got: 0 });
        }
        release::check_dim(spec.dim)?;
        let slot_bytes = spec.codec.bytes_per_vector(spec.dim as usize) + page::TAG_BYTES;
        let (addressing, rows) = match (&users.ids, taken_over) {
            (Ids::Dense, Some(addressing @ Addressing::Dense { .. })) => (addressing, Rows::InOrder),
            (Ids::Dense, _) => (Addressing::Dense { slots: geometry::dense_slots(home, slot_bytes) }, Rows::InOrder),
            (Ids::Listed(id), Some(addressing @ Addressing::Hashed { pages, seed })) => {
                (addressing, group(users.count, id, pages, seed..seed + 1)?.1)
            }
            (Ids::Listed(id), _) => {
                let mean = geometry::hashed_mean(home, HEADER_BYTES, FINGERPRINT_BYTES + slot_bytes);
                let pages = (f64::from(users.count) / mean).ceil() as u32;
                let (seed, rows) = group(users.count, id, pages, 0..SEEDS)?;
                (Addressing::Hashed { pages, seed }, rows)
            }
        };
        let manifest = Manifest {
            format: FORMAT,
            name: spec.name.clone(),
            fingerprint: spec.fingerprint,
            id: release::id(&spec.name, spec.fingerprint),
            codec: spec.codec,
            dim: spec.dim,
            users: users.count,
            addressing,
            bytes: 0,
            checksum: 0,
            keys: match addressing {
                Addressing::Dense { slots } => Some(release::dense_keys(spec, slots)),
                Addressing::Hashed { .. } => None, // a page says how long it is, and for whom
            },
            memory: None,
        };
        Ok(Self { manifest, users, rows })
    }

    /// How many users a page has.
    pub(super) fn users_of(&self, page: u32) -> u32 {
        match (&self.rows, self.manifest.addressing) {
            (Rows::Grouped { starts, .. }, _) => starts[page as usize + 1] - starts[page as usize],
            (Rows::InOrder, Addressing::Dense { slots }) => {
                let first = page.saturating_mul(slots);
                self.users.count.saturating_sub(first).min(slots)
            }
            (Rows::InOrder, Addressing::Hashed { .. }) => 0,
        }
    }

    /// The sizes of all pages.
    pub(super) fn values(&self) -> Values {
        let slot = self.manifest.slot_bytes();
        match (&self.rows, self.manifest.addressing) {
            (Rows::Grouped { starts, .. }, Addressing::Hashed { .. }) => {
                let mut sizes = BTreeMap::new();
                for ends in starts.windows(2) {
                    *sizes.entry(ends[1] - ends[0]).or_insert(0u32) += 1;
                }
                let value =
                    |(users, count)| (Value::String(page::hashed_bytes(users as usize, slot)), f64::from(count));
                Values::mixed(sizes.into_iter().map(value))
            }
            _ => footprint::expected_values(&self.manifest),
        }
    }

    /// The bytes of a page.
    pub(super) fn page(&self, page: u32) -> Result<Vec<u8>, StoreError> {
        let in_order: Vec<u32>;
        let rows = match (&self.rows, self.manifest.addressing) {
            (Rows::InOrder, Addressing::Dense { slots }) => {
                let first = page * slots;
                in_order = (first..first + self.users_of(page)).collect();
                &in_order[..]
            }
            (Rows::InOrder, Addressing::Hashed { .. }) => &[],
            (Rows::Grouped { starts, rows }, _) => {
                &rows[starts[page as usize] as usize..starts[page as usize + 1] as usize]
            }
        };
        let (record_bytes, tag) = (self.manifest.record_bytes(), self.manifest.tag());
        let mut records = vec![0; rows.len() * record_bytes];
        (self.users.encode)(rows, &mut records).map_err(StoreError::Source)?;
        Ok(match (&self.users.ids, self.manifest.addressing) {
            (Ids::Listed(id), Addressing::Hashed { pages, seed }) => {
                let fingerprint = |&row: &u32| Place::of(id(row), seed, pages).fingerprint;
                let fingerprints: Vec<u64> = rows.iter().map(fingerprint).collect();
                page::hashed_page(&fingerprints, &records, record_bytes, tag, self.manifest.salt(page))
            }
            _ => page::dense_page(&records, record_bytes, tag),
        })
    }
}

/// Groups rows by page under the first seed that gives every user of a page a fingerprint of its own.
fn group<'a>(count: u32, id: &dyn Fn(u32) -> Id<'a>, pages: u32, seeds: Range<u64>) -> Result<(u64, Rows), StoreError> {
    let tries = seeds.end - seeds.start;
    for seed in seeds {
        let place = |row| Place::of(id(row), seed, pages);
        let (starts, mut rows) = by_page(count, pages, |row| place(row).page);
        let clash = starts.windows(2).find_map(|ends| {
            let rows = &mut rows[ends[0] as usize..ends[1] as usize];
            rows.sort_by_cached_key(|&row| place(row).fingerprint);
            let mut pairs = rows.windows(2);
            pairs.find(|pair| place(pair[0]) == place(pair[1])).map(|pair| (pair[0], pair[1]))
        });
        match clash {
            None => return Ok((seed, Rows::Grouped { starts, rows })),
            Some((first, second)) if id(first) == id(second) => {
                return Err(StoreError::DuplicateId { first, second });
            }
            Some(_) => {}
        }
    }
    Err(StoreError::NoSeed { tries })
}

/// Counting sort: where each page's rows begin, and the rows. Two looks at each id instead of 12 more bytes for it.
fn by_page(count: u32, pages: u32, page: impl Fn(u32) -> u32) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; pages as usize + 1];
    for row in 0..count {
        starts[page(row) as usize] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum; // the page's end, for now
    }
    let mut rows = vec![0; count as usize];
    for row in 0..count {
        let end = &mut starts[page(row) as usize];
        *end -= 1;
        rows[*end as usize] = row;
    }
    (starts, rows)
}
