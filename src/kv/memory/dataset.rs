//! A database through a sequence of loads and removals: what it costs at rest and at the peak on the way.

use super::tables::{Role, Table};
use super::{Expiry, Keys, Server};

/// The bytes of one database as keys come and go.
///
/// It begins from what is there, adds and removes groups, and knows at each moment the bytes at rest and the most that
/// they have been. In bytes of `used_memory`; the connections that do the work come on top.
#[derive(Clone, Debug)]
pub struct Dataset {
    server: Server,
    /// `used_memory` at the beginning, less the tables.
    base: f64,
    objects: f64,
    main: Table,
    expires: Table,
    peak: f64,
}

impl Dataset {
    /// A database that has `keys` keys, `expires` of them with a TTL, on a server that uses `used_bytes` in all. Its
    /// tables are taken to be as large as that many keys need: what it held before cannot be seen.
    pub fn new(server: Server, used_bytes: u64, keys: u64, expires: u64) -> Self {
        let (main, expires) = (Table::of(&server, Role::Keys, keys), Table::of(&server, Role::Expiries, expires));
        let base = used_bytes as f64 - main.bytes() - expires.bytes();
        Self { server, base, objects: 0.0, main, expires, peak: used_bytes as f64 }
    }

    /// These keys are written; none of them was there.
    pub fn add(&mut self, keys: &Keys) {
        self.add_priced(&self.server.price(keys));
    }

    /// These keys are removed, or have expired.
    pub fn remove(&mut self, keys: &Keys) {
        self.remove_priced(&self.server.price(keys));
    }

    /// The TTL of these keys is taken off, and says so in `keys`.
    pub fn persist(&mut self, keys: &mut Keys) {
        keys.expiry = self.persist_priced(&self.server.price(keys)).expiry;
    }

    /// [`add`](Self::add) of a group whose price is known.
    pub fn add_priced(&mut self, keys: &Priced) {
        self.objects += keys.bytes();
        self.main.add(&self.server, keys.count);
        if keys.expiry == Expiry::Set {
            self.expires.add(&self.server, keys.count);
        }
        self.peak = self.peak.max(self.now());
    }

    /// [`remove`](Self::remove) of a group whose price is known.
    pub fn remove_priced(&mut self, keys: &Priced) {
        self.objects -= keys.bytes();
        self.main.remove(&self.server, keys.count);
        if keys.expiry == Expiry::Set {
            self.expires.remove(&self.server, keys.count);
        }
        self.settle();
    }

    /// [`persist`](Self::persist) of a group whose price is known; returns it as it is then.
    pub fn persist_priced(&mut self, keys: &Priced) -> Priced {
        let persisted = keys.persisted();
        if keys.expiry == Expiry::Set {
            self.objects += persisted.bytes() - keys.bytes();
            self.expires.remove(&self.server, keys.count);
            self.settle();
        }
        persisted
    }

    /// Tables that have grown have moved their entries.
    fn settle(&mut self) {
        self.main.settle();
        self.expires.settle();
        self.peak = self.peak.max(self.now());
    }

    /// `used_memory` once the tables have moved their entries.
    pub fn rest_bytes(&self) -> u64 {
        self.rest().round() as u64
    }

    /// The most that `used_memory` has been, with both sizes of each table that grew: entries move as commands come and
    /// in idle moments, so how long both stand is not known.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.round() as u64
    }

    fn rest(&self) -> f64 {
        self.base + self.objects + self.main.bytes() + self.expires.bytes()
    }

    fn now(&self) -> f64 {
        self.rest() + self.main.leaving_bytes() + self.expires.leaving_bytes()
    }
}

/// A group of keys with what it costs, worked out once: a plan adds and removes the same group in very many datasets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Priced {
    count: u64,
    expiry: Expiry,
    /// Without a TTL, with one, with one taken off.
    bytes: [f64; 3],
}

impl Priced {
    /// The same keys after their TTL was taken off, if they had one.
    #[must_use]
    pub fn persisted(self) -> Self {
        let expiry = if self.expiry == Expiry::Set { Expiry::Removed } else { self.expiry };
        Self { expiry, ..self }
    }

    /// Expected bytes without the tables.
    pub fn bytes(&self) -> f64 {
        self.bytes[match self.expiry {
            Expiry::None => 0,
            Expiry::Set => 1,
            Expiry::Removed => 2,
        }]
    }
}

impl Server {
    /// Works out what a group costs.
    pub fn price(&self, keys: &Keys) -> Priced {
        let with = |expiry| self.sum(keys, expiry);
        let bytes = [with(Expiry::None), with(Expiry::Set), with(Expiry::Removed)];
        Priced { count: keys.count(), expiry: keys.expiry, bytes }
    }

    /// Expected bytes of a group without the tables.
    pub fn keys_bytes(&self, keys: &Keys) -> f64 {
        self.sum(keys, keys.expiry)
    }

    fn sum(&self, keys: &Keys, expiry: Expiry) -> f64 {
        let mut sum = 0.0;
        for (value, share) in keys.values.shares() {
            for &(name_bytes, count) in keys.names.lengths() {
                sum += share * count as f64 * self.key_bytes(name_bytes, value, expiry) as f64;
            }
        }
        sum
    }

    /// Bytes of `used_memory` that a group adds to an empty database, tables included.
    pub fn group_bytes(&self, keys: &Keys) -> u64 {
        let mut dataset = Dataset::new(*self, 0, 0, 0);
        dataset.add(keys);
        dataset.rest_bytes()
    }
}
