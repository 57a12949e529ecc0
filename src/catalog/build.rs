//! Building an index: vectors to codes to graph to file.
//!
//! Passes over the input: one for the `int8` codes that the graph is built on, one for each other codec that the file
//! keeps, one for the exact answers of the profile. Vectors are never held but a few MiB at a time.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::index::MAX_M;
use super::profile::{Sample, measure};
use super::truth::{aligned, encode_rows};
use super::{CatalogError, Index, Meta, ids, section, tags};
use crate::codec::{Codec, Layout, Matrix, Metric};
use crate::file::{FileError, Mapped, Tag, Writer};
use crate::graph::{self, BuildOptions, Built, order::order};
use crate::input::{Ids, Tags, Vectors, check_rows};
use crate::kernel;

/// Bytes of decoded vectors that one task holds.
const CHUNK_BYTES: usize = 4 << 20;

/// What to build.
#[derive(Debug)]
pub struct BuildSpec<'a> {
    /// The items' vectors.
    pub items: &'a Vectors,
    /// External ids, one an item; row numbers when there are none.
    pub ids: Option<&'a Ids>,
    /// Tags of items.
    pub tags: Option<&'a Tags>,
    /// Popularity of items, larger is more popular.
    pub popularity: Option<&'a [f32]>,
    /// User vectors to measure the profile by; items stand in when there are none.
    pub users: Option<&'a Vectors>,
    /// How users and items are compared.
    pub metric: Metric,
    /// The codec that the graph is walked by.
    pub codec: Codec,
    /// The codec that the final candidates are scored by.
    pub finer: Option<Codec>,
    /// How the graph is built.
    pub graph: BuildOptions,
    /// Name of the release.
    pub release: &'a str,
    /// Whether to measure the profile.
    pub profile: bool,
}

/// What a build is doing, with how far it is and how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Vectors to codes: items done.
    Encode(usize, usize),
    /// Nodes linked.
    Link(usize, usize),
    /// Writing the file.
    Write,
    /// Measuring the profile.
    Measure,
}

/// What a build did.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// Bytes of memory that the codes and the graph took while building, as stated before it began.
    pub working_bytes: u64,
    /// Nodes that needed a link of their own to be reachable.
    pub repaired: usize,
}

/// Bytes of memory that a build takes at its peak, beyond a few MiB: known before it starts.
pub fn working_bytes(spec: &BuildSpec, threads: usize) -> u64 {
    let n = spec.items.rows();
    let layout = Layout { codec: Codec::Int8, dim: spec.items.dim() };
    let row = layout.row_bytes() + 4 + if spec.metric == Metric::L2 { 4 } else { 0 };
    (n * (row + 4)) as u64 + graph::build::working_bytes(n, spec.graph.m, threads)
}

/// Builds an index at `path` and opens it.
pub fn build(
    spec: &BuildSpec,
    path: &Path,
    progress: &(dyn Fn(Stage) + Sync),
) -> Result<(Index, BuildReport), CatalogError> {
    check(spec)?;
    let working_bytes = working_bytes(spec, rayon::current_num_threads());
    let (n, graph) = (spec.items.rows(), &spec.graph);
    let (order, lens) = order(n, graph.m, graph.seed);
    let rows = Rows::encode(spec, Codec::Int8, &order, progress)?;
    let total = n + lens.iter().map(|&len| len as usize).sum::<usize>();
    let built = graph::build(rows.matrix()?, spec.metric, graph, &lens, &|done| progress(Stage::Link(done, total)));
    let report = BuildReport { working_bytes, repaired: built.repaired };
    progress(Stage::Write);
    if !spec.profile {
        write(spec, path, &order, rows, built)?;
        return Ok((Index::open(path)?, report));
    }
    // The profile is measured on the very bytes that will be served: written, opened, and copied with the profile. One
    // map at a time, since every page of a map that is touched counts as ours.
    let draft = draft_path(path)?;
    write(spec, &draft, &order, rows, built)?;
    progress(Stage::Measure);
    let sample = Sample::take(spec.items, spec.users)?;
    let profile = measure(&Index::open(&draft)?, spec.items, &order, &sample)?;
    let profile = serde_json::to_vec(&profile).map_err(|error| malformed(path, &error))?;
    progress(Stage::Write);
    copy_with(&draft, path, section::PROFILE, &profile)?;
    Ok((Index::open(path)?, report))
}

/// Refuses what cannot be built, before anything is read.
fn check(spec: &BuildSpec) -> Result<(), CatalogError> {
    let (n, dim) = (spec.items.rows(), spec.items.dim());
    let setting = |what, expected: String, got: String| Err(CatalogError::Setting { what, expected, got });
    if !(4..=MAX_M as usize).contains(&spec.graph.m) {
        return setting("m", format!("4 to {MAX_M}"), spec.graph.m.to_string());
    }
    if !(1..=1 << 16).contains(&spec.graph.ef_construction) {
        return setting("ef_construction", "1 to 65536".into(), spec.graph.ef_construction.to_string());
    }
    if dim > kernel::MAX_DIM || n > i32::MAX as usize {
        let most = format!("at most {} of {} dimensions", i32::MAX, kernel::MAX_DIM);
        return setting("the number of items", most, format!("{n} of {dim}"));
    }
    if let Some(finer) = spec.finer.filter(|finer| !matches!(finer, Codec::F16 | Codec::F32)) {
        return setting("the finer codec", "f16 or f32".into(), finer.to_string());
    }
    if let Some(row) = spec.tags.iter().flat_map(|tags| tags.rows.iter().flatten()).find(|&&row| row as usize >= n) {
        return setting("the row of a tag", format!("below {n}"), row.to_string());
    }
    if let Some(ids) = spec.ids.or(spec.items.ids()) {
        check_rows("ids", n, ids.len())?;
        ids.check_unique()?;
    }
    if let Some(popularity) = spec.popularity {
        check_rows("popularities", n, popularity.len())?;
    }
    match spec.users {
        Some(users) if users.dim() != dim => Err(CatalogError::Dimensions { expected: dim, got: users.dim() }),
        _ => Ok(()),
    }
}

/// Encoded rows in node order, held in memory.
struct Rows {
    layout: Layout,
    codes: Vec<u64>,
    len: usize,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Rows {
    fn encode(
        spec: &BuildSpec,
        codec: Codec,
        order: &[u32],
        progress: &(dyn Fn(Stage) + Sync),
    ) -> Result<Self, CatalogError> {
        let layout = Layout { codec, dim: spec.items.dim() };
        let len = order.len() * layout.row_bytes();
        let mut codes = aligned(len);
        let (mut scales, mut biases) = (Vec::with_capacity(order.len()), Vec::new());
        let bytes = &mut bytemuck::cast_slice_mut(&mut codes)[..len];
        for_each_part(spec, layout, order, |done, part_scales, part_biases, part| {
            bytes[done * layout.row_bytes()..][..part.len()].copy_from_slice(part);
            scales.extend_from_slice(part_scales);
            biases.extend_from_slice(part_biases);
            progress(Stage::Encode(scales.len(), order.len()));
            Ok(())
        })?;
        Ok(Self { layout, codes, len, scales, biases })
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.codes)[..self.len]
    }

    fn matrix(&self) -> Result<Matrix<'_>, CatalogError> {
        let biases = if self.biases.iter().any(|&bias| bias != 0.0) { &self.biases[..] } else { &[] };
        Matrix::new(self.layout, self.bytes(), &self.scales, biases)
            .ok_or_else(|| malformed(Path::new("memory"), &"rows and scales do not fit together"))
    }
}

/// Reads and encodes the rows in node order, part by part: `part(first node, scales, biases, codes)`.
fn for_each_part(
    spec: &BuildSpec,
    layout: Layout,
    order: &[u32],
    mut part: impl FnMut(usize, &[f32], &[f32], &[u8]) -> Result<(), CatalogError>,
) -> Result<(), CatalogError> {
    let rows_per_part = (CHUNK_BYTES / (layout.dim * 4)).max(1);
    let mut vectors = vec![0.0; rows_per_part.min(order.len()) * layout.dim];
    let mut codes = aligned(rows_per_part.min(order.len()) * layout.row_bytes());
    for (at, rows) in order.chunks(rows_per_part).enumerate() {
        let vectors = &mut vectors[..rows.len() * layout.dim];
        let pieces = vectors.par_chunks_mut(layout.dim * 1024).zip(rows.par_chunks(1024));
        pieces.try_for_each(|(vectors, rows)| spec.items.gather(rows, vectors))?;
        let bytes = &mut bytemuck::cast_slice_mut(&mut codes)[..rows.len() * layout.row_bytes()];
        let (scales, biases) =
            encode_rows(spec.items, layout, spec.metric, spec.finer, vectors, |row| rows[row], bytes)?;
        part(at * rows_per_part, &scales, &biases, bytes)?;
    }
    Ok(())
}

/// Writes everything but the profile.
fn write(spec: &BuildSpec, path: &Path, order: &[u32], rows: Rows, built: Built) -> Result<(), CatalogError> {
    let mut writer = Writer::create(path)?;
    let ids = spec.ids.or(spec.items.ids());
    let meta = meta(spec, &built, ids);
    let json = serde_json::to_vec(&meta).map_err(|error| malformed(path, &error))?;
    writer.section_bytes(section::META, &json)?;
    writer.section_bytes(section::LINKS, bytemuck::cast_slice(&built.links))?;
    writer.section_bytes(section::UPPER, bytemuck::cast_slice(&built.upper))?;
    drop(built);
    let biases = if spec.metric == Metric::L2 { rows.biases.clone() } else { Vec::new() };
    if spec.codec == Codec::Int8 {
        writer.section_bytes(section::CODES, rows.bytes())?;
        writer.section_bytes(section::SCALES, bytemuck::cast_slice(&rows.scales))?;
    }
    drop(rows);
    if spec.codec != Codec::Int8 {
        let scales = write_codes(spec, &mut writer, path, section::CODES, spec.codec, order)?;
        let has_scales = Layout { codec: spec.codec, dim: spec.items.dim() }.has_scales();
        let scales: &[f32] = if has_scales { &scales } else { &[] };
        writer.section_bytes(section::SCALES, bytemuck::cast_slice(scales))?;
    }
    writer.section_bytes(section::BIASES, bytemuck::cast_slice(&biases))?;
    if let Some(finer) = spec.finer {
        write_codes(spec, &mut writer, path, section::FINER, finer, order)?;
    }
    write_facts(spec, &mut writer, ids, order)?;
    writer.finish()?;
    Ok(())
}

/// Streams a section of codes and returns the scales.
fn write_codes(
    spec: &BuildSpec,
    writer: &mut Writer,
    path: &Path,
    tag: Tag,
    codec: Codec,
    order: &[u32],
) -> Result<Vec<f32>, CatalogError> {
    let mut scales = Vec::with_capacity(order.len());
    let mut section = writer.section(tag)?;
    for_each_part(spec, Layout { codec, dim: spec.items.dim() }, order, |_, part_scales, _, codes| {
        scales.extend_from_slice(part_scales);
        let failed = |source| FileError::Io { path: path.to_owned(), doing: "write it", source };
        section.write_all(codes).map_err(failed)?;
        Ok(())
    })?;
    section.end()?;
    Ok(scales)
}

/// Ids, tags and popularity.
fn write_facts(spec: &BuildSpec, writer: &mut Writer, ids: Option<&Ids>, order: &[u32]) -> Result<(), CatalogError> {
    match ids {
        Some(ids) => ids::write(writer, ids, order)?,
        None => ids::write(writer, &Ids::U64((0..order.len() as u64).collect()), order)?,
    }
    let mut node_of = vec![0; order.len()];
    order.iter().enumerate().for_each(|(node, &row)| node_of[row as usize] = node as u32);
    tags::write(writer, spec.tags.unwrap_or(&Tags::default()), &node_of)?;
    let mut popular: Vec<u32> = Vec::new();
    if let Some(popularity) = spec.popularity {
        let mut rows: Vec<u32> = (0..order.len() as u32).collect();
        rows.sort_by(|&a, &b| popularity[b as usize].total_cmp(&popularity[a as usize]).then(a.cmp(&b)));
        popular.extend(rows.iter().map(|&row| node_of[row as usize]));
    }
    writer.section_bytes(section::POPULAR, bytemuck::cast_slice(&popular))?;
    Ok(())
}

fn meta(spec: &BuildSpec, built: &Built, ids: Option<&Ids>) -> Meta {
    Meta {
        release: spec.release.to_owned(),
        items: spec.items.rows() as u32,
        dim: spec.items.dim() as u32,
        metric: spec.metric,
        codec: spec.codec,
        finer: spec.finer,
        m: spec.graph.m as u32,
        ef_construction: spec.graph.ef_construction as u32,
        seed: spec.graph.seed,
        layers: built.upper_lens.clone(),
        repaired: built.repaired as u32,
        text_ids: matches!(ids, Some(Ids::Text(_))),
        tags: spec.tags.map_or(0, |tags| tags.names.len() as u32),
    }
}

/// A name beside the target that is removed again when dropped.
fn draft_path(path: &Path) -> Result<tempfile::TempPath, CatalogError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = tempfile::Builder::new().prefix(".tonnage-").suffix(".draft").tempfile_in(folder);
    let failed = |source| FileError::Io { path: path.to_owned(), doing: "create a draft beside it", source };
    Ok(draft.map_err(failed)?.into_temp_path())
}

/// Copies every section of a file and adds one.
fn copy_with(from: &Path, to: &Path, tag: Tag, bytes: &[u8]) -> Result<(), CatalogError> {
    let source = Mapped::open(from)?;
    let mut writer = Writer::create(to)?;
    for info in source.sections() {
        writer.section_bytes(info.tag, source.section(info.tag)?)?;
    }
    writer.section_bytes(tag, bytes)?;
    writer.finish()?;
    Ok(())
}

fn malformed(path: &Path, what: &dyn std::fmt::Display) -> CatalogError {
    CatalogError::Malformed { path: PathBuf::from(path), what: what.to_string() }
}
