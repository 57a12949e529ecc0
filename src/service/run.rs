//! Start to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::app::App;
use super::config::{Config, ConfigError};
use super::reload::{self, Command};
use super::tls::{self, TlsError};
use super::wire::Door;
use super::{probe, routes};
use crate::engine::EngineError;

/// Orders that wait; whoever gives more waits for those before.
const ORDERS: usize = 16;

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// What it was told does not hold together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It cannot listen.
    #[error("{address}: {source}; choose another in [listen]")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The journal of changes cannot be used.
    #[error(transparent)]
    Journal(#[from] EngineError),
    /// It cannot start a thread.
    #[error("starting a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A service that listens, and answers once it runs.
pub struct Service {
    app: Arc<App>,
    public: TcpListener,
    admin: std::net::TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Service {
    /// Checks what it is told, and listens.
    pub async fn bind(config: Config) -> Result<Self, ServiceError> {
        config.check()?;
        let tls = tls::acceptor(&config.listen)?;
        let fault = |address| move |source| ServiceError::Listen { address, source };
        let (address, admin) = (config.listen.address, config.listen.admin);
        let public = TcpListener::bind(address).await.map_err(fault(address))?;
        let admin_listener = std::net::TcpListener::bind(admin).map_err(fault(admin))?;
        admin_listener.set_nonblocking(true).map_err(fault(admin))?;
        Ok(Self { app: Arc::new(App::new(config)?), public, admin: admin_listener, tls })
    }

    /// Where requests are taken, and where administration is.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.public.local_addr()?, self.admin.local_addr()?))
    }

    /// Answers until `stop`, then drains. Each message of `reloads` has it look for a new release now.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        mut reloads: mpsc::UnboundedReceiver<()>,
    ) -> Result<(), ServiceError> {
        let Self { app, public, admin, tls } = self;
        let (orders, obeyed) = mpsc::channel::<Command>(ORDERS);
        let (end_admin, admin_ends) = oneshot::channel::<()>();
        let admin_thread = admin_thread(&app, admin, &orders, admin_ends)?;
        let signals = tokio::spawn(async move {
            while reloads.recv().await.is_some() {
                let (tell, _told) = oneshot::channel();
                let _ = orders.send(Command::Reload(tell)).await;
            }
        });
        let follower = tokio::spawn(reload::follow(Arc::clone(&app), obeyed));
        let watcher = tokio::spawn(probe::watch(Arc::clone(&app)));
        let door = Door {
            listener: public,
            router: routes::public(&app),
            listen: app.config.listen.clone(),
            metrics: Arc::clone(&app.metrics),
            draining: Arc::clone(&app.draining),
            tls,
        };
        door.serve(stop).await;
        for task in [signals, follower, watcher] {
            task.abort();
        }
        let _ = end_admin.send(());
        let _ = tokio::task::spawn_blocking(move || admin_thread.join()).await;
        Ok(())
    }
}

/// Administration on a thread and a runtime of its own, so that it answers however busy everything else is.
fn admin_thread(
    app: &Arc<App>,
    listener: std::net::TcpListener,
    orders: &mpsc::Sender<Command>,
    end: oneshot::Receiver<()>,
) -> Result<std::thread::JoinHandle<()>, ServiceError> {
    let router = routes::administration(app, orders);
    let (listen, metrics) = (app.config.listen.clone(), Arc::clone(&app.metrics));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("admin".to_owned());
    Ok(thread.spawn(move || {
        runtime.block_on(async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "there is no administration"),
            };
            // its own: it goes on answering while the other door drains
            let draining = Arc::new(AtomicBool::new(false));
            let door = Door { listener, router, listen, metrics, draining, tls: None };
            door.serve(async move { drop(end.await) }).await;
        });
    })?)
}
