//! `tonnage doctor`

use std::path::PathBuf;

use anyhow::bail;
use serde::Serialize;

use super::out::{self, Output};
use super::units;
use crate::kv::{AnyKv, Probe};
use crate::plan::{Departure, Plan, PlanFile, Predicted, departures};
use crate::store::{Checkup, Room, Share, Standing, examine};

/// Check a running store: bytes by component, policy, headroom, fragmentation, lost and left pages
///
/// It scans nothing: every key that it looks at is named by the ledger of releases. It writes only where a server does not
/// say how it allocates: a scratch load, weighed and removed. With findings the exit code is 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where users are kept: redis://host:port/db, redis-cluster://host:port, or the path of an embedded file
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Prefix of every key
    #[arg(long, default_value = "tonnage")]
    namespace: String,
    /// The most that the server may use in all: bytes, or with a unit [default: its maxmemory]
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    budget_bytes: Option<u64>,
    /// A plan by `tonnage plan --out`, to hold the server against
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// What `doctor --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    store: &'a str,
    namespace: &'a str,
    server: Option<Server>,
    plan: Option<Planned>,
    #[serde(flatten)]
    checkup: Checkup,
}

/// What became of a plan.
#[derive(Debug, Serialize)]
struct Planned {
    rest_bytes: u64,
    peak_bytes: u64,
    days_until_full: Option<u32>,
    departures: Vec<Departure>,
}

#[derive(Debug, Serialize)]
struct Server {
    version: String,
    policy: String,
    used_bytes: u64,
    resident_bytes: u64,
    limit_bytes: Option<u64>,
    keys: u64,
    clients: u64,
    replicas: u64,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    let file = args.plan.as_deref().map(PlanFile::open).transpose()?;
    let (room, checkup) = super::runtime()?.block_on(async {
        let kv = AnyKv::open_existing(&args.store).await?;
        let room = Room::of(&kv, args.budget_bytes).await?;
        let checkup = examine(&kv, &args.namespace, &room).await?;
        anyhow::Ok((room, checkup))
    })?;
    let limit_bytes = room.limit_bytes(None);
    let plan = match (&file, &room.probe) {
        (Some(file), Some(probe)) => Some(planned(&file.plan, probe)),
        (Some(_), None) => bail!(
            "--plan is for a single Redis server: this store is none, so nothing of it can be held against a plan"
        ),
        (None, _) => None,
    };
    let report = Report {
        store: &args.store,
        namespace: &args.namespace,
        server: room.probe.map(|probe| server(probe, limit_bytes)),
        plan,
        checkup,
    };
    out.show(&report, || text(&report))?;
    match report.checkup.findings.len() + report.plan.map_or(0, |plan| plan.departures.len()) {
        0 => Ok(()),
        1 => bail!("1 finding"),
        findings => bail!("{findings} findings"),
    }
}

fn planned(plan: &Plan, probe: &Probe) -> Planned {
    let Predicted { rest_bytes, peak_bytes, days_until_full, .. } = plan.predicted;
    Planned { rest_bytes, peak_bytes, days_until_full, departures: departures(plan, probe) }
}

fn server(probe: Probe, limit_bytes: Option<u64>) -> Server {
    Server {
        version: probe.version,
        policy: probe.policy,
        used_bytes: probe.used_bytes,
        resident_bytes: probe.resident_bytes,
        limit_bytes,
        keys: probe.keys,
        clients: probe.clients,
        replicas: probe.replicas,
    }
}

fn text(report: &Report) -> String {
    let Report { server, checkup, plan, .. } = report;
    let mut parts = Vec::new();
    if let Some(server) = server {
        let limit =
            server.limit_bytes.map_or_else(|| "no limit".to_owned(), |limit| format!("of {}", out::bytes(limit)));
        let (used, resident) = (out::bytes(server.used_bytes), out::bytes(server.resident_bytes));
        parts.push(format!("{}, {}: {used} used {limit}, {resident} resident\n", server.version, server.policy));
    }
    if !checkup.releases.is_empty() {
        let head = ["release", "state", "pages", "found", "predicted", "loading was to cost", "and did"];
        parts.push(out::table(&head, checkup.releases.iter().map(row)));
    }
    if !checkup.shares.is_empty() {
        parts.push(shares(&checkup.shares));
    }
    for shard in &checkup.shards {
        let next = shard.next_peak_bytes.map_or_else(String::new, |peak| {
            format!("; another release like the active one: {} at the peak", out::bytes(peak))
        });
        let of = shard.limit_bytes.map_or_else(|| "no limit".to_owned(), |limit| format!("of {}", out::bytes(limit)));
        parts.push(format!("{}: {} used {of}{next}\n", shard.shard, out::bytes(shard.used_bytes)));
        parts.push(shares(&shard.shares));
    }
    let next = checkup.next_peak_bytes.map(out::bytes);
    parts.extend(next.map(|peak| format!("another release like the active one: {peak} at the peak\n")));
    if let Some(plan) = plan {
        let (rest, peak) = (out::bytes(plan.rest_bytes), out::bytes(plan.peak_bytes));
        let full = plan.days_until_full.map_or_else(String::new, |days| format!(", full in {days} days"));
        parts.push(format!("planned: {rest} at rest, {peak} at the peak{full}\n"));
        parts.extend(plan.departures.iter().map(|departure| format!("finding: {departure}\n")));
    }
    parts.extend(checkup.notes.iter().map(|note| format!("note: {note}\n")));
    parts.extend(checkup.findings.iter().map(|finding| format!("finding: {finding}\n")));
    parts.concat()
}

fn shares(shares: &[Share]) -> String {
    let row = |share: &Share| {
        let how = if share.predicted { "predicted" } else { "as the server says" };
        vec![share.part.clone(), out::bytes(share.bytes), how.to_owned()]
    };
    out::table(&["used by", "bytes", ""], shares.iter().map(row))
}

fn row(release: &Standing) -> Vec<String> {
    let cost = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), out::bytes);
    vec![
        release.name.clone(),
        release.state.to_string(),
        release.pages.to_string(),
        release.found.to_string(),
        cost(Some(release.predicted_bytes).filter(|&bytes| bytes > 0)),
        cost(release.loaded.map(|growth| growth.predicted_bytes)),
        cost(release.loaded.map(|growth| growth.actual_bytes)),
    ]
}
