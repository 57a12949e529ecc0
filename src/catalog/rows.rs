//! Vectors to codes in node order: a few MiB at a time, on all cores.

use std::io::Write as _;
use std::path::Path;

use rayon::prelude::*;

use super::CatalogError;
use super::build::{BuildSpec, Stage, malformed};
use super::truth::{Encoding, aligned, encode_rows};
use crate::codec::{Codec, Layout, Matrix, Metric};
use crate::file::{FileError, Tag, Writer};

/// Bytes of decoded vectors that one task holds.
const CHUNK_BYTES: usize = 4 << 20;

/// How much coarser, as a ratio of mean squared errors, one scale for all rows may be than a scale for each: eight is
/// a bit and a half. Three sets within it lose no recall, and their walks are spared a cache miss a row; beyond, as where
/// norms vary tenfold, nothing was measured and nothing is risked.
const SHARED_LOSS: f64 = 8.0;

/// Reads and encodes the items.
pub(super) struct Encoder<'a> {
    spec: &'a BuildSpec<'a>,
    order: &'a [u32],
    /// The largest component of all items, where one scale for all does.
    shared: Option<f32>,
}

/// Encoded rows in node order, held in memory.
pub(super) struct Rows {
    layout: Layout,
    codes: Vec<u64>,
    len: usize,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Rows {
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.codes)[..self.len]
    }

    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub fn biases(&self) -> &[f32] {
        &self.biases
    }

    pub fn matrix(&self) -> Result<Matrix<'_>, CatalogError> {
        Matrix::new(self.layout, self.bytes(), &self.scales, &self.biases)
            .ok_or_else(|| malformed(Path::new("memory"), &"rows and scales do not fit together"))
    }
}

impl<'a> Encoder<'a> {
    /// Looks through the items once, to see whether one scale does for all.
    pub fn new(spec: &'a BuildSpec, order: &'a [u32]) -> Result<Self, CatalogError> {
        let integers = [Some(spec.codec), spec.finer].contains(&Some(Codec::Int8)) || spec.codec == Codec::Int4;
        // Without anything finer to score by, the codes must be as good as they can.
        let shared = if integers && spec.finer.is_some() { shared_component(spec)? } else { None };
        Ok(Self { spec, order, shared })
    }

    /// Whether one scale does for all rows of the file.
    pub fn shares(&self) -> bool {
        self.shared.is_some()
    }

    /// The rows of a codec, to build the graph on: each by a scale of its own, whatever the file will hold. One for all
    /// tells near copies apart less well, and their links with them: a walk by it loses nothing, a graph by it a point.
    pub fn rows(&self, codec: Codec, progress: &(dyn Fn(Stage) + Sync)) -> Result<Rows, CatalogError> {
        let layout = Layout { codec, dim: self.spec.items.dim() };
        let len = self.order.len() * layout.row_bytes();
        let mut rows = Rows { layout, codes: aligned(len), len, scales: Vec::new(), biases: Vec::new() };
        let bytes = &mut bytemuck::cast_slice_mut(&mut rows.codes)[..len];
        let mut done = 0;
        let (scales, biases) = self.each_part(Encoding { shared: None, ..self.encoding(codec, false) }, |part| {
            bytes[done..][..part.len()].copy_from_slice(part);
            done += part.len();
            progress(Stage::Encode(done / layout.row_bytes(), self.order.len()));
            Ok(())
        })?;
        (rows.scales, rows.biases) = (scales, biases);
        Ok(rows)
    }

    /// Streams the rows of a codec, or what its codes leave, to a section, and returns the scales.
    pub fn write(
        &self,
        writer: &mut Writer,
        path: &Path,
        tag: Tag,
        codec: Codec,
        rest: bool,
    ) -> Result<Vec<f32>, CatalogError> {
        let mut section = writer.section(tag)?;
        let (scales, _) = self.each_part(self.encoding(codec, rest), |codes| {
            let failed = |source| FileError::Io { path: path.to_owned(), doing: "write it", source };
            section.write_all(codes).map_err(failed)?;
            Ok(())
        })?;
        section.end()?;
        Ok(scales)
    }

    /// Nodes to rows.
    pub fn order(&self) -> &'a [u32] {
        self.order
    }

    fn encoding(&self, codec: Codec, rest: bool) -> Encoding {
        Encoding { layout: Layout { codec, dim: self.spec.items.dim() }, rest, shared: self.shared }
    }

    /// Reads and encodes the items in node order, part by part, and returns their scales, one if it is shared, and
    /// their biases.
    fn each_part(
        &self,
        encoding: Encoding,
        mut part: impl FnMut(&[u8]) -> Result<(), CatalogError>,
    ) -> Result<(Vec<f32>, Vec<f32>), CatalogError> {
        let Self { spec, order, .. } = *self;
        let (dim, row_bytes) = (encoding.layout.dim, encoding.row_bytes());
        let rows_per_part = (CHUNK_BYTES / (dim * 4)).clamp(1, order.len().max(1));
        let (mut vectors, mut codes) = (vec![0.0; rows_per_part * dim], aligned(rows_per_part * row_bytes));
        let (mut scales, mut biases) = (Vec::new(), Vec::new());
        for rows in order.chunks(rows_per_part) {
            let vectors = &mut vectors[..rows.len() * dim];
            let pieces = vectors.par_chunks_mut(dim * 1024).zip(rows.par_chunks(1024));
            pieces.try_for_each(|(vectors, rows)| spec.items.gather(rows, vectors))?;
            let bytes = &mut bytemuck::cast_slice_mut(&mut codes)[..rows.len() * row_bytes];
            let made = encode_rows(spec.items, &encoding, spec.metric, spec.finer, vectors, |row| rows[row], bytes)?;
            scales.extend(made.0);
            biases.extend(made.1);
            part(bytes)?;
        }
        if !encoding.layout.has_scales() {
            scales.clear();
        } else if encoding.shared.is_some() {
            scales.truncate(1);
        }
        if spec.metric != Metric::L2 {
            biases.clear();
        }
        Ok((scales, biases))
    }
}

/// The largest component of all items, if a scale for it serves all: see [`SHARED_LOSS`].
fn shared_component(spec: &BuildSpec) -> Result<Option<f32>, CatalogError> {
    let dim = spec.items.dim();
    let (mut largest, mut squares) = (0_f32, 0_f64);
    spec.items.for_each_chunk((CHUNK_BYTES / (dim * 4)).max(1), |_, vectors| {
        let components = vectors.par_chunks(dim).map(|vector| {
            let mut vector = vector.to_vec();
            spec.metric.prepare(&mut vector);
            vector.iter().fold(0_f32, |max, x| x.abs().max(max))
        });
        // Collected, so that the sum does not depend on how many threads there are.
        let components: Vec<f32> = components.collect();
        largest = components.iter().copied().fold(largest, f32::max);
        squares += components.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        Ok::<(), CatalogError>(())
    })?;
    let mean = squares / spec.items.rows().max(1) as f64;
    let serves = f64::from(largest) * f64::from(largest) <= SHARED_LOSS * mean;
    Ok(Some(largest).filter(|max| serves && max.is_finite()))
}
