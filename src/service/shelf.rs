//! What is served: one index with its users, and the one before it. Of indexes these two are kept, and a third while it is
//! loaded.
//!
//! The one thing to know: a request takes what is served when it begins and keeps it to its end. A swap makes others
//! begin with the new one, and takes nothing away from anybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;

use super::guarded::Guarded;
use super::shape::ReleaseDocument;
use crate::catalog::CatalogError;
use crate::engine::{Engine, EngineError};
use crate::file::{FileError, Mapped};
use crate::kv::AnyKv;
use crate::store::Manifest;

/// For how long those who have a vector of the release before, and none of the new one, are answered by its index; each
/// request reads its page as well meanwhile. 15 minutes: whoever writes overlays has noticed the new release by then, and it
/// is over before the next one.
pub const GRACE: Duration = Duration::from_mins(15);

/// The store as the service reads it.
pub type Store = Guarded<AnyKv>;

/// A release that is loaded.
pub struct Loaded {
    /// What answers.
    pub engine: Engine<Store>,
    /// Whether the store said that this is what should be served. Otherwise it is an index by itself, and nobody is known.
    pub is_published: bool,
    /// When it was loaded.
    pub since: Instant,
    /// The same by the wall clock.
    pub at: SystemTime,
}

/// Why a release cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No file has its fingerprint.
    #[error("{}: expected an index with fingerprint {expected:016x}, got {got}: copy the index of release {release} there", path.display())]
    NoIndex {
        /// Where was looked.
        path: PathBuf,
        /// The release's fingerprint.
        expected: u64,
        /// What is there.
        got: String,
        /// The release.
        release: String,
    },
    /// The file is not what it should be.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Index and users do not go together.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The task that loads it fell over.
    #[error("loading did not come to an end: {0}")]
    Lost(String),
}

impl Loaded {
    /// What answers for a release.
    pub fn new(engine: Engine<Store>) -> Self {
        Self { engine, is_published: true, since: Instant::now(), at: SystemTime::now() }
    }

    /// The same without the release before it.
    fn alone(&self) -> Self {
        Self { engine: self.engine.without_previous(), ..*self }
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        self.engine.users().manifest()
    }

    /// What is told of it.
    pub fn document(&self) -> ReleaseDocument {
        let (index, manifest) = (self.engine.index(), self.manifest());
        ReleaseDocument {
            name: manifest.name.clone(),
            fingerprint: format!("{:016x}", manifest.fingerprint),
            items: index.len(),
            dim: index.dim(),
            users: manifest.users,
            index_bytes: index.bytes(),
            loaded_s: self.since.elapsed().as_secs(),
        }
    }
}

/// The release that is served, and the one before.
#[derive(Default)]
pub struct Shelf {
    current: ArcSwapOption<Loaded>,
    previous: ArcSwapOption<Loaded>,
}

impl Shelf {
    /// What is served.
    pub fn current(&self) -> Option<Arc<Loaded>> {
        self.current.load_full()
    }

    /// What was served before.
    pub fn previous(&self) -> Option<Arc<Loaded>> {
        self.previous.load_full()
    }

    /// Serves a release from now on, and keeps what was served, to go back to; what was before that is let go.
    pub fn put(&self, loaded: Arc<Loaded>) {
        let before = self.current.swap(Some(loaded));
        let before = before.filter(|before| before.is_published);
        self.previous.store(before.map(|before| Arc::new(before.alone())));
    }

    /// Has the release before answer nobody any more once what is served has been for so long. It stays to go back to.
    pub fn settle(&self, grace: Duration) {
        if let Some(loaded) = self.current()
            && loaded.engine.previous_index().is_some()
            && loaded.since.elapsed() >= grace
        {
            self.current.store(Some(Arc::new(loaded.alone())));
        }
    }
}

/// The file with the index of a release: the template filled in, the file itself, or the one of the folder that claims
/// the release's fingerprint. Only its header was looked at.
pub fn find(template: &Path, manifest: &Manifest) -> Result<PathBuf, LoadError> {
    let wanted = manifest.fingerprint;
    let missing =
        |path: PathBuf, got: String| LoadError::NoIndex { path, expected: wanted, got, release: manifest.name.clone() };
    let claim = |path: &Path| match Mapped::claimed_hash(path) {
        Ok(hash) if hash == wanted => Ok(()),
        Ok(hash) => Err(format!("one with {hash:016x}")),
        Err(error) => Err(said(&error)),
    };
    let text = template.to_string_lossy();
    // a name that begins with a dot could lead out of the folder
    if text.contains("{release}") && manifest.name.starts_with('.') {
        return Err(missing(template.to_owned(), format!("a release called {:?}", manifest.name)));
    }
    let filled = text.replace("{fingerprint}", &format!("{wanted:016x}")).replace("{release}", &manifest.name);
    let path = if text.contains('{') { PathBuf::from(filled) } else { template.to_owned() };
    if !path.is_dir() {
        return claim(&path).map(|()| path.clone()).map_err(|got| missing(path, got));
    }
    let listed = std::fs::read_dir(&path).map_err(|error| missing(path.clone(), error.to_string()))?;
    let indexes = indexes(listed);
    let found = indexes.iter().find(|file| claim(file).is_ok()).cloned();
    found.ok_or_else(|| missing(path, format!("{} files *.tng, none of which has it", indexes.len())))
}

/// The index to begin with while the store cannot say which: the file itself, or of a folder the one that was built last.
/// With a path that the release's name is a part of there is none.
pub fn newest(template: &Path) -> Option<PathBuf> {
    if template.to_string_lossy().contains('{') {
        return None;
    }
    if !template.is_dir() {
        return Some(template.to_owned());
    }
    let built = |path: &PathBuf| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    std::fs::read_dir(template).ok().and_then(|listed| indexes(listed).into_iter().max_by_key(built))
}

/// The files with indexes of a folder, in the same order on every machine.
fn indexes(listed: std::fs::ReadDir) -> Vec<PathBuf> {
    let files = listed.flatten().map(|entry| entry.path());
    let mut indexes: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|end| end == "tng")).collect();
    indexes.sort();
    indexes
}

/// A cause in a line, without the path that the message around it has.
fn said(error: &FileError) -> String {
    let text = error.to_string();
    text.split_once(": ").map_or(text.clone(), |(_, rest)| rest.to_owned())
}
