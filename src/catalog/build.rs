//! Building an index: vectors to codes to graph to file.
//!
//! Passes over the input: one for the `int8` codes that the graph is built on, one for each other form of the items that
//! the file keeps (`int8` by one scale for all is another), one for the exact answers of the profile. Vectors are never
//! held but a few MiB at a time.

use std::path::{Path, PathBuf};

use super::index::MAX_M;
use super::profile::{Profile, Sample, measure};
use super::rows::{Encoder, Rows};
use super::{CatalogError, Index, Meta, ids, numbers, section, tags};
use crate::codec::{Codec, Layout, Metric, Query};
use crate::file::{FileError, Mapped, Writer};
use crate::graph::{self, BuildOptions, Built, order::order};
use crate::input::{Ids, Numbers, Tags, Vectors, check_rows};
use crate::kernel;

/// Users that links are added for at most, and items for each: more find little that is new (a fifth as many users as
/// items take 16 % of the build and spare searches at recall 0.98 one distance in eight).
const MAX_LEARNERS: usize = 200_000;
const ITEMS_PER_LEARNER: usize = 5;

/// What to build.
#[derive(Debug)]
pub struct BuildSpec<'a> {
    /// The items' vectors.
    pub items: &'a Vectors,
    /// External ids, one an item; row numbers when there are none.
    pub ids: Option<&'a Ids>,
    /// Tags of items.
    pub tags: Option<&'a Tags>,
    /// Numbers of items.
    pub numbers: Option<&'a Numbers>,
    /// Popularity of items, larger is more popular.
    pub popularity: Option<&'a [f32]>,
    /// User vectors: some measure the profile, for which items stand in when there are none; for the others' sake links
    /// are added where their searches miss.
    pub users: Option<&'a Vectors>,
    /// How users and items are compared.
    pub metric: Metric,
    /// The codec that the graph is walked by.
    pub codec: Codec,
    /// The codec that the final candidates are scored by; `int8` beside an integer codec is what that one leaves.
    pub finer: Option<Codec>,
    /// How the graph is built.
    pub graph: BuildOptions,
    /// Name of the release.
    pub release: &'a str,
    /// Whether to measure the profile.
    pub profile: bool,
}

impl<'a> BuildSpec<'a> {
    /// Items and how they are compared, and of all else what `tonnage build` does unless told otherwise: `int8` and its
    /// residuals, a profile, no ids, tags, numbers, popularity or users, a release named `release`.
    pub fn new(items: &'a Vectors, metric: Metric) -> Self {
        Self {
            items,
            ids: None,
            tags: None,
            numbers: None,
            popularity: None,
            users: None,
            metric,
            codec: Codec::Int8,
            finer: Some(Codec::Int8),
            graph: BuildOptions::new(metric),
            release: "release",
            profile: true,
        }
    }
}

/// What a build is doing, with how far it is and how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Vectors to codes: items done.
    Encode(usize, usize),
    /// Nodes linked, and users whose searches were linked.
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
pub fn working_bytes(spec: &BuildSpec) -> u64 {
    let n = spec.items.rows();
    let layout = Layout { codec: Codec::Int8, dim: spec.items.dim() };
    let row = layout.row_bytes() + 4 + if spec.metric == Metric::L2 { 4 } else { 0 };
    let users = most_learners(spec) * (2 * layout.padded_dim() + size_of::<Query>());
    (n * (row + 4) + users) as u64 + graph::build::working_bytes(n, spec.graph.m)
}

/// Builds an index at `path` and opens it.
pub fn build(
    spec: &BuildSpec,
    path: &Path,
    progress: &(dyn Fn(Stage) + Sync),
) -> Result<(Index, BuildReport), CatalogError> {
    check(spec)?;
    let working_bytes = working_bytes(spec);
    let (n, graph) = (spec.items.rows(), &spec.graph);
    let (order, lens) = order(n, graph.m, graph.seed);
    let encoder = Encoder::new(spec, &order)?;
    let rows = encoder.rows(Codec::Int8, progress)?;
    let sample = Sample::take(spec.items, spec.users)?;
    let users = learners(spec, &sample, rows.matrix()?.layout())?;
    let total = n + lens.iter().map(|&len| len as usize).sum::<usize>() + users.len();
    let linked = |done| progress(Stage::Link(done, total));
    let built = graph::build(rows.matrix()?, graph, &lens, &users, &linked);
    drop(users);
    let report = BuildReport { working_bytes, repaired: built.repaired };
    progress(Stage::Write);
    if !spec.profile {
        write(spec, path, &encoder, rows, built)?;
        return Ok((Index::open(path)?, report));
    }
    // The profile is measured on the very bytes that will be served: written, opened, and copied with the profile. One
    // map at a time, since every page of a map that is touched counts as ours.
    let draft = draft_path(path)?;
    write(spec, &draft, &encoder, rows, built)?;
    progress(Stage::Measure);
    let (profile, meta) = measure(Index::open(&draft)?, spec.items, &order, &sample)?;
    progress(Stage::Write);
    copy_with(&draft, path, &profile, &meta)?;
    Ok((Index::open(path)?, report))
}

fn most_learners(spec: &BuildSpec) -> usize {
    let users = spec.users.map_or(0, Vectors::rows);
    (spec.items.rows() / ITEMS_PER_LEARNER).min(MAX_LEARNERS).min(users)
}

/// Users that links are added for: never those that the profile is measured by.
fn learners(spec: &BuildSpec, sample: &Sample, layout: Layout) -> Result<Vec<Query>, CatalogError> {
    let Some(users) = spec.users else { return Ok(Vec::new()) };
    let rows = spread_beside(&sample.rows, users.rows() as u32, most_learners(spec));
    let mut queries = Vec::with_capacity(rows.len());
    let mut vectors = Vec::new();
    for rows in rows.chunks(4096) {
        vectors.resize(rows.len() * users.dim(), 0.0);
        users.gather(rows, &mut vectors)?;
        for (vector, &row) in vectors.chunks_mut(users.dim()).zip(rows) {
            spec.metric.prepare(vector);
            let mut query = Query::default();
            let refused = |source| CatalogError::Vector { path: users.path().to_owned(), row, source };
            query.prepare(layout, vector).map_err(refused)?;
            queries.push(query);
        }
    }
    Ok(queries)
}

/// At most `most` of the rows `0..rows`, evenly spread, without those in `taken`, which ascend.
fn spread_beside(taken: &[u32], rows: u32, most: usize) -> Vec<u32> {
    let others: Vec<u32> = (0..rows).filter(|row| taken.binary_search(row).is_err()).collect();
    let most = most.min(others.len());
    (0..most).map(|at| others[at * others.len() / most]).collect()
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
    if dim > kernel::MAX_DIM || n > graph::MOST_NODES {
        let most = format!("at most {} of {} dimensions", graph::MOST_NODES, kernel::MAX_DIM);
        return setting("the number of items", most, format!("{n} of {dim}"));
    }
    if graph::build::most_links(n, spec.graph.m) > u64::from(u32::MAX) {
        let expected = format!("so many that their links can be counted in 32 bits, with m {}", spec.graph.m);
        return setting("the number of items", expected, n.to_string());
    }
    match (spec.codec, spec.finer) {
        (_, None | Some(Codec::F16 | Codec::F32)) | (Codec::Int4 | Codec::Int8, Some(Codec::Int8)) => {}
        (codec, Some(finer)) => {
            let expected = "f16, f32, or int8 beside int4 or int8".into();
            return setting("the finer codec", expected, format!("{finer} beside {codec}"));
        }
    }
    if let Some(row) = spec.tags.iter().flat_map(|tags| tags.rows.iter().flatten()).find(|&&row| row as usize >= n) {
        return setting("the row of a tag", format!("below {n}"), row.to_string());
    }
    spec.numbers.map_or(Ok(()), |numbers| numbers::check(numbers, n))?;
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

/// Writes everything but the profile.
fn write(spec: &BuildSpec, path: &Path, encoder: &Encoder, rows: Rows, built: Built) -> Result<(), CatalogError> {
    let mut writer = Writer::create(path)?;
    let ids = spec.ids.or(spec.items.ids());
    let meta = meta(spec, &built, ids);
    let json = serde_json::to_vec(&meta).map_err(|error| malformed(path, &error))?;
    writer.section_bytes(section::META, &json)?;
    writer.section_bytes(section::LINKS, bytemuck::cast_slice(&built.links))?;
    writer.section_bytes(section::STARTS, bytemuck::cast_slice(&built.starts))?;
    drop(built);
    writer.section_bytes(section::BIASES, bytemuck::cast_slice(rows.biases()))?;
    let kept = spec.codec == Codec::Int8 && !encoder.shares();
    if kept {
        writer.section_bytes(section::CODES, rows.bytes())?;
        writer.section_bytes(section::SCALES, bytemuck::cast_slice(rows.scales()))?;
    }
    drop(rows);
    if !kept {
        let scales = encoder.write(&mut writer, path, section::CODES, spec.codec, false)?;
        writer.section_bytes(section::SCALES, bytemuck::cast_slice(&scales))?;
    }
    match spec.finer {
        Some(Codec::Int8) => encoder.write(&mut writer, path, section::FINER, spec.codec, true)?,
        Some(finer) => encoder.write(&mut writer, path, section::FINER, finer, false)?,
        None => Vec::new(),
    };
    write_facts(spec, &mut writer, ids, encoder.order())?;
    writer.finish()?;
    Ok(())
}

/// Ids, tags, numbers and popularity.
fn write_facts(spec: &BuildSpec, writer: &mut Writer, ids: Option<&Ids>, order: &[u32]) -> Result<(), CatalogError> {
    match ids {
        Some(ids) => ids::write(writer, ids, order)?,
        None => ids::write(writer, &Ids::U64((0..order.len() as u64).collect()), order)?,
    }
    let mut node_of = vec![0; order.len()];
    order.iter().enumerate().for_each(|(node, &row)| node_of[row as usize] = node as u32);
    tags::write(writer, spec.tags.unwrap_or(&Tags::default()), &node_of)?;
    numbers::write(writer, spec.numbers.unwrap_or(&Numbers::default()), &node_of)?;
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

/// Copies every section of a file and adds the profile. Rows of links that are of no layer in `meta` are left out.
fn copy_with(from: &Path, to: &Path, profile: &Profile, meta: &Meta) -> Result<(), CatalogError> {
    let json = |error| malformed(to, &error);
    let (profile, json_meta) = (serde_json::to_vec(profile).map_err(json)?, serde_json::to_vec(meta).map_err(json)?);
    let source = Mapped::open(from)?;
    let starts: &[u32] = source.numbers(section::STARTS)?;
    let rows = meta.items as usize + meta.layers.iter().map(|&len| len as usize).sum::<usize>();
    let starts = starts.get(..=rows).unwrap_or(starts);
    let links = starts.last().map_or(0, |&end| end as usize * size_of::<u32>());
    let mut writer = Writer::create(to)?;
    for info in source.sections() {
        let bytes = source.section(info.tag)?;
        let bytes = match info.tag {
            section::META => &json_meta,
            section::STARTS => bytemuck::cast_slice(starts),
            section::LINKS => bytes.get(..links).unwrap_or(bytes),
            _ => bytes,
        };
        writer.section_bytes(info.tag, bytes)?;
    }
    writer.section_bytes(section::PROFILE, &profile)?;
    writer.finish()?;
    Ok(())
}

pub(super) fn malformed(path: &Path, what: &dyn std::fmt::Display) -> CatalogError {
    CatalogError::Malformed { path: PathBuf::from(path), what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learners_are_as_many_as_wanted_and_none_of_those_measured_by() {
        let every_tenth: Vec<u32> = (0..1000).step_by(10).collect();
        for most in [0, 1, 100, 899, 900, 5000] {
            let rows = spread_beside(&every_tenth, 1000, most);
            assert_eq!(rows.len(), most.min(900));
            assert!(rows.windows(2).all(|pair| pair[0] < pair[1]) && rows.iter().all(|row| row % 10 != 0), "{most}");
        }
        assert!(spread_beside(&[0, 1, 2], 3, 3).is_empty());
    }
}
