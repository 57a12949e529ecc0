//! One key: its entry, name, object and value. Sources, by version tag: `sds.c:sdsReqType`, `object.c`, `dict.c`,
//! `db.c`, `listpack.c` of Redis; `object.c`, `dict.c`, `hashtable.c` of Valkey.

use super::{Expiry, Flavor, Server};

/// What a key holds. Sizes are of the content alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// That many bytes. (Digits alone would be kept as a number; no page is.)
    String(usize),
    /// A hash of these (field, value) sizes.
    Hash(Vec<(usize, usize)>),
}

/// Longest string that older servers put in one allocation with its object (`OBJ_ENCODING_EMBSTR_SIZE_LIMIT`).
const EMBEDDED_STRING: usize = 44;
/// `robj`.
const OBJECT: usize = 16;
/// `dictEntry`: key, value, next.
const ENTRY: usize = 24;
/// Defaults of `hash-max-listpack-entries` and `hash-max-listpack-value`.
const PACKED_FIELDS: usize = 512;
const PACKED_VALUE: usize = 64;

impl Server {
    /// Everything that a key adds to `used_memory` but the tables' buckets. `name_bytes` is the length of the key.
    pub fn key_bytes(&self, name_bytes: usize, value: &Value, expiry: Expiry) -> usize {
        let name = sds(name_bytes);
        // the entry in the table of expiries, which shares the name
        let expires = if expiry == Expiry::Set { self.size_class(ENTRY) } else { 0 };
        match self.flavor {
            Flavor::Redis70 | Flavor::Redis74 | Flavor::Redis80 => {
                // before 7.4 a cluster links the keys of a slot through their entries (`dictEntryMetadataSize`)
                let links = if self.flavor == Flavor::Redis70 && self.cluster_slots.is_some() { 16 } else { 0 };
                self.size_class(ENTRY + links) + self.size_class(name) + self.object(value) + expires
            }
            Flavor::Valkey80 => self.size_class(16 + 1 + name) + self.object(value) + expires,
            Flavor::Redis82 | Flavor::Redis86 | Flavor::Valkey81 | Flavor::Valkey91 => {
                self.object_with_name(name, value, expiry != Expiry::None)
            }
        }
    }

    /// An object that is told apart from its name.
    fn object(&self, value: &Value) -> usize {
        match value {
            Value::String(bytes @ ..=EMBEDDED_STRING) => self.size_class(OBJECT + embedded(*bytes)),
            _ => self.size_class(OBJECT) + self.content(value),
        }
    }

    /// An object that carries its name, its expiry, and a short value (`kvobjCreateEmbedString` of Redis 8.2,
    /// `createEmbeddedStringObjectWithKeyAndExpire` of Valkey 8.1, `shouldEmbedStringObject` of Valkey 9.1).
    fn object_with_name(&self, name: usize, value: &Value, expires: bool) -> usize {
        let expiry = if expires { 8 } else { 0 };
        let head = OBJECT + 1 + name;
        if let Value::String(bytes) = value {
            let whole = head + embedded(*bytes);
            let fits = match self.flavor {
                Flavor::Valkey91 => whole - 8 + expiry <= 128,
                Flavor::Valkey81 => whole + expiry <= 64,
                Flavor::Redis86 => whole <= 64 && *bytes <= EMBEDDED_STRING,
                _ => whole + expiry <= 64 && *bytes <= EMBEDDED_STRING,
            };
            if fits {
                // Valkey 9.1 writes over the pointer that is not needed
                let reused = if self.flavor == Flavor::Valkey91 { 8 } else { 0 };
                return self.size_class(whole - reused + expiry);
            }
        }
        self.size_class(head + expiry) + self.content(value)
    }

    /// A value outside of its object.
    fn content(&self, value: &Value) -> usize {
        match value {
            Value::String(bytes) => self.size_class(sds(*bytes)),
            Value::Hash(fields) if packed(fields) => {
                let entries: usize =
                    fields.iter().map(|&(field, value)| packed_entry(field) + packed_entry(value)).sum();
                self.size_class(7 + entries)
            }
            Value::Hash(fields) => {
                let entry = |&(field, value): &(usize, usize)| {
                    self.size_class(ENTRY) + self.size_class(sds(field)) + self.size_class(sds(value))
                };
                let buckets = fields.len().next_power_of_two().max(4);
                self.size_class(56) + self.size_class(8 * buckets) + fields.iter().map(entry).sum::<usize>()
            }
        }
    }
}

/// A string with its header and closing NUL.
const fn sds(bytes: usize) -> usize {
    let header = match bytes {
        0..32 => 1,
        32..256 => 3,
        256..65_536 => 5,
        _ => 9,
    };
    header + bytes + 1
}

/// The same inside another allocation: always the 3-byte header.
const fn embedded(bytes: usize) -> usize {
    3 + bytes + 1
}

fn packed(fields: &[(usize, usize)]) -> bool {
    fields.len() <= PACKED_FIELDS && fields.iter().all(|&(field, value)| field.max(value) <= PACKED_VALUE)
}

/// A string of a listpack: encoding, bytes, length read backwards.
const fn packed_entry(bytes: usize) -> usize {
    let entry = bytes
        + match bytes {
            0..64 => 1,
            64..4_096 => 2,
            _ => 5,
        };
    let back = match entry {
        0..128 => 1,
        128..16_384 => 2,
        _ => 3,
    };
    entry + back
}
