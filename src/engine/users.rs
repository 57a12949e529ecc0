//! Publishing the users that belong to an index: their vectors brought into the index's form, encoded, and stored.

use super::EngineError;
use crate::catalog::{CatalogError, Index};
use crate::codec::{Codec, Metric, record};
use crate::input::{Ids, Vectors, check_rows};
use crate::kv::Kv;
use crate::store::{self, Manifest, ReleaseSpec, Users};

/// Users to be published for an index.
#[derive(Debug)]
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

/// Publishes users as a release of that name, made for the index. It is not active yet ([`store::activate`]).
pub async fn publish<K: Kv>(
    kv: &K,
    ns: &str,
    release: &str,
    source: &UserSource<'_>,
    progress: &mut (dyn FnMut(u32) + Send),
) -> Result<Manifest, EngineError> {
    let spec = ReleaseSpec {
        name: release.to_owned(),
        fingerprint: source.fingerprint,
        codec: source.codec,
        dim: source.vectors.dim() as u32,
        grace: ReleaseSpec::DEFAULT_GRACE,
    };
    let id_of = |row: u32| source.ids.map_or(crate::input::Id::U64(u64::from(row)), |ids| ids.get(row as usize));
    let users = Users {
        count: source.vectors.rows() as u32,
        ids: if source.ids.is_some() { store::Ids::Listed(&id_of) } else { store::Ids::Dense },
        encode: &|rows, out| Ok(source.encode(rows, out)?),
    };
    Ok(store::publish(kv, ns, &spec, &users, progress).await?)
}
