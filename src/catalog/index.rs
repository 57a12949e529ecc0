//! An index file, opened.

use std::path::Path;
use std::sync::Mutex;

use rayon::prelude::*;

use super::ids::MappedIds;
use super::numbers::MappedNumbers;
use super::tags::MappedTags;
use super::{CatalogError, Meta, NumberField, Profile, section};
use crate::codec::{Codec, Layout, MAX_COMPONENT, Matrix, Metric, Query};
use crate::file::{Mapped, Tag};
use crate::graph::check::structure;
use crate::graph::order::MAX_LAYERS;
use crate::graph::{Filter, Graph, Scratch, SearchOptions, SearchStats, Searcher, Tuning};
use crate::input::Id;
use crate::kernel::{self, Kernels};

/// The largest `m` an index may have.
pub(super) const MAX_M: u32 = 128;

/// Queries that are prepared at a time when there are many.
const BATCH: usize = 16_384;

/// No vector has a bias beyond this, and with it no score leaves the range of `f32`.
const MAX_BIAS: f32 = MAX_COMPONENT * MAX_COMPONENT * kernel::MAX_DIM as f32;

/// An index, mapped and checked. Searches may come from any number of threads.
#[derive(Debug)]
pub struct Index {
    file: Mapped,
    meta: Meta,
    profile: Profile,
    /// Starts and links of a graph that the file holds in the manner of format 1.
    packed: Option<(Vec<u32>, Vec<u32>)>,
    kernels: &'static Kernels,
    #[expect(clippy::vec_box, reason = "taking one then moves a pointer")]
    workspaces: Mutex<Vec<Box<Workspace>>>,
}

/// What one search needs, kept for the next.
#[derive(Debug, Default)]
struct Workspace {
    /// The query for the codes, and the one for the finer codes.
    query: Query,
    finer: Query,
    /// The vector as it is compared.
    floats: Vec<f32>,
    scratch: Scratch,
    found: Vec<(u32, f32)>,
}

/// An item that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The item's node.
    pub node: u32,
    /// Its score by the index's metric; larger is better.
    pub score: f32,
}

/// What to search for.
#[derive(Clone, Copy, Debug)]
pub enum QueryVector<'a> {
    /// A vector as the trainer left it.
    Floats(&'a [f32]),
    /// A stored user: the record of a codec.
    Record(Codec, &'a [u8]),
}

/// Bytes that a part of the file takes for each item.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SectionBytes {
    /// The section's name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its bytes divided by the number of items.
    pub per_item: f64,
}

impl Index {
    /// Maps a file and checks everything that searching relies on, so that nothing in it can lead outside it.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        Self::check_all(path, Mapped::open(path)?)
    }

    /// As [`Index::open`], with a copy of the file in memory of its own, in huge pages where there are any: nothing is
    /// read from disk later, and searches of large indexes wait less for memory.
    pub fn open_resident(path: &Path) -> Result<Self, CatalogError> {
        Self::check_all(path, Mapped::open_resident(path)?)
    }

    fn check_all(path: &Path, file: Mapped) -> Result<Self, CatalogError> {
        let malformed = |what: String| CatalogError::Malformed { path: path.to_owned(), what };
        let meta: Meta = serde_json::from_slice(file.section(section::META)?)
            .map_err(|error| malformed(format!("section `meta`: {error}")))?;
        let profile: Profile = match file.section(section::PROFILE) {
            Ok(bytes) => {
                serde_json::from_slice(bytes).map_err(|error| malformed(format!("section `profile`: {error}")))?
            }
            Err(_) => Profile::default(),
        };
        let kernels = kernel::best();
        let mut index = Self { file, meta, profile, packed: None, kernels, workspaces: Mutex::default() };
        if index.file.section(section::UPPER).is_ok() && (1..=MAX_M).contains(&index.meta.m) {
            let (links, upper) = (index.numbers(section::LINKS), index.numbers(section::UPPER));
            let packed = super::v1::pack(&index.meta, links, upper);
            index.packed = Some(packed.ok_or_else(|| malformed("the rows of links are not of their number".into()))?);
        }
        index.check().map_err(malformed)?;
        Ok(index)
    }

    /// What the index is.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Measured recall and cost; empty when the index was built without.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.meta.items as usize
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Dimensions of a vector.
    pub fn dim(&self) -> usize {
        self.meta.dim as usize
    }

    /// What tells this index from any other; user vectors belong to one fingerprint.
    pub fn fingerprint(&self) -> u64 {
        self.file.content_hash()
    }

    /// The file's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.file.len()
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What the file is made of.
    pub fn sections(&self) -> Vec<SectionBytes> {
        let per_item = |bytes: u64| bytes as f64 / self.len().max(1) as f64;
        let section = |info: crate::file::SectionInfo| SectionBytes {
            name: info.tag.to_string(),
            bytes: info.length,
            per_item: per_item(info.length),
        };
        self.file.sections().map(section).collect()
    }

    /// The external id of a node.
    pub fn id(&self, node: u32) -> Id<'_> {
        self.ids().map_or(Id::Text(""), |ids| ids.get(node))
    }

    /// Asks for what the external id of a node is read from, without waiting for it.
    pub fn ask_id(&self, node: u32) {
        if let Some(ids) = self.ids() {
            ids.ask(node);
        }
    }

    /// The node of an external id.
    pub fn find(&self, id: Id<'_>) -> Option<u32> {
        self.ids()?.find(self.numbers(section::ID_ORDER), id)
    }

    /// Tags of a node, for showing.
    pub fn tags_of(&self, node: u32) -> Vec<&str> {
        MappedTags::of(&self.file).map(|tags| tags.of_node(node)).unwrap_or_default()
    }

    /// How many tags there are.
    pub fn tag_count(&self) -> usize {
        self.meta.tags as usize
    }

    /// The tag of that number, below [`Index::tag_count`]: its name and its nodes, ascending. Names ascend as well.
    pub fn tag(&self, number: usize) -> (&str, &[u32]) {
        MappedTags::of(&self.file).map_or(("", &[]), |tags| (tags.name(number), tags.nodes(number)))
    }

    /// The number of a tag.
    pub fn find_tag(&self, name: &str) -> Result<usize, CatalogError> {
        MappedTags::of(&self.file)?.find(name)
    }

    /// The fields of numbers that items have, by name.
    pub fn number_fields(&self) -> Vec<NumberField<'_>> {
        MappedNumbers::of(&self.file).map(MappedNumbers::fields).unwrap_or_default()
    }

    /// The nodes whose number of a field is within `min` and `max`, both included, by that number. How many they are costs
    /// a bisection.
    pub fn range(&self, field: &str, min: f64, max: f64) -> Result<&[u32], CatalogError> {
        MappedNumbers::of(&self.file)?.range(field, min, max)
    }

    /// Nodes by falling popularity; empty when the index was built without.
    pub fn popular(&self) -> &[u32] {
        self.numbers(section::POPULAR)
    }

    /// The graph.
    pub fn graph(&self) -> Graph<'_> {
        let (starts, links) = match &self.packed {
            Some((starts, links)) => (&starts[..], &links[..]),
            None => (self.numbers(section::STARTS), self.numbers(section::LINKS)),
        };
        Graph::new(self.len(), starts, links, &self.meta.layers)
    }

    /// Finds about the best `k` items. Fewer only when fewer pass the filter.
    pub fn search(
        &self,
        vector: QueryVector,
        options: SearchOptions,
        filter: Filter,
    ) -> Result<(Vec<Hit>, SearchStats), CatalogError> {
        let taken = self.workspaces.lock().ok().and_then(|mut pool| pool.pop());
        let mut space = taken.unwrap_or_default();
        self.prepare(vector, &mut space)?;
        let Workspace { query, finer, floats, scratch, found } = &mut *space;
        let stats = self.searcher().search(query, finer, options, filter, scratch, found);
        let metric = self.meta.metric;
        let hit = |&(node, ranked_by): &(u32, f32)| Hit { node, score: metric.score(ranked_by, floats) };
        let hits = found.iter().map(hit).collect();
        if let Ok(mut pool) = self.workspaces.lock() {
            pool.push(space);
        }
        Ok((hits, stats))
    }

    /// Finds about the best `k` items for each of many vectors, one after another in `vectors`, as [`Index::search`] does
    /// or better: on all cores, and by scoring every item for all of them where that is cheaper.
    pub fn search_many(
        &self,
        vectors: &[f32],
        options: SearchOptions,
        filter: Filter,
    ) -> Result<Vec<Vec<Hit>>, CatalogError> {
        let (dim, metric, searcher) = (self.dim(), self.meta.metric, self.searcher());
        let rest = vectors.len() % dim;
        if rest != 0 {
            return Err(CatalogError::Dimensions { expected: dim, got: rest });
        }
        let floats = self.layouts().1.is_some_and(|layout| !layout.has_scales());
        let mut answers = Vec::with_capacity(vectors.len() / dim);
        for vectors in vectors.chunks(BATCH * dim) {
            let prepared = vectors.par_chunks(dim).map(|vector| {
                let mut space = Workspace::default();
                self.prepare(QueryVector::Floats(vector), &mut space)?;
                Ok(space)
            });
            let mut spaces = prepared.collect::<Result<Vec<_>, CatalogError>>()?;
            let queries: Vec<Query> = spaces.iter_mut().map(|space| std::mem::take(&mut space.query)).collect();
            let finer = spaces.iter_mut().filter(|_| floats).map(|space| std::mem::take(&mut space.finer));
            let found = searcher.search_many(&queries, &finer.collect::<Vec<_>>(), options, filter);
            answers.extend(found.into_iter().zip(&spaces).map(|(found, space)| {
                let hit = |(node, ranked_by)| Hit { node, score: metric.score(ranked_by, &space.floats) };
                found.into_iter().map(hit).collect::<Vec<_>>()
            }));
        }
        Ok(answers)
    }

    /// Codes and graph, to be searched without ids: for benchmarks and for callers that keep their own scratch.
    pub fn searcher(&self) -> Searcher<'_> {
        let finer = self.meta.finer.and_then(|codec| self.matrix(codec, section::FINER));
        #[expect(clippy::expect_used, reason = "`check` has made this very matrix, or there is no index")]
        let matrix = self.matrix(self.meta.codec, section::CODES).expect("checked when opened");
        Searcher::new(self.graph(), matrix, finer)
            .with_kernels(self.kernels)
            .with_tuning(self.profile.tuning)
            .with_distances_per_hop(self.profile.distances_per_hop())
    }

    /// The same index searched by the kernels of another level, to compare them.
    #[must_use]
    pub fn with_kernels(self, kernels: &'static Kernels) -> Self {
        Self { kernels, ..self }
    }

    /// Has searches descend through other layers above than the file says, the first of them or none; returns those before.
    pub(super) fn set_layers(&mut self, layers: Vec<u32>) -> Vec<u32> {
        std::mem::replace(&mut self.meta.layers, layers)
    }

    /// Has searches tuned otherwise than the profile says.
    pub(super) fn set_tuning(&mut self, tuning: Tuning) {
        self.profile.tuning = tuning;
    }

    /// Layout of the rows that the graph is walked by, and of the finer ones.
    pub fn layouts(&self) -> (Layout, Option<Layout>) {
        let layout = |codec| Layout { codec, dim: self.dim() };
        (layout(self.meta.codec), self.meta.finer.map(layout))
    }

    /// Brings a vector into the forms that it is searched by.
    fn prepare(&self, vector: QueryVector, space: &mut Workspace) -> Result<(), CatalogError> {
        let (layout, finer_layout) = self.layouts();
        let Workspace { query, finer, floats, .. } = space;
        floats.resize(self.dim(), 0.0);
        match vector {
            QueryVector::Floats(given) => {
                if given.len() != self.dim() {
                    return Err(CatalogError::Dimensions { expected: self.dim(), got: given.len() });
                }
                floats.copy_from_slice(given);
                Codec::F32.check(floats)?;
                self.meta.metric.prepare(floats);
                query.prepare(layout, floats)?;
            }
            // A stored vector was brought into the metric's form before it was encoded.
            QueryVector::Record(codec, bytes) => {
                crate::codec::record::decode(codec, bytes, floats)?;
                query.prepare_record(layout, codec, bytes, floats)?;
            }
        }
        if let Some(layout) = finer_layout.filter(|layout| !layout.has_scales()) {
            finer.prepare(layout, floats)?;
        }
        Ok(())
    }

    /// A vector in the form that items are compared with.
    pub fn compared(&self, vector: QueryVector) -> Result<Vec<f32>, CatalogError> {
        let mut floats = vec![0.0; self.dim()];
        match vector {
            QueryVector::Floats(given) if given.len() == self.dim() => {
                floats.copy_from_slice(given);
                Codec::F32.check(&floats)?;
                self.meta.metric.prepare(&mut floats);
            }
            QueryVector::Floats(given) => {
                return Err(CatalogError::Dimensions { expected: self.dim(), got: given.len() });
            }
            QueryVector::Record(codec, bytes) => crate::codec::record::decode(codec, bytes, &mut floats)?,
        }
        Ok(floats)
    }

    fn ids(&self) -> Option<MappedIds<'_>> {
        MappedIds::of(&self.file, self.meta.text_ids).ok()
    }

    /// A section of numbers, empty when there is none.
    fn numbers<T: bytemuck::Pod>(&self, tag: Tag) -> &[T] {
        self.file.numbers(tag).unwrap_or_default()
    }

    fn matrix(&self, codec: Codec, codes: Tag) -> Option<Matrix<'_>> {
        let layout = Layout { codec, dim: self.dim() };
        let scales = if layout.has_scales() { self.numbers(section::SCALES) } else { &[] };
        Matrix::new(layout, self.file.section(codes).ok()?, scales, self.numbers(section::BIASES))
    }
}

/// The checks of opening.
impl Index {
    fn check(&self) -> Result<(), String> {
        let (n, meta) = (self.len(), &self.meta);
        let setting = |what: &str, ok: bool| if ok { Ok(()) } else { Err(format!("{what} is out of range")) };
        setting("`dim`", (1..=kernel::MAX_DIM as u32).contains(&meta.dim))?;
        setting("`m`", (1..=MAX_M).contains(&meta.m))?;
        setting("`layers`", meta.layers.len() <= MAX_LAYERS)?;
        let whole = matches!(meta.codec, Codec::Int4 | Codec::Int8);
        let finer = |finer| matches!(finer, Codec::F16 | Codec::F32) || whole && finer == Codec::Int8;
        setting("`finer`", meta.finer.is_none_or(finer))?;
        let tuning = self.profile.tuning;
        setting("`beam`", (1..=64).contains(&tuning.beam) && (0.0..=4.0).contains(&tuning.rescored))?;
        for (codec, tag) in [(Some(meta.codec), section::CODES), (meta.finer, section::FINER)] {
            if let Some(codec) = codec {
                let matrix =
                    self.matrix(codec, tag).ok_or(format!("section `{tag}` does not hold the rows it should"))?;
                let biases = if meta.metric == Metric::L2 { n } else { 0 };
                if matrix.rows() != n || self.numbers::<f32>(section::BIASES).len() != biases {
                    return Err(format!("section `{tag}` or `biases` is not of {n} rows"));
                }
                self.check_numbers(codec, tag)?;
            }
        }
        structure(&self.graph(), n).map_err(|broken| broken.to_string())?;
        let ids = MappedIds::of(&self.file, meta.text_ids).map_err(|error| error.to_string())?;
        ids.check(n, self.numbers(section::ID_ORDER), &self.file)?;
        let tags = MappedTags::of(&self.file).map_err(|error| error.to_string())?;
        setting("`tags`", tags.len() == meta.tags as usize)?;
        tags.check(n)?;
        MappedNumbers::of(&self.file).map_err(|error| error.to_string())?.check(n)?;
        let popular = self.popular();
        setting("section `popular`", popular.len() <= n && popular.iter().all(|&node| (node as usize) < n))
    }

    /// No number may make a score that is not one.
    fn check_numbers(&self, codec: Codec, tag: Tag) -> Result<(), String> {
        let inside = |numbers: &[f32], max: f32| numbers.par_iter().all(|x| x.abs() <= max);
        let scales = inside(self.numbers(section::SCALES), MAX_COMPONENT);
        let biases = inside(self.numbers(section::BIASES), MAX_BIAS);
        let codes = match codec {
            Codec::F32 => inside(self.numbers(tag), MAX_COMPONENT),
            Codec::F16 => self.numbers::<half::f16>(tag).par_iter().all(|x| x.is_finite()),
            Codec::Int8 | Codec::Int4 => true, // every byte is a code
        };
        if scales && biases && codes { Ok(()) } else { Err(format!("section `{tag}` holds numbers out of range")) }
    }
}
