//! Following the store: which release is active, is its index here, is it sound; then it is served.
//!
//! The one thing to know: whatever is wrong with a candidate, what is served goes on being served. A candidate that was
//! refused is looked at again when its file has changed, or when somebody asks for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::app::App;
use super::metrics::{OfOutcome, Word};
use super::shape::ReleaseDocument;
use super::shelf::{GRACE, LoadError, Loaded, find, newest};
use crate::catalog::Index;
use crate::codec::Codec;
use crate::engine::{Diversity, Effort, Engine, EngineError, ItemFilter, Pace, SimilarRequest};
use crate::kv::{AnyKv, RedisOptions};
use crate::store::{Manifest, State, StoreError, UserVectors, current, list};

/// How long a start waits before it tries the store again.
const PATIENCE: Duration = Duration::from_millis(500);

/// What somebody asks of the one who follows.
#[derive(Debug)]
pub enum Command {
    /// Look now, whatever was refused before.
    Reload(oneshot::Sender<Result<ReleaseDocument, String>>),
    /// Serve the previous release until the store has yet another.
    RollBack(oneshot::Sender<Result<ReleaseDocument, String>>),
}

/// Follows the store until the service ends.
pub async fn follow(app: Arc<App>, mut commands: mpsc::Receiver<Command>) {
    connect(&app).await;
    let mut follower = Follower { app, refused: None, held: None };
    let poll = Duration::from_millis(follower.app.config.reload.poll_ms);
    let mut failing = false;
    loop {
        let looked = follower.look(false).await;
        if let Err(error) = &looked
            && !failing
        {
            tracing::warn!(error = error.as_str(), "the active release cannot be served");
        }
        failing = looked.is_err();
        follower.app.shelf.settle(GRACE);
        // not all replicas at once
        let jitter = 0.9 + 0.2 * f64::from(clock_us() % 1024) / 1024.0;
        match tokio::time::timeout(poll.mul_f64(jitter), commands.recv()).await {
            Err(_) => {}
            Ok(Some(command)) => follower.obey(command).await,
            Ok(None) => return,
        }
    }
}

fn clock_us() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_micros())
}

/// Reaches the store, however long that takes. When it does not answer at once, an index is served without it.
async fn connect(app: &Arc<App>) {
    let (config, mut told) = (&app.config.store, false);
    let options = RedisOptions {
        connect_timeout_ms: config.connect_timeout_ms,
        response_timeout_ms: config.timeout_ms,
        ..RedisOptions::default()
    };
    let kv = loop {
        match AnyKv::open_with(&config.address, options.clone()).await {
            Ok(kv) => break kv,
            Err(error) if !told => {
                tracing::warn!(%error, "waiting for the store");
                begin_alone(app).await;
            }
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(PATIENCE).await;
    };
    app.store.reached(kv);
}

/// Serves the index that there is, by popularity and what requests say, until the store says what should be.
async fn begin_alone(app: &Arc<App>) {
    let inside = Arc::clone(app);
    let load = move || {
        let Some(path) = newest(&inside.config.index.path) else { return Ok(None) };
        let index = open(&inside, &path)?;
        let (ns, release) = (&inside.config.store.namespace, &index.meta().release);
        let (fingerprint, dim) = (index.fingerprint(), index.dim() as u32);
        let users = UserVectors::nobodys(inside.store.clone(), ns, release, fingerprint, Codec::Int8, dim);
        let engine = Engine::open(index, users, inside.engine_options(), Arc::clone(&inside.live))?;
        let loaded = Loaded::new(engine);
        Ok::<_, LoadError>(Some(Loaded { is_published: false, ..loaded }))
    };
    match tokio::task::spawn_blocking(load).await {
        Ok(Ok(Some(loaded))) => {
            tracing::warn!(release = loaded.manifest().name, "served without the store: nobody is known");
            app.serve(Arc::new(loaded));
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "there is no index to begin with"),
        Err(error) => tracing::warn!(%error, "there is no index to begin with"),
    }
}

/// Threads that check and warm what is loaded while something is served: one of four cores. Those of the process answer
/// batches, which would otherwise stand behind the whole of a file.
fn beside() -> Result<rayon::ThreadPool, LoadError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(cores.div_ceil(4)).thread_name(|_| "load".to_owned());
    pool.build().map_err(|error| LoadError::Lost(error.to_string()))
}

fn open(app: &App, path: &Path) -> Result<Index, LoadError> {
    Ok(if app.config.index.resident { Index::open_resident(path)? } else { Index::open(path)? })
}

struct Follower {
    app: Arc<App>,
    /// The candidate that was refused, as its file was then.
    refused: Option<(String, Stamp)>,
    /// The release that was rolled back from.
    held: Option<String>,
}

/// Whether they are one publication: a name and a fingerprint can be published again, in other pages.
fn is_same(a: &Manifest, b: &Manifest) -> bool {
    (&a.id, a.addressing, a.keys(), a.checksum) == (&b.id, b.addressing, b.keys(), b.checksum)
}

/// What tells whether a file is still the same.
type Stamp = Option<(PathBuf, u64, SystemTime)>;

/// A folder may be large and far away: this is no work for a thread that others wait for.
async fn stamp(template: PathBuf, manifest: Manifest) -> Stamp {
    let look = move || {
        let path = find(&template, &manifest).ok()?;
        let about = std::fs::metadata(&path).ok()?;
        Some((path, about.len(), about.modified().ok()?))
    };
    tokio::task::spawn_blocking(look).await.ok().flatten()
}

impl Follower {
    /// Takes up the active release if it is not the one that is served.
    async fn look(&mut self, asked: bool) -> Result<(), String> {
        let namespace = self.app.config.store.namespace.clone();
        let manifest = match current(&self.app.store, &namespace).await {
            Ok(manifest) => manifest,
            // it is away: what is served is served
            Err(StoreError::Kv(_)) if self.app.shelf.current().is_some() => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let served = self.app.shelf.current();
        if served.is_some_and(|served| is_same(served.manifest(), &manifest)) {
            self.held = None;
            return Ok(());
        }
        if !asked && self.held.as_ref() == Some(&manifest.id) {
            return Ok(());
        }
        let stamp = stamp(self.app.config.index.path.clone(), manifest.clone()).await;
        if !asked && self.refused.as_ref() == Some(&(manifest.id.clone(), stamp.clone())) {
            return Ok(());
        }
        let name = manifest.name.clone();
        match self.load(manifest.clone()).await {
            Ok(loaded) => {
                tracing::info!(release = name, items = loaded.engine.index().len(), "served from now on");
                self.app.serve(Arc::new(loaded));
                self.forget().await;
                (self.refused, self.held) = (None, None);
                self.count("served");
                Ok(())
            }
            Err(error) => {
                tracing::error!(release = name, %error, "refused; what was served is served");
                self.refused = Some((manifest.id, stamp));
                self.count("refused");
                Err(error.to_string())
            }
        }
    }

    /// Lets go of what was added to releases that nobody goes back to: neither this service, which has two at hand, nor the
    /// store, which alone knows of the one before after a restart. While it cannot be asked all is kept.
    async fn forget(&self) {
        let (shelf, live) = (&self.app.shelf, Arc::clone(&self.app.live));
        let loaded = [shelf.current(), shelf.previous()];
        let mut kept: Vec<u64> = loaded.iter().flatten().map(|loaded| loaded.manifest().fingerprint).collect();
        match list(&self.app.store, &self.app.config.store.namespace).await {
            Ok((listed, _)) => {
                let entries = listed.into_iter().map(|listed| listed.entry);
                let to_go_back_to = entries.filter(|entry| matches!(entry.state, State::Active | State::Previous));
                kept.extend(to_go_back_to.map(|entry| entry.fingerprint));
            }
            Err(error) => return tracing::warn!(%error, "changes of old releases are still kept"),
        }
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || live.forget_others(&kept)).await {
            tracing::warn!(%error, "changes of old releases are still kept");
        }
    }

    fn count(&self, outcome: &'static str) {
        self.app.metrics.reloads.get_or_create(&OfOutcome { outcome: Word(outcome) }).inc();
    }

    /// Opens, joins and warms on a thread that may take its time.
    async fn load(&self, manifest: Manifest) -> Result<Loaded, LoadError> {
        let app = Arc::clone(&self.app);
        let namespace = app.config.store.namespace.clone();
        let users = UserVectors::open_release(app.store.clone(), &namespace, &manifest.name).await;
        let users = users.map_err(EngineError::from)?;
        let handle = tokio::runtime::Handle::current();
        let load = move || {
            let path = find(&app.config.index.path, &manifest)?;
            let index = open(&app, &path)?;
            // the index that is served goes on scoring vectors of its release, and what is known of users is kept
            let engine = match app.shelf.current() {
                Some(served) => {
                    let is_next = served.is_published && served.manifest().fingerprint != manifest.fingerprint;
                    let engine = served.engine.succeed(index, users)?;
                    if is_next { engine } else { engine.without_previous() }
                }
                None => Engine::open(index, users, app.engine_options(), Arc::clone(&app.live))?,
            };
            let loaded = Loaded::new(engine);
            warm(&loaded, &app, &handle);
            Ok(loaded)
        };
        // at the start nobody is kept waiting
        let is_first = self.app.shelf.current().is_none();
        let task = tokio::task::spawn_blocking(move || if is_first { load() } else { beside()?.install(load) });
        task.await.unwrap_or_else(|error| Err(LoadError::Lost(error.to_string())))
    }

    async fn obey(&mut self, command: Command) {
        let served = |app: &App| app.shelf.current().map(|loaded| loaded.document());
        match command {
            Command::Reload(tell) => {
                let looked = self.look(true).await;
                let _ = tell.send(looked.and_then(|()| served(&self.app).ok_or("nothing is loaded".to_owned())));
            }
            Command::RollBack(tell) => {
                let from = self.app.shelf.current().map(|loaded| loaded.manifest().id.clone());
                let told = match self.app.shelf.previous() {
                    Some(previous) => {
                        tracing::info!(release = previous.manifest().name, "served again");
                        self.app.serve(previous);
                        self.held = from;
                        self.count("rolled_back");
                        served(&self.app).ok_or("nothing is loaded".to_owned())
                    }
                    None => Err("there is no previous release; activate one with `tonnage releases`".to_owned()),
                };
                let _ = tell.send(told);
            }
        }
    }
}

/// Looks for items by their own vectors and answers recent requests, so that nobody's request is the first to touch a page
/// of the index. What is answered is of no interest, and a request may be about what this index has not.
fn warm(loaded: &Loaded, app: &App, handle: &tokio::runtime::Handle) {
    let index = loaded.engine.index();
    let most = app.config.reload.warm;
    let step = (index.len() / most.max(1)).max(1);
    for node in (0..index.len() as u32).step_by(step).take(most) {
        let item = index.id(node).into();
        let (filter, diversity) = (ItemFilter::default(), Diversity::default());
        let request = SimilarRequest { item, k: 20, effort: Effort::Default, filter, diversity };
        let _ = loaded.engine.similar(&request, Pace::now());
    }
    for request in app.recent.all() {
        let _ = handle.block_on(loaded.engine.recommend(std::slice::from_ref(&request)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn a_load_and_a_batch_do_not_wait_for_each_other() {
        let loading = beside().unwrap();
        // a load has all the threads that it may have
        let (end, ended) = mpsc::channel::<()>();
        let (tell, begun) = mpsc::channel();
        let ended = std::sync::Mutex::new(ended);
        std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                loading.install(|| {
                    let _ = tell.send(());
                    ended.lock().unwrap().recv().is_err()
                })
            });
            begun.recv().unwrap();
            assert_eq!((0..1_000_u64).into_par_iter().sum::<u64>(), 499_500);
            assert!(!load.is_finished());
            drop(end);
            assert!(load.join().unwrap());
        });
        let cores = std::thread::available_parallelism().unwrap().get();
        assert!(loading.current_num_threads() * 4 < cores + 4);
    }
}
