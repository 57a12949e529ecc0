//! Publishing the items of an index for services that read vectors and do not search: dense by row.

use super::EngineError;
use super::users::{Publication, Step};
use crate::catalog::{CatalogError, Index};
use crate::codec::{Codec, record};
use crate::kv::Kv;
use crate::store::{self, Manifest, ReleaseSpec, StoreError, Users, items_ns};

/// Publishes the items of an index, in the form that they are compared in (unit length for cosine), as they are kept: what
/// the index rounded off is gone. They go beside the users of `ns`, and are not active yet
/// ([`store::activate_with_items`]), unless they were rolled over others.
///
/// `tell` is told how many items are written, as it is of users.
pub async fn publish<K: Kv>(
    kv: &K,
    ns: &str,
    publication: &Publication<'_>,
    index: &Index,
    codec: Codec,
    tell: &mut (dyn FnMut(Step<'_>) + Send),
) -> Result<Manifest, EngineError> {
    let (ns, mut codec, mut fall) = (items_ns(ns), codec, publication.fall.iter());
    loop {
        let spec = ReleaseSpec {
            name: publication.release.to_owned(),
            fingerprint: index.fingerprint(),
            codec,
            dim: index.dim() as u32,
            grace: publication.grace,
        };
        let encode = |rows: &[u32], out: &mut [u8]| Ok(encode(index, codec, rows, out)?);
        let items = Users { count: index.len() as u32, ids: store::Ids::Dense, encode: &encode };
        let prepared = store::prepare(kv, &ns, &spec, &items, &publication.options).await?;
        match (prepared.check().await, fall.next()) {
            (Err(StoreError::TooLarge { .. }), Some(&lower)) => codec = lower,
            (fits, _) => {
                fits?;
                tell(Step::Priced { codec, footprint: prepared.footprint(), active: prepared.active() });
                return Ok(prepared.run(&mut |done| tell(Step::Written(done))).await?);
            }
        }
    }
}

/// Encodes the records of some rows, end to end.
fn encode(index: &Index, codec: Codec, rows: &[u32], out: &mut [u8]) -> Result<(), CatalogError> {
    let mut vector = vec![0.0; index.dim()];
    for (&row, record) in rows.iter().zip(out.chunks_mut(codec.bytes_per_vector(index.dim()))) {
        index.vector(row, &mut vector);
        let path = || index.path().to_owned();
        record::encode(codec, &vector, record).map_err(|source| CatalogError::Vector { path: path(), row, source })?;
    }
    Ok(())
}
