//! Whether recommendations are right, on interactions that the model has not seen.

use rayon::prelude::*;

use crate::catalog::CatalogError;
use crate::codec::{Codec, Layout, Matrix, Metric, Query};
use crate::graph::{Filter, Scratch, exact};
use crate::input::Vectors;

/// One held-out interaction, by rows of the files of vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Row of the user.
    pub user: u32,
    /// Row of the item that should be among the answers.
    pub item: u32,
    /// Rows of items that may not be, ascending.
    pub seen: Vec<u32>,
}

/// The best `k` items of each case by exact `f32` scores: what a perfect index would answer.
///
/// Holds all items as `f32`, and the answers.
pub fn exact_answers(
    items: &Vectors,
    users: &Vectors,
    metric: Metric,
    cases: &[Case],
    k: usize,
) -> Result<Vec<Vec<u32>>, CatalogError> {
    let layout = Layout { codec: Codec::F32, dim: items.dim() };
    let mut rows = vec![0.0; items.rows() * items.dim()];
    items.read(0, &mut rows)?;
    rows.chunks_mut(items.dim()).for_each(|row| metric.prepare(row));
    let biases: Vec<f32> = match metric {
        Metric::L2 => rows.chunks(items.dim()).map(|row| metric.bias(row)).collect(),
        Metric::Dot | Metric::Cosine => Vec::new(),
    };
    let Some(matrix) = Matrix::new(layout, bytemuck::cast_slice(&rows), &[], &biases) else {
        return Err(CatalogError::Dimensions { expected: items.dim(), got: users.dim() });
    };
    let answer = |(scratch, vector): &mut (Scratch, Vec<f32>), case: &Case| {
        users.gather(&[case.user], vector)?;
        metric.prepare(vector);
        let (mut query, mut found) = (Query::default(), Vec::new());
        query.prepare(layout, vector)?;
        exact::best(&matrix, &query, k, Filter { bits: None, exclude: &case.seen }, scratch, &mut found);
        Ok(found.into_iter().map(|(row, _)| row).collect())
    };
    cases.par_iter().map_init(|| (Scratch::default(), vec![0.0; users.dim()]), answer).collect()
}

/// Share of the cases whose item is among the answers, which name items by row.
pub fn hit_rate(cases: &[Case], answers: &[Vec<u32>]) -> f64 {
    let hits = cases.iter().zip(answers).filter(|(case, answer)| answer.contains(&case.item)).count();
    hits as f64 / cases.len().max(1) as f64
}
