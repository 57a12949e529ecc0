//! The command line: one file for each verb, flags to a call and back to text.
//!
//! Results go to standard output, as tables or with `--json` as one JSON document; progress goes to standard error,
//! and only to a terminal. Exit codes are distinct, see [`exit_code`].

mod build;
mod config;
mod demo;
mod doctor;
mod inspect;
mod new_items;
mod out;
mod plan;
mod publish;
mod recommend;
mod releases;
mod serve;
mod units;

use clap::{CommandFactory, Parser, Subcommand};

use crate::catalog::CatalogError;
use crate::engine::EngineError;
use crate::input::InputError;
use crate::plan::PlanFileError;
use crate::plan::cost::CostError;
use crate::plan::traffic::TrafficError;
use crate::service::client::ClientError;
use crate::service::{ConfigError, ServiceError};
use crate::store::StoreError;

/// Embedding retrieval inside the memory you have.
///
/// After training: `build` quantizes item vectors and makes an index file, `plan` says what fits. Going online: `publish`
/// loads user vectors into Redis or an embedded store, `releases` lists, switches and removes them, `doctor` checks them.
/// At each request: `serve` answers over HTTP, `recommend` once. `demo` does all of it on bundled data.
#[derive(Debug, Parser)]
#[command(name = "tonnage", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Print one JSON document instead of tables
    #[arg(long, global = true)]
    json: bool,
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  anything not named below
  2  the command line is wrong
  3  an input file is wrong
  4  an index file is damaged, malformed or not there
  5  the store cannot be reached, is full or holds something else
  6  no codec reaches the recall asked for
  7  index and users are of different releases
  8  the release does not fit; nothing was written
  9  no plan fits the budgets
  10 a service has not taken all new items";

/// Flags that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

#[derive(Debug, Subcommand)]
enum Verb {
    Build(build::Args),
    Inspect(inspect::Args),
    Plan(plan::Args),
    Publish(publish::Args),
    Releases(releases::Args),
    Doctor(doctor::Args),
    Recommend(recommend::Args),
    Serve(serve::Args),
    Config(config::Args),
    Demo(demo::Args),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Does what the command line says.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    let out = out::Output { json: cli.json };
    match &cli.verb {
        Verb::Build(args) => build::run(args, out),
        Verb::Inspect(args) => inspect::run(args, out),
        Verb::Plan(args) => plan::run(args, out),
        Verb::Publish(args) => publish::run(args, out),
        Verb::Releases(args) => releases::run(args, out),
        Verb::Doctor(args) => doctor::run(args, out),
        Verb::Recommend(args) => recommend::run(args, out),
        Verb::Serve(args) => serve::run(args),
        Verb::Config(args) => config::run(args, out),
        Verb::Demo(args) => demo::run(args, out),
        Verb::Completions { shell } => {
            // to memory first: it takes a closed pipe for a fault and panics
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "tonnage", &mut script);
            out::line(String::from_utf8(script)?.trim_end())
        }
    }
}

/// The exit code of a failure, by what failed.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(1)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<Usage>() || cause.is::<ConfigError>() || matches!(cause.downcast_ref(), Some(ServiceError::Config(_)))
    {
        return Some(2);
    }
    if cause.is::<plan::NothingFits>() {
        return Some(9);
    }
    if cause.is::<new_items::NotTaken>() {
        return Some(10);
    }
    if cause.is::<ClientError>() {
        return Some(2);
    }
    if let Some(cost) = cause.downcast_ref::<CostError>() {
        return match cost {
            CostError::Catalog(error) => Some(code_of_catalog(error)),
            CostError::Store(error) => Some(code_of_store(error)),
            _ => Some(5),
        };
    }
    if cause.is::<PlanFileError>() || cause.is::<TrafficError>() {
        return Some(3);
    }
    if let Some(EngineError::MixedReleases { .. }) = cause.downcast_ref() {
        return Some(7);
    }
    if let Some(engine) = cause.downcast_ref::<EngineError>() {
        return match engine {
            EngineError::Catalog(error) => Some(code_of_catalog(error)),
            EngineError::Store(error) => Some(code_of_store(error)),
            EngineError::K { .. } | EngineError::Request { .. } => Some(2),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<CatalogError>() {
        return Some(code_of_catalog(error));
    }
    if cause.is::<InputError>() {
        return Some(3);
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(code_of_store(error));
    }
    cause.is::<crate::kv::KvError>().then_some(5)
}

fn code_of_store(error: &StoreError) -> u8 {
    match error {
        // what was to be published could not be read
        StoreError::Source(cause) => code_of(&**cause).unwrap_or(1),
        StoreError::LeftBehind { cause, .. } | StoreError::HalfRolled { cause, .. } => code_of_store(cause),
        StoreError::DuplicateId { .. } => 3,
        StoreError::BadName { .. } => 2,
        StoreError::TooLarge { .. } => 8,
        _ => 5,
    }
}

fn code_of_catalog(error: &CatalogError) -> u8 {
    match error {
        CatalogError::File(_) | CatalogError::Malformed { .. } => 4,
        CatalogError::Input(_) | CatalogError::Vector { .. } | CatalogError::Dimensions { .. } => 3,
        CatalogError::Floor { .. } => 6,
        CatalogError::Setting { .. } | CatalogError::UnknownTag { .. } | CatalogError::UnknownField { .. } => 2,
        CatalogError::Query(_) => 1,
    }
}

/// The runtime that talks to a store: one thread, since the work beside it is not waiting but scoring.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
