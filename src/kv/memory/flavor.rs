//! Which server it is, as far as bytes go.

/// Servers that lay keys out differently. The names are the first version of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavor {
    /// Redis 7.0 and 7.2 (Valkey 7.2 too): dict entry, key and object are allocations of their own.
    Redis70,
    /// Redis 7.4: a cluster has a table for each slot.
    Redis74,
    /// Redis 8.0: and a histogram of key sizes in each.
    Redis80,
    /// Redis 8.2 and 8.4: key, expiry and short values live in the object, and the table points at it.
    Redis82,
    /// Redis 8.6: a little more is embedded when a key expires.
    Redis86,
    /// Valkey 8.0: the key lives in the dict entry.
    Valkey80,
    /// Valkey 8.1 and 9.0: buckets of seven, key and expiry in the object.
    Valkey81,
    /// Valkey 9.1: short values take the place of the pointer to them.
    Valkey91,
}

impl Flavor {
    /// From the `redis_version`, `server_name` and `valkey_version` of INFO. The second value says what is not certain:
    /// an unknown version is taken for the nearest known one.
    pub fn of(redis_version: &str, server_name: Option<&str>, valkey_version: Option<&str>) -> (Self, Option<String>) {
        if let (Some("valkey") | None, Some(version)) = (server_name, valkey_version) {
            return Self::valkey(version);
        }
        let (flavor, note) = Self::redis(redis_version);
        match server_name {
            None | Some("redis") => (flavor, note),
            Some(other) => {
                (flavor, Some(format!("{other} is not known to this model; it is taken for Redis {redis_version}")))
            }
        }
    }

    fn redis(version: &str) -> (Self, Option<String>) {
        match numbers(version) {
            (0..=6, _) => (Self::Redis70, Some(taken_for("Redis", version, "7.0"))),
            (7, 0..=3) => (Self::Redis70, None),
            (7, _) => (Self::Redis74, None),
            (8, 0..=1) => (Self::Redis80, None),
            (8, 2..=5) => (Self::Redis82, None),
            (8, 6) => (Self::Redis86, None),
            _ => (Self::Redis86, Some(taken_for("Redis", version, "8.6"))),
        }
    }

    fn valkey(version: &str) -> (Self, Option<String>) {
        match numbers(version) {
            (0..=7, _) => (Self::Redis70, None),
            (8, 0) => (Self::Valkey80, None),
            (8, _) | (9, 0) => (Self::Valkey81, None),
            (9, 1) => (Self::Valkey91, None),
            _ => (Self::Valkey91, Some(taken_for("Valkey", version, "9.1"))),
        }
    }
}

fn taken_for(name: &str, version: &str, known: &str) -> String {
    format!("{name} {version:?} is not known to this model; it is taken for {known}")
}

/// Major and minor; zero where there is none.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::Flavor::{self, *};

    #[test]
    fn versions_lead_to_flavors() {
        let redis = [
            ("7.0.15", Redis70),
            ("7.2.6", Redis70),
            ("7.4.1", Redis74),
            ("8.0.6", Redis80),
            ("8.2.3", Redis82),
            ("8.4.0", Redis82),
            ("8.6.2", Redis86),
        ];
        for (version, flavor) in redis {
            assert_eq!(Flavor::of(version, None, None), (flavor, None), "{version}");
        }
        // Valkey goes on calling itself Redis 7.2.4 for its clients
        let valkey =
            [("7.2.9", Redis70), ("8.0.1", Valkey80), ("8.1.1", Valkey81), ("9.0.0", Valkey81), ("9.1.2", Valkey91)];
        for (version, flavor) in valkey {
            assert_eq!(Flavor::of("7.2.4", Some("valkey"), Some(version)), (flavor, None), "{version}");
        }
    }

    #[test]
    fn what_is_unknown_is_said() {
        let unknown = [
            ("6.2.14", None, None, Redis70),
            ("11.1.0", None, None, Redis86),
            ("", None, None, Redis70),
            ("7.2.4", Some("valkey"), Some("10.0.0"), Valkey91),
            ("7.4.0", Some("dragonfly"), None, Redis74),
        ];
        for (redis, name, valkey, flavor) in unknown {
            let (taken, note) = Flavor::of(redis, name, valkey);
            assert_eq!(taken, flavor, "{redis}");
            assert!(note.is_some(), "{redis}");
        }
    }
}
