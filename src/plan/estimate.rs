//! A mean of shares with the interval that its sample leaves open, so that "reaches the floor" is a statement and not luck.

use serde::{Deserialize, Serialize};

/// Two-sided 95 %: a lower bound is wrong once in forty times.
const Z: f64 = 1.96;

/// The mean of some shares (numbers from 0 to 1), one a user, and where the mean of all users is.
///
/// The interval is that of Agresti and Coull (*The American Statistician* 52, 1998), which adds `z²/2` successes and as
/// many failures, for shares instead of successes: their own variance stands in for `p (1 - p)`. So a sample without a
/// single miss still leaves room for some, and it takes more users, not luck, to close it. Nothing is drawn at random:
/// the same shares make the same interval. That the sample may hold all users of a file is not counted in its favour,
/// since the users of tomorrow are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The mean of the sample.
    pub mean: f64,
    /// The mean of all users is not below this, with the confidence of 95 % for both bounds together.
    pub low: f64,
    /// Nor above this.
    pub high: f64,
    /// Users in the sample.
    pub users: u32,
}

/// How an estimate stands to a floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The lower bound reaches it.
    Reached,
    /// It lies inside the interval: more users would tell.
    Open,
    /// The upper bound is below it.
    Missed,
}

impl Estimate {
    /// The estimate from shares, each from 0 to 1. Of none, everything is open.
    pub fn of(shares: impl IntoIterator<Item = f64>) -> Self {
        let (mut users, mut sum, mut squares) = (0_u32, 0.0, 0.0);
        for share in shares {
            users += 1;
            sum += share;
            squares += share * share;
        }
        let n = f64::from(users) + Z * Z;
        let middle = (sum + Z * Z / 2.0) / n;
        let variance = (squares + Z * Z / 2.0) / n - middle * middle;
        let reach = Z * (variance.max(0.0) / n).sqrt();
        let mean = if users == 0 { 0.5 } else { sum / f64::from(users) };
        // The added failures pull the middle away from the ends; the mean itself is never outside.
        Self { mean, low: (middle - reach).clamp(0.0, mean), high: (middle + reach).clamp(mean, 1.0), users }
    }

    /// Whether a floor is reached, missed, or cannot be told apart from the mean.
    pub fn against(&self, floor: f64) -> Verdict {
        match floor {
            _ if self.low >= floor => Verdict::Reached,
            _ if self.high < floor => Verdict::Missed,
            _ => Verdict::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evenly spread numbers in 0..1, the same each time.
    fn uniform(mut state: u64) -> impl FnMut() -> f64 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// How often the lower bound of `users` draws is above the mean that they are drawn with, in 4,000 samples.
    fn too_high(users: usize, mean: f64, mut draw: impl FnMut(&mut dyn FnMut() -> f64) -> f64) -> f64 {
        let mut next = uniform(users as u64 + 7);
        let wrong = |_: &usize| Estimate::of((0..users).map(|_| draw(&mut next))).low > mean;
        (0..4000).filter(wrong).count() as f64 / 4000.0
    }

    #[test]
    fn the_lower_bound_is_too_high_once_in_forty_times_or_less() {
        for users in [100, 400, 2000] {
            // ten answers of a user missed independently, each by one in fifty
            let alone = |next: &mut dyn FnMut() -> f64| (0..10).filter(|_| next() >= 0.02).count() as f64 / 10.0;
            assert!(too_high(users, 0.98, alone) <= 0.03, "{users} users");
            // all of a user's missed together
            let together = |next: &mut dyn FnMut() -> f64| if next() < 0.02 { 0.0 } else { 1.0 };
            assert!(too_high(users, 0.98, together) <= 0.03, "{users} users");
            // hits in the middle
            let hits = |next: &mut dyn FnMut() -> f64| f64::from(next() < 0.57);
            assert!(too_high(users, 0.57, hits) <= 0.035, "{users} users");
        }
    }

    #[test]
    fn a_sample_without_a_miss_is_not_proof() {
        let few = Estimate::of(vec![1.0; 100]);
        let many = Estimate::of(vec![1.0; 4000]);
        assert_eq!((few.mean, few.high), (1.0, 1.0));
        assert!(few.low < 0.97 && many.low > 0.998 && many.low < 1.0, "{few:?} {many:?}");
        assert_eq!((few.against(0.99), many.against(0.99)), (Verdict::Open, Verdict::Reached));
        assert_eq!(Estimate::of(vec![0.9; 4000]).against(0.99), Verdict::Missed);
        let none = Estimate::of([]);
        assert_eq!((none.low, none.high, none.users), (0.0, 1.0, 0));
    }

    #[test]
    fn better_users_never_lower_the_bound() {
        let mut shares = vec![0.4; 300];
        let mut last = 0.0;
        for at in 0..300 {
            shares[at] = 1.0;
            let low = Estimate::of(shares.iter().copied()).low;
            assert!(low >= last, "{at}: {low} after {last}");
            last = low;
        }
    }
}
