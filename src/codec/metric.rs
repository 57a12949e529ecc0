//! What "near" means. Larger is better for every metric.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a query and an item are compared. A score is larger for a better item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Inner product: what two-tower and factorization models train.
    Dot,
    /// Inner product of the normalised vectors. A zero vector scores 0 with everything.
    Cosine,
    /// Negative squared Euclidean distance.
    L2,
}

impl Metric {
    /// The name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dot => "dot",
            Self::Cosine => "cosine",
            Self::L2 => "l2",
        }
    }

    /// Brings a vector into the form that is stored and queried: unit length for cosine.
    pub fn prepare(self, vector: &mut [f32]) {
        if self == Self::Cosine {
            let norm = squared(vector).sqrt();
            if norm > 0.0 {
                let by = 1.0 / norm;
                vector.iter_mut().for_each(|x| *x = (f64::from(*x) * by) as f32);
            }
        }
    }

    /// What is added to `query · item` to rank items: `-|item|²/2` for L2, nothing otherwise.
    pub fn bias(self, item: &[f32]) -> f32 {
        if self == Self::L2 { -0.5 * item.iter().map(|x| x * x).sum::<f32>() } else { 0.0 }
    }

    /// The score of an item from what it was ranked by (`query · item + bias`).
    pub fn score(self, ranked_by: f32, query: &[f32]) -> f32 {
        if self == Self::L2 { 2.0 * ranked_by - query.iter().map(|x| x * x).sum::<f32>() } else { ranked_by }
    }
}

/// The squared length. In lanes, as no compiler may reorder a sum of floats to do so.
fn squared(vector: &[f32]) -> f64 {
    let (chunks, rest) = vector.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Metric {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let known = [Self::Dot, Self::Cosine, Self::L2].into_iter().find(|metric| metric.name() == name);
        known.ok_or_else(|| format!("unknown metric {name:?}: expected dot, cosine or l2"))
    }
}
