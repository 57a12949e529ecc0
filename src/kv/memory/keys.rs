//! Groups of keys: how long their names are, what they hold, whether they expire.

use std::ops::Range;

use super::Value;

/// Lengths of names, and how many names have each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    lengths: Vec<(usize, u64)>,
}

impl Names {
    /// `count` names of `bytes` bytes each.
    pub fn same(bytes: usize, count: u64) -> Self {
        Self { lengths: vec![(bytes, count)] }
    }

    /// A prefix of `prefix_bytes` and one of these numbers in decimal, as pages are called.
    pub fn numbered(prefix_bytes: usize, numbers: Range<u64>) -> Self {
        let mut lengths = Vec::new();
        let (mut digits, mut first) = (1, 0u64);
        while first < numbers.end {
            // numbers of as many digits: 0..10, 10..100, 100..1000
            let end = 10u64.saturating_pow(digits).min(numbers.end);
            let count = end.saturating_sub(first.max(numbers.start));
            if count > 0 {
                lengths.push((prefix_bytes + digits as usize, count));
            }
            (digits, first) = (digits + 1, end);
        }
        Self { lengths }
    }

    /// Any lengths, each with its count.
    pub fn of(lengths: impl IntoIterator<Item = (usize, u64)>) -> Self {
        Self { lengths: lengths.into_iter().collect() }
    }

    /// How many names.
    pub fn count(&self) -> u64 {
        self.lengths.iter().map(|&(_, count)| count).sum()
    }

    /// (length, count), each.
    pub fn lengths(&self) -> &[(usize, u64)] {
        &self.lengths
    }
}

/// Values and the share of keys that hold each; shares need not add up to one, only their proportions count.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    shares: Vec<(Value, f64)>,
}

impl Values {
    /// Every key holds such a value.
    pub fn same(value: Value) -> Self {
        Self { shares: vec![(value, 1.0)] }
    }

    /// A mix.
    pub fn mixed(shares: impl IntoIterator<Item = (Value, f64)>) -> Self {
        Self { shares: shares.into_iter().collect() }
    }

    /// Strings of `header_bytes` and n entries of `entry_bytes`, where n is Poisson around `mean`: what falls into
    /// buckets by hash. The mean size will not do, because size classes round each one up by itself.
    pub fn poisson(header_bytes: usize, entry_bytes: usize, mean: f64) -> Self {
        let string = |(n, p)| (Value::String(header_bytes + n * entry_bytes), p);
        Self::mixed(poisson(mean).map(string))
    }

    /// Bytes of strings, and the share of keys that hold so many. Hashes are left out.
    pub fn strings(&self) -> impl Iterator<Item = (usize, f64)> {
        self.shares().filter_map(|(value, share)| match value {
            Value::String(bytes) => Some((*bytes, share)),
            Value::Hash(_) => None,
        })
    }

    pub(super) fn shares(&self) -> impl Iterator<Item = (&Value, f64)> {
        let sum: f64 = self.shares.iter().map(|(_, share)| share).sum();
        self.shares.iter().map(move |(value, share)| (value, share / sum))
    }
}

/// Whether keys expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// They never had a TTL.
    None,
    /// They have one, given with the write.
    Set,
    /// They had one, given with the write, and it was taken off (`PERSIST`). Newer servers keep its eight bytes.
    Removed,
}

/// Keys that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// Their names.
    pub names: Names,
    /// What they hold, whatever their name.
    pub values: Values,
    /// Whether they expire.
    pub expiry: Expiry,
}

impl Keys {
    /// Keys that all hold a string of `bytes`.
    pub fn strings(names: Names, bytes: usize, expiry: Expiry) -> Self {
        Self { names, values: Values::same(Value::String(bytes)), expiry }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.names.count()
    }
}

/// (n, its probability), for all n that a Poisson variable around `mean` takes: ten standard deviations to either side
/// leave out less than `f64` can hold.
pub(super) fn poisson(mean: f64) -> impl Iterator<Item = (usize, f64)> {
    let mean = mean.max(f64::MIN_POSITIVE);
    let reach = 10.0 * mean.sqrt() + 10.0;
    let first = (mean - reach).max(0.0) as usize;
    let mut p = (first as f64 * mean.ln() - mean - ln_factorial(first)).exp();
    (first..=(mean + reach) as usize).map(move |n| {
        let now = p;
        p *= mean / (n + 1) as f64;
        (n, now)
    })
}

/// Stirling's series, which is exact to `f64` from 32 on; below, the definition.
fn ln_factorial(n: usize) -> f64 {
    if n < 32 {
        return (2..=n).map(|i| (i as f64).ln()).sum();
    }
    let n = n as f64;
    let series = 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3)) + 1.0 / (1260.0 * n.powi(5));
    (n + 0.5) * n.ln() - n + 0.5 * std::f64::consts::TAU.ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names_are_as_long_as_they_print() {
        for range in [0..0, 0..1, 0..10, 0..11, 7..9, 95..1_234, 0..100_000, 10..10] {
            let mut counted = std::collections::BTreeMap::new();
            range.clone().for_each(|n| *counted.entry(format!("p:{n}").len()).or_insert(0) += 1);
            assert_eq!(Names::numbered(2, range.clone()), Names::of(counted), "{range:?}");
        }
        assert_eq!(Names::numbered(0, 0..u64::MAX).count(), u64::MAX);
    }

    #[test]
    fn poisson_adds_up_to_one_and_to_its_mean() {
        for mean in [1e-300, 0.01, 0.5, 1.0, 6.1, 93.0, 5_000.0] {
            let (sum, first) = poisson(mean).fold((0.0, 0.0), |(s, m), (n, p)| (s + p, m + n as f64 * p));
            assert!((sum - 1.0).abs() < 1e-9, "{mean}: {sum}");
            assert!((first - mean).abs() < 1e-8 * mean.max(1.0), "{mean}: {first}");
        }
    }
}
