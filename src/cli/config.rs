//! `tonnage config`, and how a configuration is put together: a file, then the environment, then flags.

use std::path::{Path, PathBuf};

use anyhow::Context;
use toml::{Table, Value};

use super::Usage;
use super::out::{self, Output};
use crate::plan::{PlanFile, PlanFileError};
use crate::service::Config;

/// Names of variables begin with it: `TONNAGE__STORE__ADDRESS` is `store.address`.
const PREFIX: &str = "TONNAGE__";
/// No configuration is near as long.
const LONGEST: u64 = 1 << 20;
/// The tables of a plan.
const PLAN: [&str; 4] = ["format", "target", "budgets", "plan"];

/// Look at a configuration of `serve`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check it, and print what would be in effect, without its secrets
    Check(Sources),
}

/// Where a configuration comes from. What stands later in this list wins: the file, the environment
/// (`TONNAGE__SECTION__KEY`), the flags.
#[derive(Debug, clap::Args)]
pub struct Sources {
    /// A file of settings (TOML), or the plan that `tonnage plan --out` wrote
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The index file, a folder of them, or a path with {fingerprint} or {release} in it
    #[arg(long, value_name = "PATH")]
    index: Option<String>,
    /// Where users are kept: redis://host:port/db, redis-cluster://host:port, or the path of an embedded file
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Prefix of every key
    #[arg(long)]
    namespace: Option<String>,
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where to listen for health, metrics and administration
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Any other setting, as section.key=value; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    let Verb::Check(sources) = &args.verb;
    let config = sources.read(std::env::vars())?;
    config.check()?;
    let shown = config.redacted();
    out.show(&shown, || toml::to_string(&shown).unwrap_or_default())
}

impl Sources {
    /// Puts the configuration together. It is not checked yet.
    pub fn read(&self, environment: impl Iterator<Item = (String, String)>) -> anyhow::Result<Config> {
        let mut table = match &self.config {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        for (name, text) in environment {
            if let Some(path) = name.strip_prefix(PREFIX) {
                let path = path.to_ascii_lowercase().replace("__", ".");
                set(&mut table, &path, value_of(&text)).with_context(|| format!("environment variable {name}"))?;
            }
        }
        let flags = [
            ("index.path", &self.index),
            ("store.address", &self.store),
            ("store.namespace", &self.namespace),
            ("listen.address", &self.listen),
            ("listen.admin", &self.admin),
        ];
        for (path, text) in flags {
            if let Some(text) = text {
                set(&mut table, path, Value::String(text.clone()))?;
            }
        }
        for pair in &self.set {
            let (path, text) =
                pair.split_once('=').ok_or_else(|| Usage(format!("--set {pair}: expected KEY=VALUE")))?;
            set(&mut table, path, value_of(text)).with_context(|| format!("--set {pair}"))?;
        }
        let config: Result<Config, toml::de::Error> = table.try_into();
        config.map_err(|error| {
            Usage(format!("configuration: {}", error.to_string().trim_end().replace('\n', " "))).into()
        })
    }
}

/// A file of settings, or a plan, of which the effort of a search is the part that concerns a service.
fn read_file(path: &Path) -> anyhow::Result<Table> {
    let shown = || path.display().to_string();
    let length = std::fs::metadata(path).with_context(shown)?.len();
    if length > LONGEST {
        return Err(Usage(format!("{}: expected at most {LONGEST} bytes, got {length}", shown())).into());
    }
    let text = std::fs::read_to_string(path).with_context(shown)?;
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        Usage(format!("{}: {}", shown(), error.to_string().trim_end().replace('\n', " ")))
    })?;
    if PLAN.iter().all(|key| table.contains_key(*key)) {
        let plan = PLAN.iter().filter_map(|key| table.remove_entry(*key)).collect::<Table>();
        let plan: PlanFile = plan.try_into().map_err(|error: toml::de::Error| PlanFileError::Malformed {
            path: path.to_owned(),
            what: error.message().replace('\n', " "),
        })?;
        if !table.contains_key("run") {
            set(&mut table, "run.ef", Value::Integer(i64::from(plan.plan.settings.ef)))?;
        }
    }
    Ok(table)
}

/// Sets `section.key`.
fn set(table: &mut Table, path: &str, value: Value) -> Result<(), Usage> {
    let odd = || Usage(format!("{path}: expected section.key"));
    let (section, key) = path.split_once('.').ok_or_else(odd)?;
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    section.as_table_mut().ok_or_else(odd)?.insert(key.to_owned(), value);
    Ok(())
}

/// Text as TOML would read it, or itself.
fn value_of(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    // a second line would be a second key
    let value = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Says what is odd, but no reason to stop.
pub fn warn_of(config: &Config) {
    if config.keys.is_empty() {
        out::warn("there are no keys: whoever reaches this machine may ask");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(config: Option<PathBuf>, set: &[&str]) -> Sources {
        let set = set.iter().map(|&pair| pair.to_owned()).collect();
        Sources { config, index: None, store: None, namespace: None, listen: None, admin: None, set }
    }

    fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        let owned: Vec<_> = pairs.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
        owned.into_iter()
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.toml");
        std::fs::write(&path, "[store]\naddress = 'file.redb'\nnamespace = 'file'\n[limits]\nk = 7\n[run]\nef = 1\n")
            .unwrap();
        let sources = Sources { store: Some("flag.redb".to_owned()), ..sources(Some(path), &["run.ef=3"]) };
        let environment = [
            ("TONNAGE__STORE__ADDRESS", "variable.redb"),
            ("TONNAGE__STORE__NAMESPACE", "variable"),
            ("TONNAGE__RUN__EF", "2"),
            ("TONNAGE__KEYS__READ", "['0123456789abcdef']"),
            ("TONNAGE__LOG__LEVEL", "debug"),
            ("TONNAGE_HOME", "of something else"),
        ];
        let config = sources.read(variables(&environment)).unwrap();
        assert_eq!((config.store.address.as_str(), config.store.namespace.as_str()), ("flag.redb", "variable"));
        assert_eq!((config.limits.k, config.run.ef), (7, 3));
        assert_eq!(config.keys.read, ["0123456789abcdef"]);
        assert_eq!(config.log.level, crate::service::config::Level::Debug);
    }

    #[test]
    fn keys_that_nobody_knows_are_refused_wherever_they_come_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.toml");
        for text in ["[stroe]\naddress = 'x'", "[store]\nadress = 'x'", "store = 1", "[limits]\nk = 'many'", "[[["] {
            std::fs::write(&path, text).unwrap();
            let error = sources(Some(path.clone()), &[]).read(variables(&[])).unwrap_err().to_string();
            assert!(error.lines().count() == 1, "{text}: {error}");
        }
        for pair in [("TONNAGE__STROE__ADDRESS", "x"), ("TONNAGE__STORE", "x"), ("TONNAGE__LIMITS__K", "many")] {
            assert!(sources(None, &[]).read(variables(&[pair])).is_err(), "{pair:?}");
        }
        for pair in ["store.adress=x", "store=x", "store", "=x", "limits.k=-1"] {
            assert!(sources(None, &[pair]).read(variables(&[])).is_err(), "{pair}");
        }
        assert!(sources(Some(folder.path().join("none.toml")), &[]).read(variables(&[])).is_err());
    }
}
