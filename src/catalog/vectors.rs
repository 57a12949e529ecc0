//! Items' vectors, as they are kept: for blending, diversity, and scoring items that no search found.

use super::{CatalogError, Index, QueryVector};
use crate::codec::{Matrix, Metric, residual};

impl Index {
    /// The vector of a node in the form that is compared (unit length for cosine), as well as the file keeps it.
    ///
    /// Panics when there is no such node, or `out` is not [`Index::dim`] long.
    pub fn vector(&self, node: u32, out: &mut [f32]) {
        let searcher = self.searcher();
        match searcher.finer() {
            Some(finer) if finer.layout().has_scales() => residual::decode(searcher.matrix(), finer, node, out),
            Some(finer) => finer.decode(node, out),
            None => searcher.matrix().decode(node, out),
        }
    }

    /// The score of an item that is not in the index, by its vector; both in the form that is compared.
    pub fn score_of(&self, query: &[f32], item: &[f32]) -> f32 {
        let metric = self.meta().metric;
        metric.score(dot(query, item) + metric.bias(item), query)
    }

    /// The scores of some nodes for a vector, by the metric; larger is better.
    ///
    /// Panics when there is no such node.
    pub fn scores(&self, vector: QueryVector, nodes: &[u32]) -> Result<Vec<f32>, CatalogError> {
        let query = self.compared(vector)?;
        let (metric, searcher) = (self.meta().metric, self.searcher());
        let mut item = vec![0.0; self.dim()];
        let score = |&node: &u32| {
            self.vector(node, &mut item);
            metric.score(dot(&query, &item) + bias(metric, searcher.matrix(), node), &query)
        };
        Ok(nodes.iter().map(score).collect())
    }
}

fn bias(metric: Metric, matrix: &Matrix, node: u32) -> f32 {
    if metric == Metric::L2 { matrix.bias(node) } else { 0.0 }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
