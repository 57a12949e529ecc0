//! The exact answer, for as many queries and items as fit on disk: every item scored.

use rayon::prelude::*;

use super::CatalogError;
use crate::codec::{Codec, CodecError, Layout, Matrix, Metric, Query};
use crate::graph::{Filter, Scratch, exact};
use crate::input::Vectors;
use crate::kernel;

/// Bytes of decoded vectors held at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// For each query (rows of `queries`, prepared for the metric) the best `k` items as `(row, score)`, best first, equals
/// by row, scored by `codec`'s rounding of the items. `f32` makes it the truth.
///
/// The items are streamed once; memory is a few MiB and the answers.
pub fn top_by_codec(
    items: &Vectors,
    layout: Layout,
    metric: Metric,
    queries: &[f32],
    k: usize,
) -> Result<Vec<Vec<(u32, f32)>>, CatalogError> {
    top_unseen(items, layout, metric, queries, &[], k)
}

/// As [`top_by_codec`] without the rows of `seen`, which has for each query those, ascending, that may not be answered, or
/// is empty.
pub fn top_unseen(
    items: &Vectors,
    layout: Layout,
    metric: Metric,
    queries: &[f32],
    seen: &[&[u32]],
    k: usize,
) -> Result<Vec<Vec<(u32, f32)>>, CatalogError> {
    let prepare = |vector| {
        let mut query = Query::default();
        query.prepare(layout, vector).map(|()| query)
    };
    let queries = queries.chunks(items.dim()).map(prepare).collect::<Result<Vec<Query>, _>>()?;
    top_of_queries(items, layout, metric, &queries, seen, k)
}

/// As [`top_unseen`] for queries that are prepared for the layout.
pub fn top_of_queries(
    items: &Vectors,
    layout: Layout,
    metric: Metric,
    queries: &[Query],
    seen: &[&[u32]],
    k: usize,
) -> Result<Vec<Vec<(u32, f32)>>, CatalogError> {
    let dim = items.dim();
    let encoding = Encoding { layout, rest: false, shared: None };
    let rows_per_chunk = (CHUNK_BYTES / (dim * 4)).max(1);
    let mut codes = aligned(rows_per_chunk * layout.row_bytes());
    let mut best = vec![Vec::new(); queries.len()];
    items.for_each_chunk(rows_per_chunk, |first, vectors| {
        let rows = vectors.len() / dim;
        let bytes = &mut bytemuck::cast_slice_mut(&mut codes)[..rows * layout.row_bytes()];
        let (scales, biases) = encode_rows(items, &encoding, metric, None, vectors, |at| (first + at) as u32, bytes)?;
        let biases = if metric == Metric::L2 { &biases[..] } else { &[] };
        let scales = if layout.has_scales() { &scales[..] } else { &[] };
        if let Some(matrix) = Matrix::new(layout, bytes, scales, biases) {
            let found = top_of_matrix(&matrix, first as u32, queries, seen, k);
            best.par_iter_mut().zip(found).for_each(|(best, found)| merge(best, first as u32, found, k));
        }
        Ok::<(), CatalogError>(())
    })?;
    Ok(best)
}

/// The same among the rows of a matrix, of which the first is the row `first` of the file; numbered from 0.
fn top_of_matrix(matrix: &Matrix, first: u32, queries: &[Query], seen: &[&[u32]], k: usize) -> Vec<Vec<(u32, f32)>> {
    if seen.is_empty() {
        return exact::best_many(matrix, kernel::best(), queries, k, Filter::default());
    }
    let one = |(scratch, exclude): &mut (Scratch, Vec<u32>), (query, seen): (&Query, &&[u32])| {
        let mut found = Vec::new();
        let inside =
            seen.partition_point(|&row| row < first)..seen.partition_point(|&row| row < first + matrix.rows() as u32);
        exclude.clear();
        exclude.extend(seen[inside].iter().map(|row| row - first));
        exact::best(matrix, query, k, Filter { bits: None, exclude }, scratch, &mut found);
        found
    };
    queries.par_iter().zip(seen).map_init(Default::default, one).collect()
}

/// Adds what was found among the rows from `first` on to the best `k` so far.
fn merge(best: &mut Vec<(u32, f32)>, first: u32, found: Vec<(u32, f32)>, k: usize) {
    best.extend(found.into_iter().map(|(row, score)| (first + row, score)));
    best.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    best.truncate(k);
}

/// How vectors become rows.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    /// The layout of the codes.
    pub layout: Layout,
    /// Whether what the codes leave is wanted instead of them.
    pub rest: bool,
    /// The component that a scale for all rows is made for; each row has its own when there is none.
    pub shared: Option<f32>,
}

impl Encoding {
    /// Bytes of a row that is wanted.
    pub fn row_bytes(&self) -> usize {
        if self.rest { Layout { codec: Codec::Int8, ..self.layout }.row_bytes() } else { self.layout.row_bytes() }
    }

    /// Encodes one vector and returns its scale.
    fn encode(&self, vector: &[f32], codes: &mut Vec<u8>, out: &mut [u8]) -> Result<f32, CodecError> {
        let layout = self.layout;
        let scale = self.shared.map_or_else(|| layout.scale_for(vector), |max| layout.scale_for(&[max]));
        if self.rest {
            codes.resize(layout.row_bytes(), 0);
            layout.encode_by(scale, vector, codes)?;
            layout.encode_residual(scale, vector, codes, out);
        } else {
            layout.encode_by(scale, vector, out)?;
        }
        Ok(scale)
    }
}

/// Encodes vectors, row by row on all cores, and returns their scales and biases. `row_of` names a vector in errors;
/// what the codec `also` could not hold is refused as well.
pub(super) fn encode_rows(
    items: &Vectors,
    encoding: &Encoding,
    metric: Metric,
    also: Option<Codec>,
    vectors: &[f32],
    row_of: impl Fn(usize) -> u32 + Sync,
    codes: &mut [u8],
) -> Result<(Vec<f32>, Vec<f32>), CatalogError> {
    type Item<'a> = (usize, (&'a [f32], &'a mut [u8]));
    let encode = |(prepared, spare): &mut (Vec<f32>, Vec<u8>), (at, (vector, out)): Item| {
        prepared.clear();
        prepared.extend_from_slice(vector);
        metric.prepare(prepared);
        let checked = also.map_or(Ok(()), |codec| codec.check(prepared));
        let scale = checked
            .and_then(|()| encoding.encode(prepared, spare, out))
            .map_err(|source| CatalogError::Vector { path: items.path().to_owned(), row: row_of(at), source })?;
        Ok((scale, metric.bias(prepared)))
    };
    let rows = vectors.par_chunks(encoding.layout.dim).zip(codes.par_chunks_mut(encoding.row_bytes()));
    let pairs = rows.enumerate().with_min_len(256).map_init(Default::default, encode);
    let pairs: Vec<(f32, f32)> = pairs.collect::<Result<_, CatalogError>>()?;
    Ok(pairs.into_iter().unzip())
}

/// Zeroed memory for `bytes` bytes of rows, aligned for any number in them.
pub(super) fn aligned(bytes: usize) -> Vec<u64> {
    vec![0; bytes.div_ceil(8)]
}

/// Share of the true answers that were found, over all queries.
pub fn recall<'a>(truth: &[Vec<(u32, f32)>], found: impl Iterator<Item = &'a [(u32, f32)]>, k: usize) -> f64 {
    let (mut hits, mut wanted) = (0, 0);
    for (truth, found) in truth.iter().zip(found) {
        let truth = &truth[..k.min(truth.len())];
        wanted += truth.len();
        hits += truth.iter().filter(|(row, _)| found.iter().take(k).any(|(got, _)| got == row)).count();
    }
    if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 }
}
