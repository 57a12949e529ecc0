//! Not too much of the same: at most so many items of a tag, and maximal marginal relevance.

use std::collections::HashMap;
use std::ops::Range;

use super::fields::{field_of, tags_of_field};
use super::mask::Mask;
use super::quest::{Found, Narrowed};
use super::request::{MaxPer, Mmr};
use super::shelf::{Eligible, Scope};
use crate::kernel;

/// How many items of each tag there are already.
#[derive(Debug)]
pub(super) struct Caps<'a> {
    scope: &'a Scope<'a>,
    limits: Vec<Limit<'a>>,
    counts: HashMap<u32, usize>,
}

#[derive(Debug)]
struct Limit<'a> {
    field: &'a str,
    tags: Vec<Range<u32>>,
    count: usize,
}

impl<'a> Caps<'a> {
    pub fn new(scope: &'a Scope<'a>, limits: &'a [MaxPer]) -> Self {
        let limit = |limit: &'a MaxPer| Limit {
            field: &limit.field,
            tags: tags_of_field(&scope.shelf.index, &limit.field),
            count: limit.count,
        };
        Self { scope, limits: limits.iter().map(limit).collect(), counts: HashMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// The most items of a tag.
    fn most(&self, tag: u32) -> usize {
        let own = tag as usize >= self.scope.shelf.index.tag_count();
        let is_of = |limit: &&Limit| {
            if own {
                return field_of(&self.scope.tag_name(tag)) == limit.field;
            }
            limit.tags.iter().any(|tags| tags.contains(&tag))
        };
        self.limits.iter().filter(is_of).map(|limit| limit.count).min().unwrap_or(usize::MAX)
    }

    fn is_full(&self, tag: u32) -> bool {
        self.counts.get(&tag).is_some_and(|&count| count >= self.most(tag))
    }

    /// Whether one more like this may come.
    pub fn admits(&self, pick: u32) -> bool {
        self.limits.is_empty() || !self.scope.tags(pick).iter().any(|&tag| self.is_full(tag))
    }

    /// Counts one that comes.
    pub fn count(&mut self, pick: u32) {
        if !self.limits.is_empty() {
            for &tag in self.scope.tags(pick) {
                *self.counts.entry(tag).or_default() += 1;
            }
        }
    }

    /// Those of the eligible ones that have no tag of which there are enough.
    pub fn narrow(&self, eligible: &Eligible) -> Narrowed {
        let (index, count) = (&self.scope.shelf.index, self.scope.shelf.index.tag_count());
        let mut nodes = match &eligible.nodes {
            Some(passing) => passing.nodes.clone(),
            None => Mask::full(index.len()),
        };
        let full = self.counts.keys().copied().filter(|&tag| self.is_full(tag) && (tag as usize) < count);
        full.for_each(|tag| nodes.remove(index.tag(tag as usize).1.iter().copied()));
        let mut added = eligible.added.clone();
        let first = self.scope.nodes();
        let places = 0..self.scope.view.added.len() as u32;
        added.remove(places.filter(|place| !self.admits(first + place)));
        Narrowed { nodes, added }
    }
}

/// Puts the `k` that maximal marginal relevance chooses first, in its order; the others follow as they were.
pub(super) fn mmr(scope: &Scope, options: Mmr, k: usize, candidates: &mut Vec<Found>) {
    let dim = scope.shelf.index.dim();
    let mut vectors = vec![0.0; candidates.len() * dim];
    for (vector, &(pick, _)) in vectors.chunks_exact_mut(dim).zip(&*candidates) {
        scope.vector(pick, vector);
    }
    let scores: Vec<f32> = candidates.iter().map(|&(_, score)| score).collect();
    let order = mmr_order(&scores, &mut vectors, dim, options.lambda, k);
    let mut rest: Vec<Option<Found>> = candidates.iter().copied().map(Some).collect();
    let chosen: Vec<Found> = order.iter().filter_map(|&at| rest[at].take()).collect();
    *candidates = chosen.into_iter().chain(rest.into_iter().flatten()).collect();
}

/// The places of the `k` chosen, in order. Vectors are brought to unit length.
///
/// Each choice is compared with all that are left: `k` times as many products as there are candidates, of which there are
/// at most [`MAX_MMR_CANDIDATES`](super::request::MAX_MMR_CANDIDATES).
fn mmr_order(scores: &[f32], vectors: &mut [f32], dim: usize, lambda: f32, k: usize) -> Vec<usize> {
    let kernels = kernel::best();
    for vector in vectors.chunks_exact_mut(dim) {
        let norm = kernels.dot_f32(vector, vector).sqrt();
        if norm > 0.0 {
            vector.iter_mut().for_each(|x| *x /= norm);
        }
    }
    let (low, high) = scores.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    let relevance = |at: u32| if high > low { (scores[at as usize] - low) / (high - low) } else { 1.0 };
    // of those left, best first: what they are worth by themselves, and the similarity to the most similar chosen
    let mut left: Vec<u32> = (0..scores.len() as u32).collect();
    let mut worth: Vec<f32> = left.iter().map(|&at| lambda * relevance(at)).collect();
    let mut nearest = vec![0.0_f32; left.len()];
    let (mut values, mut similar) = (Vec::new(), vec![0.0_f32; left.len()]);
    let mut order = Vec::with_capacity(k.min(left.len()));
    while order.len() < k && !left.is_empty() {
        values.clear();
        values.extend(worth.iter().zip(&nearest).map(|(worth, nearest)| worth - (1.0 - lambda) * nearest));
        let best = kernels.argmax(&values);
        let chosen = left.remove(best) as usize;
        worth.remove(best);
        nearest.remove(best);
        kernels.rows_f32(&vectors[chosen * dim..][..dim], vectors, &left, &mut similar);
        let is_first = order.is_empty();
        for (nearest, &similar) in nearest.iter_mut().zip(&similar) {
            *nearest = if is_first { similar } else { nearest.max(similar) };
        }
        order.push(chosen);
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, computed anew for each place, in `f64`: what the choice at each place is worth, at the best.
    fn best_value(scores: &[f32], vectors: &[f32], dim: usize, lambda: f64, chosen: &[usize]) -> (Vec<f64>, f64) {
        let vector = |at: usize| &vectors[at * dim..][..dim];
        let cosine = |a: usize, b: usize| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
            let norms = (dot(vector(a), vector(a)) * dot(vector(b), vector(b))).sqrt();
            if norms > 0.0 { dot(vector(a), vector(b)) / norms } else { 0.0 }
        };
        let low = scores.iter().copied().fold(f32::MAX, f32::min);
        let high = scores.iter().copied().fold(f32::MIN, f32::max);
        let relevance = |at: usize| if high > low { f64::from((scores[at] - low) / (high - low)) } else { 1.0 };
        let value = |at: usize| {
            let nearest = chosen.iter().map(|&other| cosine(at, other)).fold(f64::NEG_INFINITY, f64::max);
            lambda * relevance(at) - (1.0 - lambda) * if chosen.is_empty() { 0.0 } else { nearest }
        };
        let values: Vec<f64> = (0..scores.len()).map(value).collect();
        let best = (0..scores.len()).filter(|at| !chosen.contains(at)).map(|at| values[at]).fold(f64::MIN, f64::max);
        (values, best)
    }

    proptest! {
        #[test]
        fn each_choice_is_the_best_by_the_definition(
            (scores, vectors, dim) in (1_usize..20, 1_usize..8).prop_flat_map(|(count, dim)| (
                prop::collection::vec(-5_f32..5.0, count), prop::collection::vec(-1_f32..1.0, count * dim), Just(dim),
            )),
            lambda in 0_f32..=1.0, k in 0_usize..25,
        ) {
            let order = mmr_order(&scores, &mut vectors.clone(), dim, lambda, k);
            prop_assert_eq!(order.len(), k.min(scores.len()));
            for place in 0..order.len() {
                let (values, best) = best_value(&scores, &vectors, dim, f64::from(lambda), &order[..place]);
                prop_assert!(!order[..place].contains(&order[place]));
                prop_assert!(values[order[place]] >= best - 1e-5, "{} where {best} is the best", values[order[place]]);
            }
        }
    }

    #[test]
    fn lambda_of_one_is_the_order_of_scores() {
        let order = mmr_order(&[1.0, 3.0, 2.0], &mut [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 2, 1.0, 3);
        assert_eq!(order, [1, 2, 0]);
        // of two that are the same, the second comes last
        let order = mmr_order(&[3.0, 2.9, 1.0], &mut [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 2, 0.3, 3);
        assert_eq!(order, [0, 2, 1]);
    }
}
