//! `tonnage publish`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use super::out::{self, Output};
use crate::catalog::Index;
use crate::codec::Codec;
use crate::engine::users::{UserSource, publish};
use crate::input::{Ids, Vectors};
use crate::kv::AnyKv;
use crate::store::{Manifest, activate};

/// Load user vectors into Redis or an embedded store as a release that belongs to an index, and activate it
///
/// Users without ids are numbered by row and packed densest. Everything written is read back and compared before the
/// release is activated; until then readers see the release before it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The index that these users will search
    #[arg(long, value_name = "FILE")]
    index: PathBuf,
    /// User vectors, one a row
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    /// User ids, one a vector [default: a column of --users, else row numbers]
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Where users are kept: redis://host:port/db, redis-cluster://host:port, or the path of an embedded file
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Prefix of every key
    #[arg(long, default_value = "tonnage")]
    namespace: String,
    /// How vectors are kept: f32, f16, int8 or int4
    #[arg(long, default_value = "int8")]
    codec: Codec,
    /// Name of the release [default: the index's]
    #[arg(long)]
    release: Option<String>,
    /// Publish, but leave the active release as it is
    #[arg(long)]
    no_activate: bool,
}

/// What `publish --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    store: &'a str,
    namespace: &'a str,
    active: bool,
    #[serde(flatten)]
    manifest: &'a Manifest,
    bytes_per_user: f64,
    users_per_s: f64,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    let index = Index::open(&args.index)?;
    let users = Vectors::open(&args.users)?;
    let ids = args.ids.as_deref().map(Ids::open).transpose()?;
    let source = UserSource::new(&index, &users, ids.as_ref(), args.codec)?;
    let release = args.release.as_deref().unwrap_or(&index.meta().release);
    let started = Instant::now();
    let manifest = super::runtime()?.block_on(async {
        let kv = AnyKv::open(&args.store).await?;
        let bar = out::progress("publishing", users.rows() as u64);
        let manifest = publish(&kv, &args.namespace, release, &source, &mut |done| bar.set_position(u64::from(done)))
            .await
            .with_context(|| format!("publishing {}", args.users.display()))?;
        bar.finish_and_clear();
        if !args.no_activate {
            activate(&kv, &args.namespace, release).await?;
        }
        anyhow::Ok(manifest)
    })?;
    let per_user = manifest.bytes as f64 / f64::from(manifest.users);
    let report = Report {
        store: &args.store,
        namespace: &args.namespace,
        active: !args.no_activate,
        manifest: &manifest,
        bytes_per_user: per_user,
        users_per_s: f64::from(manifest.users) / started.elapsed().as_secs_f64(),
    };
    out.show(&report, || {
        format!(
            "release {} {}: {} users as {}, {} in {} pages, {per_user:.1} bytes a user, {:.0} users a second\n",
            manifest.name,
            if report.active { "is active" } else { "is published, not active" },
            manifest.users,
            manifest.codec,
            out::bytes(manifest.bytes),
            manifest.pages(),
            report.users_per_s,
        )
    })
}
