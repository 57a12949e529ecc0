//! `plan.toml`: what was decided and for what, to be taken by those who act on it.
//!
//! The one thing to know: a plan is for one model. Whoever takes it checks [`Target`] against what he has.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Budgets, Plan};
use crate::codec::Metric;

/// The version that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// No plan is near as long.
const LONGEST: u64 = 1 << 20;

/// A plan with what it was made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// [`FORMAT`].
    pub format: u32,
    /// The model.
    pub target: Target,
    /// What was asked for.
    pub budgets: Budgets,
    /// What was decided.
    pub plan: Plan,
}

/// The model that a plan was made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Items.
    pub items: u64,
    /// Users with a vector.
    pub users: u64,
    /// Dimensions.
    pub dim: u32,
    /// How users and items are compared.
    pub metric: Metric,
    /// The server that bytes were predicted for.
    pub server: String,
}

/// Why a file is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFileError {
    /// It cannot be read or written.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Of another version.
    #[error("{}: expected a plan of format {FORMAT}, got {got}: make it again with `tonnage plan`", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: i64,
    },
    /// Not TOML, or fields that no plan has, or too few of them.
    #[error("{}: {what}: make it again with `tonnage plan`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        what: String,
    },
    /// Made for another model.
    #[error("{}: the plan is for {what} {expected}, got {got}: make one for this model", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// The plan's.
        expected: u64,
        /// The model's.
        got: u64,
    },
    /// Of fewer users than there are.
    #[error("{}: the plan keeps {kept} of the users, the most deserving, got {got}: publish a file of those", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// Users that the plan has room for.
        kept: u64,
        /// Users that are there.
        got: u64,
    },
}

impl PlanFile {
    /// Reads a plan, and refuses anything else.
    pub fn open(path: &Path) -> Result<Self, PlanFileError> {
        let io = |doing| move |source| PlanFileError::Io { path: path.to_owned(), doing, source };
        let malformed = |what: String| PlanFileError::Malformed { path: path.to_owned(), what };
        let length = std::fs::metadata(path).map_err(io("opening it"))?.len();
        if length > LONGEST {
            return Err(malformed(format!("expected at most {LONGEST} bytes, got {length}")));
        }
        let text = std::fs::read_to_string(path).map_err(io("reading it"))?;
        // the version first: a later format may well have other fields
        let version: Version = toml::from_str(&text).map_err(|error| malformed(said(&text, &error)))?;
        if version.format != i64::from(FORMAT) {
            return Err(PlanFileError::Format { path: path.to_owned(), got: version.format });
        }
        toml::from_str(&text).map_err(|error| malformed(said(&text, &error)))
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), PlanFileError> {
        let io = |doing| move |source| PlanFileError::Io { path: path.to_owned(), doing, source };
        let text = toml::to_string(self)
            .map_err(|error| PlanFileError::Malformed { path: path.to_owned(), what: error.to_string() })?;
        let head = "# A plan by `tonnage plan`. `tonnage publish --plan` takes it as it is.\n";
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let draft = tempfile::NamedTempFile::new_in(folder).map_err(io("creating a draft beside it"))?;
        std::fs::write(draft.path(), format!("{head}{text}")).map_err(io("writing it"))?;
        draft.persist(path).map_err(|error| io("putting it in its place")(error.error))?;
        Ok(())
    }

    /// Refuses a model of other dimensions, or of more users than the plan has room for. Fewer users, and other items,
    /// cost no more than planned.
    pub fn check(&self, path: &Path, dim: usize, users: usize) -> Result<(), PlanFileError> {
        let other = |what, expected, got| PlanFileError::Other { path: path.to_owned(), what, expected, got };
        if self.target.dim as usize != dim {
            return Err(other("vectors of dimensions", u64::from(self.target.dim), dim as u64));
        }
        let (kept, got) = (self.plan.settings.users_kept, users as u64);
        if got > self.target.users {
            return Err(other("at most as many users as", self.target.users, got));
        }
        if got > kept {
            return Err(PlanFileError::Kept { path: path.to_owned(), kept, got });
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Version {
    format: i64,
}

/// The message in one line, with the line of the file that it is about.
fn said(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text.get(..span.start).map_or(0, |before| before.matches('\n').count()) + 1);
    let message = error.message().replace('\n', " ");
    line.map_or(message.clone(), |line| format!("line {line}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::super::{Cache, Entry, Floor, Pages, fixture};
    use super::*;

    fn file() -> PlanFile {
        let target =
            Target { items: 10, users: 2_000_000, dim: 64, metric: Metric::Dot, server: "Redis 7.0.15".to_owned() };
        PlanFile { format: FORMAT, target, budgets: Budgets::default(), plan: fixture::plan() }
    }

    #[test]
    fn every_plan_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        let caches = [
            Cache::None,
            Cache::Precomputed { entry: Entry::Candidates, users: 7 },
            Cache::Store { entry: Entry::Lists, ttl_s: 60.0, on_read: true },
            Cache::Local { entry: Entry::Lists, entries: 1000, bytes: 696_000 },
        ];
        for cache in caches {
            for pages in [None, Some(Pages::Dense { slots: 120 }), Some(Pages::Hashed { mean_users: 103.25 })] {
                for floor in [Floor::Recall(0.95), Floor::RankingLoss(0.02)] {
                    let mut file = file();
                    (file.plan.settings.cache, file.plan.settings.pages, file.budgets.floor) = (cache, pages, floor);
                    file.plan.predicted.days_until_full = None;
                    file.write(&path).unwrap();
                    assert_eq!(PlanFile::open(&path).unwrap(), file);
                }
            }
        }
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# A plan by `tonnage plan`."));
    }

    #[test]
    fn anything_else_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        file().write(&path).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let message = PlanFile::open(&path).unwrap_err().to_string();
            assert!(message.contains("plan.toml") && message.contains("tonnage plan") && message.lines().count() == 1);
            message
        };
        assert!(refused(&good.replace("format = 1", "format = 2")).contains("expected a plan of format 1, got 2"));
        assert!(refused(&good.replace("ef = 32", "ef = 32\nspeed = 3")).contains("unknown field `speed`"));
        assert!(refused(&good.replace("ef = 32\n", "")).contains("missing field `ef`"));
        assert!(refused(&good.replace("users = \"int8\"", "users = \"int9\"")).contains("line"));
        refused("");
        refused("format = 1");
        refused("[[[");
        refused(&"#".repeat(2 << 20));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(PlanFile::open(&path), Err(PlanFileError::Io { .. })));
    }

    #[test]
    fn a_plan_is_for_its_model_only() {
        let (file, path) = (file(), Path::new("plan.toml"));
        assert!(file.check(path, 64, 2_000_000).is_ok() && file.check(path, 64, 5).is_ok());
        let message = |dim, users| file.check(path, dim, users).unwrap_err().to_string();
        assert!(message(65, 5).contains("vectors of dimensions 64, got 65"));
        assert!(
            message(64, 2_000_001).contains("at most as many users as 2000000, got 2000001: make one for this model")
        );
    }

    #[test]
    fn a_plan_that_keeps_some_users_takes_a_file_of_those() {
        let (mut file, path) = (file(), Path::new("plan.toml"));
        file.plan.settings.users_kept = 1_800_000;
        assert!(file.check(path, 64, 1_800_000).is_ok());
        let message = file.check(path, 64, 2_000_000).unwrap_err().to_string();
        assert!(
            message.contains("keeps 1800000 of the users") && message.contains("got 2000000: publish a file of those")
        );
        assert!(!message.contains("for this model"), "{message}");
    }
}
