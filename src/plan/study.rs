//! Everything that a plan needs to have measured, in one go: codecs, indexes, searches, the store.

use std::io::Write as _;
use std::path::Path;

use super::cost::{CostError, CostSpec, SearchCost, StoreCosts, search_costs, store_costs};
use super::heldout::Case;
use super::quality::{Exact, ItemForm, Jury, QualitySpec, Served};
use super::report::IndexReport;
use super::{Costs, Floor, Measured, Point};
use crate::catalog::{self, BuildSpec, CatalogError, Index};
use crate::codec::{Codec, Metric};
use crate::file::FileError;
use crate::input::{Ids, Vectors};
use crate::kv::Kv;

/// Items of which indexes are made for a try when there is none: in seconds, and all of a small catalogue.
pub const TRIED_ITEMS: usize = 50_000;

/// Ways to keep items that are tried, the smallest first of those that may do: a larger one costs more bytes and more
/// time, and is not wanted once a smaller one does.
const TRIED_FORMS: usize = 3;

/// The file of an index that is made for a try.
const TRIED: &str = "try.tng";

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct StudySpec<'a> {
    /// The items' vectors.
    pub items: &'a Vectors,
    /// Their ids; their own column or row numbers when `None`.
    pub ids: Option<&'a Ids>,
    /// The users' vectors.
    pub users: &'a Vectors,
    /// Whether users are row numbers.
    pub dense_users: bool,
    /// How they are compared.
    pub metric: Metric,
    /// The index that will be served; some are made for a try when `None`.
    pub index: Option<&'a Index>,
    /// Interactions held out.
    pub cases: &'a [Case],
    /// What answers must be worth: ways to keep items that cannot be are not tried.
    pub floor: Floor,
    /// Items of an answer.
    pub k: usize,
    /// Items of a stored list.
    pub list_items: u32,
    /// Items of a stored set of candidates.
    pub candidates_items: u32,
}

/// What is being measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Codecs, every item scored.
    Codecs,
    /// An index is made for a try.
    Build,
    /// An index, searched.
    Index,
    /// The store.
    Store,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What codecs are worth.
    pub exact: Vec<Exact>,
    /// What indexes are worth and cost.
    pub indexes: Vec<IndexReport>,
    /// What the store costs.
    pub store: StoreCosts,
    /// Users asked.
    pub users_asked: usize,
    /// What was not measured as it will be.
    pub assumptions: Vec<String>,
}

impl Findings {
    /// As the solver takes them.
    pub fn measured(&self) -> Measured {
        let of_index = |index: &IndexReport| {
            let point = |served: &Served| {
                let search = index.searches.iter().find(|search| search.ef == served.ef)?;
                Some(Point {
                    items: index.items,
                    users: served.users,
                    ef: served.ef,
                    recall: served.worth.recall,
                    ranking_loss: served.worth.ndcg_lost,
                    index_bytes_per_item: index.bytes_per_item,
                    search: search.op.cost,
                })
            };
            index.served.iter().filter_map(point).collect::<Vec<Point>>()
        };
        let costs: Costs = self.store.costs();
        Measured { points: self.indexes.iter().flat_map(of_index).collect(), costs }
    }

    /// The cost of searching with a plan's codec and effort.
    pub fn search(&self, items: ItemForm, ef: u32) -> Option<SearchCost> {
        let index = self.indexes.iter().find(|index| index.items == items)?;
        index.searches.iter().find(|search| search.ef == ef).copied()
    }
}

/// Measures. `progress` is told the stage and the part of it that is done, from 0 to 1.
pub async fn study<K: Kv + Clone + 'static>(
    kv: &K,
    spec: &StudySpec<'_>,
    progress: &mut dyn FnMut(Stage, f64),
) -> Result<Findings, CostError> {
    let StudySpec { items, ids, users, metric, cases, k, .. } = *spec;
    let jury = Jury::new(QualitySpec { items, ids, users, metric, k, cases })?;
    let exact = jury.exact(&mut |part| progress(Stage::Codecs, part))?;
    let (mut indexes, mut assumptions) = (Vec::new(), Vec::new());
    let folder = tempfile::tempdir().map_err(temporary)?;
    if let Some(index) = spec.index {
        indexes.push(measured(spec, &jury, index, progress)?);
    } else {
        let some = sampled(items, folder.path())?;
        if some.is_some() {
            assumptions.push(format!(
                "no index was given: links, recall and time of searches are those of indexes of {TRIED_ITEMS} of the {} \
                 items; with the same effort a search of all takes longer and finds less",
                items.rows()
            ));
        }
        let forms = forms_that_may_do(&exact, spec.floor);
        indexes = match &some {
            None => try_forms(spec, &jury, &forms, folder.path(), progress)?,
            Some(some) => {
                let spec = StudySpec { items: some, ids: None, cases: &[], ..*spec };
                let jury = Jury::new(QualitySpec { items: some, ids: None, users, metric, k, cases: &[] })?;
                try_forms(&spec, &jury, &forms, folder.path(), progress)?
            }
        };
    }
    // of those tried the last one is still there
    let tried = folder.path().join(TRIED);
    let index = Index::open(spec.index.map_or(&tried, |index| index.path()))?;
    let store = store_costs(kv, &costs_of(spec), index, &mut |part| progress(Stage::Store, part)).await?;
    Ok(Findings { exact, indexes, store, users_asked: jury.users(), assumptions })
}

/// Makes an index of each form and measures it.
fn try_forms(
    spec: &StudySpec,
    jury: &Jury,
    forms: &[ItemForm],
    folder: &Path,
    progress: &mut dyn FnMut(Stage, f64),
) -> Result<Vec<IndexReport>, CatalogError> {
    let mut one = |form: &ItemForm| {
        progress(Stage::Build, 0.0);
        let (ids, users) = (spec.ids, Some(spec.users));
        let build =
            BuildSpec { ids, users, codec: form.codec, finer: form.finer, ..BuildSpec::new(spec.items, spec.metric) };
        let (index, _) = catalog::build(&build, &folder.join(TRIED), &|_| ())?;
        measured(spec, jury, &index, progress)
    };
    forms.iter().map(&mut one).collect()
}

/// The smallest ways to keep items that may reach the floor, or what `build` makes when none may.
fn forms_that_may_do(exact: &[Exact], floor: Floor) -> Vec<ItemForm> {
    let may = |exact: &&Exact| match floor {
        Floor::Recall(floor) => exact.worth.recall.high >= floor,
        Floor::RankingLoss(most) => exact.worth.ndcg_lost.is_none_or(|lost| lost <= most),
    };
    let mut forms: Vec<ItemForm> = exact.iter().filter(may).map(|exact| exact.items).collect();
    forms.dedup(); // they come in the order of ItemForm::ALL
    forms.truncate(TRIED_FORMS);
    if forms.is_empty() { vec![ItemForm { codec: Codec::Int8, finer: Some(Codec::Int8) }] } else { forms }
}

fn measured(
    spec: &StudySpec,
    jury: &Jury,
    index: &Index,
    progress: &mut dyn FnMut(Stage, f64),
) -> Result<IndexReport, CatalogError> {
    let served = jury.served(index, &mut |part| progress(Stage::Index, part / 2.0))?;
    let mut efs: Vec<u32> = served.iter().map(|served| served.ef).collect();
    efs.dedup();
    let half = &mut |part| progress(Stage::Index, 0.5 + part / 2.0);
    let searches = search_costs(index, &costs_of(spec), &efs, half)?;
    Ok(IndexReport {
        items: ItemForm { codec: index.meta().codec, finer: index.meta().finer },
        of_items: index.len() as u64,
        bytes_per_item: index.bytes() as f64 / index.len().max(1) as f64,
        served,
        searches,
    })
}

fn costs_of<'a>(spec: &StudySpec<'a>) -> CostSpec<'a> {
    CostSpec {
        users: spec.users,
        metric: spec.metric,
        // what reading and searching takes hardly depends on it
        codec: Codec::Int8,
        dense: spec.dense_users,
        k: spec.k,
        items: spec.items.rows() as u32,
        list_items: spec.list_items,
        candidates_items: spec.candidates_items,
    }
}

/// Items, evenly spread, in a file of their own when there are too many to make an index of all.
fn sampled(items: &Vectors, folder: &Path) -> Result<Option<Vectors>, CatalogError> {
    if items.rows() <= TRIED_ITEMS {
        return Ok(None);
    }
    let (path, dim) = (folder.join("some.npy"), items.dim());
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({TRIED_ITEMS}, {dim}), }}");
    header.push_str(&" ".repeat((64 - (header.len() + 11) % 64) % 64));
    let failed = |source| FileError::Io { path: path.clone(), doing: "write it", source };
    let file = std::fs::File::create(&path).map_err(failed)?;
    let mut file = std::io::BufWriter::new(file);
    file.write_all(b"\x93NUMPY\x01\x00").map_err(failed)?;
    file.write_all(&(header.len() as u16 + 1).to_le_bytes()).map_err(failed)?;
    file.write_all(format!("{header}\n").as_bytes()).map_err(failed)?;
    let mut vectors = Vec::new();
    let rows: Vec<u32> = (0..TRIED_ITEMS).map(|at| (at * items.rows() / TRIED_ITEMS) as u32).collect();
    for rows in rows.chunks(1024) {
        vectors.resize(rows.len() * dim, 0.0);
        items.gather(rows, &mut vectors)?;
        vectors.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits().to_le()));
        file.write_all(bytemuck::cast_slice(&vectors)).map_err(failed)?;
    }
    file.flush().map_err(failed)?;
    Ok(Some(Vectors::open(&path)?))
}

fn temporary(source: std::io::Error) -> CatalogError {
    FileError::Io { path: std::path::PathBuf::from("a temporary folder"), doing: "create it", source }.into()
}
