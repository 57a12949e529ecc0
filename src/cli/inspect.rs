//! `tonnage inspect`

use std::path::PathBuf;

use serde::Serialize;

use super::build::profile_table;
use super::out::{self, Output};
use crate::catalog::{Index, Meta, NumberField, Profile, SectionBytes};
use crate::graph::check::unreachable;
use crate::plan::quality::ItemForm;

/// Show what an index file holds: header, sections and bytes, quality profile
///
/// Opening a file checks every byte of it against its checksum and every number that the search relies on; --verify
/// walks the graph as well.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The index file
    #[arg(value_name = "FILE")]
    index: PathBuf,
    /// Also walk the graph: degrees, and whether every item can be reached
    #[arg(long)]
    verify: bool,
}

/// What `inspect --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a PathBuf,
    bytes: u64,
    fingerprint: String,
    #[serde(flatten)]
    meta: &'a Meta,
    sections: Vec<SectionBytes>,
    numbers: Vec<NumberField<'a>>,
    profile: &'a Profile,
    graph: Option<Walked>,
}

#[derive(Debug, Serialize)]
struct Walked {
    mean_degree: f64,
    unreachable: usize,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    let index = Index::open(&args.index)?;
    let graph = args
        .verify
        .then(|| Walked { mean_degree: index.graph().mean_degree(), unreachable: unreachable(&index.graph()) });
    let report = Report {
        file: &args.index,
        bytes: index.bytes(),
        fingerprint: format!("{:016x}", index.fingerprint()),
        meta: index.meta(),
        sections: index.sections(),
        numbers: index.number_fields(),
        profile: index.profile(),
        graph,
    };
    out.show(&report, || text(&report))?;
    match report.graph {
        Some(Walked { unreachable, .. }) if unreachable > 0 => {
            anyhow::bail!("{unreachable} items cannot be reached: build the index again")
        }
        _ => Ok(()),
    }
}

fn text(report: &Report) -> String {
    let meta = report.meta;
    let mut text = format!(
        "{}: {}, whole\nrelease {} ({}), {} items of {} dimensions, {}, {}\ngraph of m {}, ef_construction {}, seed {}; {} items needed a link to be reachable\n\n",
        report.file.display(),
        out::bytes(report.bytes),
        meta.release,
        report.fingerprint,
        meta.items,
        meta.dim,
        meta.metric,
        ItemForm::new(meta.codec, meta.finer),
        meta.m,
        meta.ef_construction,
        meta.seed,
        meta.repaired,
    );
    if let Some(graph) = &report.graph {
        let walked = format!("mean degree {:.1}; {} items unreachable\n\n", graph.mean_degree, graph.unreachable);
        text.push_str(&walked);
    }
    let rows = report
        .sections
        .iter()
        .map(|section| vec![section.name.clone(), section.bytes.to_string(), format!("{:.1}", section.per_item)]);
    text += &out::table(&["section", "bytes", "bytes/item"], rows);
    text.push('\n');
    if !report.numbers.is_empty() {
        let rows = report.numbers.iter().map(|numbers| {
            let NumberField { field, items, min, max } = numbers;
            vec![(*field).to_owned(), items.to_string(), min.to_string(), max.to_string()]
        });
        text += &out::table(&["number", "items", "min", "max"], rows);
        text.push('\n');
    }
    text + &profile_table(report.profile)
}
