//! `tonnage build`

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use indicatif::ProgressBar;
use serde::Serialize;

use super::out::{self, Output};
use crate::catalog::{self, BuildSpec, Candidate, Index, Profile, SectionBytes, Stage};
use crate::codec::{Codec, Metric};
use crate::graph::BuildOptions;
use crate::input::{Ids, Vectors, check_rows, read_numbers, read_popularity, read_tags};
use crate::plan::quality::ItemForm;

/// Quantize item vectors, link them into a graph, measure the result and write one index file
///
/// Vectors are read from .npy, .fvecs, .safetensors, .parquet or .arrow (`file#name` picks a tensor or column). Only
/// --items, --metric and --out are needed; ids default to row numbers. The quality profile is measured on --users when
/// they are given, on items otherwise.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Item vectors, one a row
    #[arg(long, value_name = "FILE")]
    items: PathBuf,
    /// How users and items are compared: dot, cosine or l2
    #[arg(long)]
    metric: Metric,
    /// Where the index goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How vectors are kept: f32, f16, int8, int4, or auto for the fastest that reaches --min-recall
    #[arg(long, default_value = "int8")]
    codec: CodecChoice,
    /// Recall@10 that --codec auto must reach
    #[arg(long, default_value_t = 0.99, value_name = "RECALL")]
    min_recall: f64,
    /// Do not keep what integer codes leave of the vectors, to score the final candidates by
    #[arg(long)]
    no_rerank: bool,
    /// Item ids, one a vector: .txt, .npy, .csv or a table with a column `id`
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Tags of items: a table with columns `id` and `tags`, or .csv with `id,tag`
    #[arg(long, value_name = "FILE")]
    tags: Option<PathBuf>,
    /// Numbers of items, to filter by ranges of: a table with columns `id`, `field` and `value`
    #[arg(long, value_name = "FILE")]
    numbers: Option<PathBuf>,
    /// Popularity of items: a table with columns `id` and `popularity`
    #[arg(long, value_name = "FILE")]
    popularity: Option<PathBuf>,
    /// User vectors to measure by, and to link what they look for
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Links of an item in the upper layers; twice as many in layer 0 [default: 16, for dot 24]
    #[arg(long)]
    m: Option<usize>,
    /// Items visited to find the links of a new one
    #[arg(long, default_value_t = 200)]
    ef_construction: usize,
    /// What levels and order are drawn from: the same inputs and seed make the same file
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Name of the release
    #[arg(long, default_value = "release")]
    release: String,
    /// Threads [default: one for each core]
    #[arg(long)]
    threads: Option<usize>,
    /// Do not measure the quality profile
    #[arg(long)]
    no_profile: bool,
}

#[derive(Clone, Copy, Debug)]
enum CodecChoice {
    Auto,
    This(Codec),
}

impl std::str::FromStr for CodecChoice {
    type Err = crate::codec::CodecError;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name == "auto" { Ok(Self::Auto) } else { name.parse().map(Self::This) }
    }
}

/// What `build --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    out: &'a PathBuf,
    release: &'a str,
    fingerprint: String,
    items: usize,
    dim: usize,
    metric: Metric,
    codec: Codec,
    finer: Option<Codec>,
    bytes: u64,
    bytes_per_item: Vec<SectionBytes>,
    working_bytes: u64,
    repaired: usize,
    build_s: f64,
    choice: Option<Vec<Candidate>>,
    profile: &'a Profile,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = args.threads {
        pool = pool.num_threads(threads);
    }
    pool.build()?.install(|| build(args, out))
}

fn build(args: &Args, out: Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let items = Vectors::open(&args.items)?;
    let users = args.users.as_deref().map(Vectors::open).transpose()?;
    let ids = args.ids.as_deref().map(Ids::open).transpose()?;
    let rows = Ids::U64((0..items.rows() as u64).collect());
    if let (Some(ids), Some(path)) = (&ids, &args.ids) {
        // said here, before tags and popularity are looked up among the wrong ids
        check_rows(&format!("{} for {}", path.display(), args.items.display()), items.rows(), ids.len())?;
    }
    let known = ids.as_ref().or(items.ids()).unwrap_or(&rows);
    let tags = args.tags.as_deref().map(|path| read_tags(path, known)).transpose()?;
    let numbers = args.numbers.as_deref().map(|path| read_numbers(path, known)).transpose()?;
    let popularity = args.popularity.as_deref().map(|path| read_popularity(path, known)).transpose()?;
    let rerank = |codec| matches!(codec, Codec::Int8 | Codec::Int4).then_some(Codec::Int8).filter(|_| !args.no_rerank);
    let (codec, finer, choice) = match args.codec {
        CodecChoice::This(codec) => (codec, rerank(codec), None),
        CodecChoice::Auto => {
            let (table, at) = catalog::choose(&items, users.as_ref(), args.metric, args.min_recall)?;
            (table[at].codec, table[at].finer, Some(table))
        }
    };
    let defaults = BuildOptions::new(args.metric);
    let spec = BuildSpec {
        items: &items,
        ids: ids.as_ref(),
        tags: tags.as_ref(),
        numbers: numbers.as_ref(),
        popularity: popularity.as_deref(),
        users: users.as_ref(),
        metric: args.metric,
        codec,
        finer,
        graph: BuildOptions { m: args.m.unwrap_or(defaults.m), ef_construction: args.ef_construction, seed: args.seed },
        release: &args.release,
        profile: !args.no_profile,
    };
    let bars = Bars::default();
    let (index, report) = catalog::build(&spec, &args.out, &|stage| bars.show(stage))?;
    bars.finish();
    let document = Report {
        out: &args.out,
        release: &args.release,
        fingerprint: format!("{:016x}", index.fingerprint()),
        items: index.len(),
        dim: index.dim(),
        metric: args.metric,
        codec,
        finer,
        bytes: index.bytes(),
        bytes_per_item: index.sections(),
        working_bytes: report.working_bytes,
        repaired: report.repaired,
        build_s: started.elapsed().as_secs_f64(),
        choice,
        profile: index.profile(),
    };
    out.show(&document, || text(&document, &index))
}

fn text(report: &Report, index: &Index) -> String {
    let mut text = String::new();
    if let Some(table) = &report.choice {
        text += &choice_table(table, (report.codec, report.finer));
        text.push('\n');
    }
    let facts = format!(
        "{}: {} items of {} dimensions as {}, {}, release {} ({})\nbuilt in {:.1} s with {} of memory; {} items needed a link to be reachable\n\n",
        report.out.display(),
        report.items,
        report.dim,
        ItemForm::new(report.codec, report.finer),
        out::bytes(report.bytes),
        report.release,
        report.fingerprint,
        report.build_s,
        out::bytes(report.working_bytes),
        report.repaired,
    );
    text + &facts + &profile_table(index.profile())
}

fn choice_table(table: &[Candidate], chosen: (Codec, Option<Codec>)) -> String {
    let rows = table.iter().map(|candidate| {
        let name = ItemForm::new(candidate.codec, candidate.finer).to_string();
        let mark = if (candidate.codec, candidate.finer) == chosen { "chosen" } else { "" };
        let recall = format!("{:.4}", candidate.recall_at_10);
        vec![name, candidate.bytes_per_item.to_string(), recall, mark.to_owned()]
    });
    out::table(&["codec", "bytes/item", "recall@10", ""], rows)
}

/// The measured ladder as people read it.
pub fn profile_table(profile: &Profile) -> String {
    if profile.rungs.is_empty() {
        return "no quality profile was measured\n".to_owned();
    }
    let rows = profile.rungs.iter().map(|rung| {
        let (ten, hundred) = (format!("{:.4}", rung.recall_at_10), format!("{:.4}", rung.recall_at_100));
        vec![rung.ef.to_string(), ten, hundred, format!("{:.0}", rung.distances)]
    });
    let source = format!("{:?}", profile.source).to_lowercase();
    format!(
        "measured on {} {source}; the codec alone has recall@10 {:.4}; the default ef is {}\n{}",
        profile.queries,
        profile.codec_recall_at_10,
        profile.default_ef(),
        out::table(&["ef", "recall@10", "recall@100", "distances"], rows)
    )
}

/// One bar for the stage that runs.
#[derive(Default)]
struct Bars(Mutex<Option<(u8, ProgressBar)>>);

impl Bars {
    fn show(&self, stage: Stage) {
        let (kind, what, done, total) = match stage {
            Stage::Encode(done, total) => (0, "encoding", done, total),
            Stage::Link(done, total) => (1, "linking", done, total),
            Stage::Write => (2, "writing", 0, 0),
            Stage::Measure => (3, "measuring", 0, 0),
        };
        let Ok(mut current) = self.0.lock() else { return };
        if current.as_ref().is_none_or(|(shown, _)| *shown != kind) {
            if let Some((_, bar)) = current.take() {
                bar.finish_and_clear();
            }
            *current = Some((kind, out::progress(what, total as u64)));
        }
        if let Some((_, bar)) = &*current {
            bar.set_position(done as u64);
        }
    }

    fn finish(&self) {
        if let Ok(Some((_, bar))) = self.0.lock().map(|mut current| current.take()) {
            bar.finish_and_clear();
        }
    }
}
