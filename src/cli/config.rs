//! `tonnage config`, and how a configuration is put together: a file, then the environment, then flags.

use std::ffi::OsString;
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
/// Settings that are texts, whatever they look like.
const TEXTS: [&str; 9] = [
    "listen.address",
    "listen.admin",
    "listen.tls_certificate",
    "listen.tls_key",
    "index.path",
    "index.journal",
    "store.address",
    "store.namespace",
    "log.level",
];
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
    let config = sources.read(std::env::vars_os())?;
    config.check()?;
    let shown = config.redacted();
    out.show(&shown, || toml::to_string(&shown).unwrap_or_default())
}

impl Sources {
    /// Puts the configuration together. It is not checked yet.
    pub fn read(&self, environment: impl Iterator<Item = (OsString, OsString)>) -> anyhow::Result<Config> {
        let mut table = match &self.config {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        for (name, text) in environment {
            // of others nothing has to be text
            let Some(path) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let path = path.to_ascii_lowercase().replace("__", ".");
            let variable = || format!("environment variable {}", name.display());
            let text = text.to_str().ok_or_else(|| Usage(format!("{}: expected UTF-8", variable())))?;
            set(&mut table, &path, value_of(&path, text)).with_context(variable)?;
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
            // the value may be a secret, and is not shown
            let (path, text) = pair.split_once('=').ok_or_else(|| Usage("--set: expected KEY=VALUE".to_owned()))?;
            set(&mut table, path, value_of(path, text)).with_context(|| format!("--set {path}"))?;
        }
        let config: Result<Config, toml::de::Error> = table.try_into();
        config.map_err(|error| Usage(format!("configuration: {}", said(&error))).into())
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
    let mut table: Table =
        text.parse().map_err(|error: toml::de::Error| Usage(format!("{}: {}", shown(), said(&error))))?;
    if PLAN.iter().all(|key| table.contains_key(*key)) {
        let plan = PLAN.iter().filter_map(|key| table.remove_entry(*key)).collect::<Table>();
        let plan: PlanFile = plan.try_into().map_err(|error: toml::de::Error| PlanFileError::Malformed {
            path: path.to_owned(),
            what: error.message().replace('\n', " "),
        })?;
        let run = table.entry("run").or_insert_with(|| Value::Table(Table::new()));
        if let Some(run) = run.as_table_mut() {
            run.entry("ef").or_insert_with(|| Value::Integer(i64::from(plan.plan.settings.ef)));
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

/// Text as TOML would read it, or itself; always itself where a text is wanted, but for quotes around it.
fn value_of(path: &str, text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    // a second line would be a second key
    let value = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    let value = value.filter(|value| value.is_str() || !TEXTS.contains(&path));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// What is wrong and where, in a line, without the value that is there or the line that it is in: it may be a key, or an
/// address with a password.
fn said(error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    let what = match message.rsplit_once(", expected ") {
        Some((got, expected)) if got.starts_with("invalid ") => format!("expected {expected}, got something else"),
        _ => message,
    };
    let whole = error.to_string();
    let place = |begins: &str| whole.lines().find_map(|line| line.strip_prefix(begins)).map(str::to_owned);
    match (place("in "), place("TOML parse error at ")) {
        (Some(key), _) => format!("{key}: {what}"),
        (None, Some(line)) => format!("{line}: {what}"),
        (None, None) => what,
    }
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

    fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
        let owned: Vec<_> = pairs.iter().map(|&(name, text)| (name.into(), text.into())).collect();
        owned.into_iter()
    }

    #[test]
    fn what_is_a_text_may_look_like_anything() {
        let mut whole = Config::default();
        (whole.index.path, whole.index.journal) = ("i".into(), Some("j".into()));
        (whole.listen.tls_certificate, whole.listen.tls_key) = (Some("c".into()), Some("k".into()));
        let mut texts = Vec::new();
        for (section, keys) in Table::try_from(&whole).unwrap() {
            let keys = keys.as_table().unwrap().iter().filter(|(_, value)| value.is_str());
            texts.extend(keys.map(|(key, _)| format!("{section}.{key}")));
        }
        let mut listed = TEXTS.to_vec();
        listed.sort_unstable();
        texts.sort_unstable();
        assert_eq!(texts, listed);
        let pairs = [("TONNAGE__STORE__NAMESPACE", "2026"), ("TONNAGE__INDEX__PATH", "1e3")];
        let config = sources(None, &["store.address=true", "index.journal='quoted'"]).read(variables(&pairs)).unwrap();
        assert_eq!((config.store.namespace.as_str(), config.index.path.to_str()), ("2026", Some("1e3")));
        assert_eq!((config.store.address.as_str(), config.index.journal), ("true", Some("quoted".into())));
    }

    #[cfg(unix)]
    #[test]
    fn variables_that_are_no_text_are_refused_where_they_are_ours() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(vec![b'a', 0xff]);
        let read = |name: OsString| sources(None, &[]).read(std::iter::once((name, odd())));
        assert!(read("OTHER".into()).is_ok() && read(odd()).is_ok());
        let error = read("TONNAGE__STORE__ADDRESS".into()).unwrap_err().to_string();
        assert_eq!(error, "environment variable TONNAGE__STORE__ADDRESS: expected UTF-8");
    }

    #[test]
    fn no_error_shows_what_may_be_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.toml");
        let files = [
            "[store]\naddress = redis://me:s3cret@host\n",
            "[store]\naddress = 's3cret\n",
            "[store]\naddress = ['s3cret, expected 1']\n",
            "[keys]\nread = 's3cret'\n",
            "[keys]\nread = { s3cret = 1 }\n",
            "keys = 's3cret'\n",
        ];
        for text in files {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", sources(Some(path.clone()), &[]).read(variables(&[])).unwrap_err());
            assert!(!error.contains("s3cret") && error.lines().count() == 1, "{text}: {error}");
        }
        for pair in ["keys=s3cret", "keys.read=s3cret", "s3cret", "store.timeout_ms=s3cret", "store=s3cret"] {
            let error = format!("{:#}", sources(None, &[pair]).read(variables(&[])).unwrap_err());
            assert!(!error.contains("s3cret"), "{pair}: {error}");
        }
        let error = sources(None, &[]).read(variables(&[("TONNAGE__KEYS__READ", "12345678901234567")])).unwrap_err();
        assert_eq!(error.to_string(), "configuration: `keys.read`: expected a sequence, got something else");
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
