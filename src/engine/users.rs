//! Publishing the users that belong to an index: their vectors brought into the index's form, encoded, and stored.

use std::time::Duration;

use super::EngineError;
use crate::catalog::{CatalogError, Index, QueryVector};
use crate::codec::{Codec, Metric, record};
use crate::graph::{Filter, SearchOptions};
use crate::input::{Id, Ids, Vectors, check_rows};
use crate::kv::Kv;
use crate::store::{self, Footprint, Manifest, PublishOptions, ReleaseSpec, StoreError, Users};

/// Users that an agreement is measured on. 500 times ten answers: a standard error of half a percent at most.
const SAMPLE: usize = 500;

/// Users to be published for an index.
#[derive(Clone, Copy, Debug)]
pub struct UserSource<'a> {
    vectors: &'a Vectors,
    ids: Option<&'a Ids>,
    codec: Codec,
    metric: Metric,
    fingerprint: u64,
}

impl<'a> UserSource<'a> {
    /// Joins vectors and ids, and refuses what does not fit the index. Without ids, and without a column of them beside
    /// the vectors, users are their row numbers.
    pub fn new(index: &Index, vectors: &'a Vectors, ids: Option<&'a Ids>, codec: Codec) -> Result<Self, CatalogError> {
        if vectors.dim() != index.dim() {
            return Err(CatalogError::Dimensions { expected: index.dim(), got: vectors.dim() });
        }
        let ids = ids.or(vectors.ids());
        if let Some(ids) = ids {
            check_rows("user ids", vectors.rows(), ids.len())?;
            ids.check_unique()?;
        }
        Ok(Self { vectors, ids, codec, metric: index.meta().metric, fingerprint: index.fingerprint() })
    }

    /// The codec that it encodes by.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// How many of the items that the index answers to exact `f32` users it also answers to users in `codec`: the share
    /// of the ten best, over up to 500 users evenly spread. That is what falling to a codec costs.
    pub fn agreement_at_10(&self, index: &Index, codec: Codec) -> Result<f64, CatalogError> {
        let (rows, dim) = (self.vectors.rows(), self.vectors.dim());
        let step = rows.div_ceil(SAMPLE).max(1);
        let options = SearchOptions { k: 10, ef: index.profile().default_ef().max(10) };
        let top = |query: QueryVector| {
            let (hits, _) = index.search(query, options, Filter { bits: None, exclude: &[] })?;
            Ok::<Vec<u32>, CatalogError>(hits.into_iter().map(|hit| hit.node).collect())
        };
        let (mut vector, mut same, mut all) = (vec![0.0; dim], 0, 0);
        let mut record = vec![0; codec.bytes_per_vector(dim)];
        let source = Self { codec, ..*self };
        for row in (0..rows as u32).step_by(step) {
            self.vectors.gather(&[row], &mut vector)?;
            let exact = top(QueryVector::Floats(&vector))?;
            source.encode(&[row], &mut record)?;
            let kept = top(QueryVector::Record(codec, &record))?;
            same += kept.iter().filter(|node| exact.contains(node)).count();
            all += exact.len();
        }
        Ok(same as f64 / all.max(1) as f64)
    }

    /// Encodes the records of some rows, end to end.
    fn encode(&self, rows: &[u32], out: &mut [u8]) -> Result<(), CatalogError> {
        let dim = self.vectors.dim();
        let mut vectors = vec![0.0; rows.len() * dim];
        self.vectors.gather(rows, &mut vectors)?;
        let records = out.chunks_mut(self.codec.bytes_per_vector(dim));
        for ((vector, record), &row) in vectors.chunks_mut(dim).zip(records).zip(rows) {
            self.metric.prepare(vector);
            let path = || self.vectors.path().to_owned();
            record::encode(self.codec, vector, record).map_err(|source| CatalogError::Vector {
                path: path(),
                row,
                source,
            })?;
        }
        Ok(())
    }
}

/// A release of users to be published for an index.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    /// Its name.
    pub release: &'a str,
    /// How long it may wait to be activated ([`ReleaseSpec::grace`]).
    pub grace: Duration,
    /// The room there is, and what to do with the active release.
    pub options: PublishOptions,
    /// Codecs to fall to, in this order, when the source's own does not fit.
    pub fall: &'a [Codec],
}

impl<'a> Publication<'a> {
    /// Beside the active release, in the source's codec, on a store of which nothing is known.
    pub fn new(release: &'a str) -> Self {
        Self { release, grace: ReleaseSpec::DEFAULT_GRACE, options: PublishOptions::default(), fall: &[] }
    }
}

/// What a publish tells of itself.
#[derive(Clone, Copy, Debug)]
pub enum Step<'s> {
    /// It fits, and this is what it costs. Nothing is written yet.
    Priced {
        /// The codec that fits.
        codec: Codec,
        /// In bytes.
        footprint: &'s Footprint,
        /// The release that is active now.
        active: Option<&'s Manifest>,
    },
    /// So many users are written.
    Written(u32),
}

/// Publishes users as a release made for the index. It is not active yet ([`store::activate`]), unless it was rolled
/// over the active one.
pub async fn publish<K: Kv>(
    kv: &K,
    ns: &str,
    publication: &Publication<'_>,
    source: &UserSource<'_>,
    tell: &mut (dyn FnMut(Step<'_>) + Send),
) -> Result<Manifest, EngineError> {
    let mut fall = publication.fall.iter();
    let mut source = *source;
    loop {
        let codec = source.codec;
        let spec = ReleaseSpec {
            name: publication.release.to_owned(),
            fingerprint: source.fingerprint,
            codec,
            dim: source.vectors.dim() as u32,
            grace: publication.grace,
        };
        let id_of = |row: u32| source.ids.map_or(Id::U64(u64::from(row)), |ids| ids.get(row as usize));
        let users = Users {
            count: source.vectors.rows() as u32,
            ids: if source.ids.is_some() { store::Ids::Listed(&id_of) } else { store::Ids::Dense },
            encode: &|rows, out| Ok(source.encode(rows, out)?),
        };
        let prepared = store::prepare(kv, ns, &spec, &users, &publication.options).await?;
        match (prepared.check().await, fall.next()) {
            (Err(StoreError::TooLarge { .. }), Some(&lower)) => source.codec = lower,
            (fits, _) => {
                fits?;
                tell(Step::Priced { codec, footprint: prepared.footprint(), active: prepared.active() });
                return Ok(prepared.run(&mut |done| tell(Step::Written(done))).await?);
            }
        }
    }
}
