//! How long an index takes from its name to its first answer: mapped cold and warm, and resident.
//!
//! `cargo bench --bench open -- --index x.tng` prints milliseconds, everything checked that `Index::open` checks. Cold
//! means that the system was asked to forget the file's pages (`dd` with nocache), so that they come from disk. Without
//! `--index` it does nothing, so that `cargo bench` runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for us, not for users")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use tonnage::catalog::{Index, QueryVector};
use tonnage::graph::{Filter, SearchOptions};

const SEARCHES: usize = 2000;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    index: Option<PathBuf>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let Some(path) = &args.index else { return };
    for round in 0..args.rounds {
        for (name, cold, resident) in [("cold", true, false), ("warm", false, false), ("resident", false, true)] {
            if cold {
                forget(path);
            }
            let started = Instant::now();
            let index = if resident { Index::open_resident(path) } else { Index::open(path) }.unwrap();
            let opened = started.elapsed();
            search(&index, 1);
            let answered = started.elapsed();
            search(&index, SEARCHES); // to have met most pages before the clock starts
            let each = search(&index, SEARCHES) / SEARCHES as u32;
            println!(
                "round {round}, {name}: opened {opened:.1?}, first answer {answered:.1?}, then {each:.1?} a search"
            );
        }
    }
}

/// Searches for vectors that are not zero and not alike, and returns how long it took.
fn search(index: &Index, searches: usize) -> Duration {
    let ef = index.profile().default_ef();
    let started = Instant::now();
    for at in 0..searches {
        let vector: Vec<f32> = (0..index.dim()).map(|d| ((at * 7919 + d * 104_729) as f32).sin()).collect();
        index.search(QueryVector::Floats(&vector), SearchOptions { k: 10, ef }, Filter::default()).unwrap();
    }
    started.elapsed()
}

fn forget(path: &Path) {
    let file = format!("if={}", path.display());
    let dd = Command::new("dd").args([&file, "iflag=nocache", "count=0"]).stderr(Stdio::null()).status();
    assert!(dd.unwrap().success(), "dd could not have the file forgotten");
}
