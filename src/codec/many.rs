//! Many queries scored against the same rows of a matrix: what an exhaustive scan for a batch does.

use super::{Codec, Matrix, Query};
use crate::kernel::{self, Kernels, PANEL, Panel};

/// Queries to be scored together against rows of one matrix, with the buffers that this takes.
///
/// Scores are those of [`Matrix::score`], to the bit.
#[derive(Debug)]
pub struct Many<'a> {
    matrix: Matrix<'a>,
    queries: &'a [Query],
    /// The queries' codes, for rows of an integer codec.
    codes: kernel::Queries,
    panel: Panel,
    /// Of the rows being scored.
    factors: [f32; PANEL],
    biases: [f32; PANEL],
    scores: Vec<f32>,
}

impl<'a> Many<'a> {
    /// Puts queries together that were prepared for the layout of `matrix`.
    pub fn new(matrix: Matrix<'a>, queries: &'a [Query]) -> Self {
        let layout = matrix.layout();
        let mut codes = kernel::Queries::new(layout.padded_dim());
        if layout.has_scales() {
            queries.iter().for_each(|query| codes.push(query.codes()));
        }
        let scores = vec![0.0; queries.len() * PANEL];
        let (factors, biases) = ([1.0; PANEL], [0.0; PANEL]);
        Self { matrix, queries, codes, panel: Panel::default(), factors, biases, scores }
    }

    /// Scores the rows `ids`, at most [`PANEL`]. `found` is told of each query for which there are scores above its
    /// floor: its place, the scores, and which of them are above, the first in the lowest bit.
    ///
    /// Panics when an id is outside, there are too many, or there is no floor for each query.
    pub fn score(
        &mut self,
        kernels: &Kernels,
        ids: &[u32],
        floors: &mut [f32],
        mut found: impl FnMut(usize, &[f32], u64, &mut f32),
    ) {
        assert_eq!(floors.len(), self.queries.len());
        let whole = self.matrix.layout().has_scales();
        if whole {
            self.multiply(kernels, ids);
        }
        let Self { matrix, queries, factors, biases, scores, .. } = self;
        factors.iter_mut().zip(ids).for_each(|(factor, &id)| *factor = matrix.scale(id));
        biases.iter_mut().zip(ids).for_each(|(bias, &id)| *bias = matrix.bias(id));
        let biases = if whole && matrix.has_biases() { &biases[..ids.len()] } else { &[] };
        for (at, (scores, floor)) in scores.chunks_exact_mut(PANEL).zip(floors).enumerate() {
            let (query, scores) = (&queries[at], &mut scores[..ids.len()]);
            let scale = if whole { query.scale() } else { 1.0 };
            if !whole {
                matrix.score(kernels, query, ids, scores);
            }
            let above = kernels.rescale(scale, &factors[..ids.len()], biases, *floor, scores);
            if above != 0 {
                found(at, scores, above, floor);
            }
        }
    }

    /// The dot products of integer rows with all queries.
    fn multiply(&mut self, kernels: &Kernels, ids: &[u32]) {
        let Self { matrix, codes, panel, scores, .. } = self;
        match matrix.layout().codec {
            Codec::Int4 => kernels.many_i4(codes, matrix.codes(), ids, panel, scores),
            _ => kernels.many_i8(codes, bytemuck::cast_slice(matrix.codes()), ids, panel, scores),
        }
    }
}
