//! What suits an index best, found by trying: where searches begin, how many nodes to expand together, and how many
//! candidates to score again.
//!
//! Trials are priced by what they counted and not by the clock, so that the same inputs make the same file. The prices
//! are what the parts of a search take on a server processor of 2024; only their ratios matter.

use super::profile::{DEFAULT_RECALL, Point, Trial};
use super::{CatalogError, Index};
use crate::codec::Layout;
use crate::graph::Tuning;

/// Nanoseconds of a turn of the walk: choosing, and what of the latency of memory is not hidden, of which there is next to
/// none while codes and links stay in the cache of one core, or near it.
const TURN_NS: f64 = 200.0;
const CACHED_TURN_NS: f64 = 40.0;
const CACHE_BYTES: usize = 8 << 20;
/// Nanoseconds of descending through one layer: two or three turns with nothing else to do meanwhile. What is scored row
/// after row to find where to begin takes a quarter of what rows take that lie anywhere.
const LAYER_NS: f64 = 600.0;
const CACHED_LAYER_NS: f64 = 150.0;
const SAMPLED_PER_DISTANCE: f64 = 4.0;
/// Nanoseconds of a row: meeting and scoring it, and for each of its cache lines.
const ROW_NS: f64 = 0.5;
const LINE_NS: f64 = 4.0;

/// What is tried. Narrow beams choose best, and pay where nothing has to be waited for.
const BEAMS: [usize; 3] = [4, 6, 12];
const CACHED_BEAMS: [usize; 3] = [1, 2, 4];
const RESCORED: [f32; 4] = [0.125, 0.25, 0.5, 1.0];
const EFS: [u32; 6] = [10, 20, 40, 80, 160, 320];
const MUCH: u32 = 160;

/// Tries one thing after the other, each as it depends least on the next. The index is left without the layers above when
/// searches do as well without.
pub(super) fn tune(trial: &mut Trial) -> Result<Tuning, CatalogError> {
    let finer = trial.index.layouts().1.is_some();
    let beams = if cached(&trial.index) { CACHED_BEAMS } else { BEAMS };
    // A hard set need not reach what searches ask for: then what much effort finds must do.
    let goal = trial.run(MUCH, 10)?.recall.min(DEFAULT_RECALL);
    let mut best = Tuning::default();
    let mut least = price(trial, goal, best)?;
    let layers = trial.index.set_layers(Vec::new());
    let without = price(trial, goal, best)?;
    if without < least {
        least = without;
    } else {
        trial.index.set_layers(layers);
    }
    let mut attempt = |tuning, best: &mut Tuning| -> Result<(), CatalogError> {
        let price = price(trial, goal, tuning)?;
        if price < least {
            (*best, least) = (tuning, price);
        }
        Ok(())
    };
    for beam in beams {
        attempt(Tuning { beam, ..best }, &mut best)?;
    }
    if finer {
        for rescored in RESCORED.into_iter().filter(|&part| part != Tuning::default().rescored) {
            attempt(Tuning { rescored, ..best }, &mut best)?;
        }
    }
    Ok(best)
}

/// Whether what a walk reads stays in the cache.
fn cached(index: &Index) -> bool {
    index.searcher().walked_bytes() <= CACHE_BYTES
}

/// Nanoseconds at a recall; infinite when it is not reached.
fn price(trial: &mut Trial, goal: f64, tuning: Tuning) -> Result<f64, CatalogError> {
    trial.index.set_tuning(tuning);
    let (layout, finer) = trial.index.layouts();
    let turn_ns = if cached(&trial.index) { CACHED_TURN_NS } else { TURN_NS };
    let lines = |layout: Layout| layout.row_bytes().div_ceil(64) as f64;
    let row_ns = ROW_NS + LINE_NS * lines(layout);
    let layer_ns = if cached(&trial.index) { CACHED_LAYER_NS } else { LAYER_NS };
    let (sampled, layers) = trial.index.graph().entry();
    let entry_ns = layers as f64 * layer_ns + sampled as f64 / SAMPLED_PER_DISTANCE * row_ns;
    let price = |ef: u32, point: Point| {
        let again = finer.map_or(0.0, |finer| {
            (f64::from(ef) * f64::from(tuning.rescored)).max(20.0) * (ROW_NS + LINE_NS * lines(finer))
        });
        let turns = point.hops / tuning.beam as f64 + tuning.beam as f64;
        entry_ns + turns * turn_ns + point.distances * row_ns + again
    };
    let mut last: Option<(f64, f64)> = None;
    for ef in EFS {
        let point = trial.run(ef, 10)?;
        let now = (point.recall, price(ef, point));
        if now.0 >= goal {
            return Ok(last.map_or(now.1, |last| between(goal, last, now)));
        }
        last = Some(now);
    }
    Ok(f64::INFINITY)
}

/// The price at the recall wanted, between two points on either side of it; its logarithm is taken as linear.
fn between(goal: f64, low: (f64, f64), high: (f64, f64)) -> f64 {
    let part = (goal - low.0) / (high.0 - low.0);
    (low.1.ln() * (1.0 - part) + high.1.ln() * part).exp()
}
