//! `tonnage serve`

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::filter::LevelFilter;

use super::config::{Sources, warn_of};
use super::out;
use crate::service::Service;
use crate::service::config::{Level, Log};

/// Answer requests over HTTP
///
/// Serves the store's active release from the index that belongs to it, and follows it: a release that is activated is
/// served within seconds. SIGTERM and SIGINT drain and end it, SIGHUP has it look for a release now.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.sources.read(std::env::vars_os())?;
    config.check()?;
    warn_of(&config);
    log(config.log);
    // it only waits: for connections and for the store; one thread does that for several that compute
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(4))
        .thread_name("network")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let service = Service::bind(config).await?;
        let (address, admin) = service.addresses()?;
        out::line(&format!("listening on {address}, administration on {admin}"))?;
        let (reload, reloads) = mpsc::unbounded_channel();
        let mut hangups = signal(SignalKind::hangup())?;
        tokio::spawn(async move { while hangups.recv().await.is_some() && reload.send(()).is_ok() {} });
        let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        service.run(stop, reloads).await?;
        anyhow::Ok(())
    })?;
    // a search that never ends must not keep the process
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(())
}

fn log(log: Log) {
    let level = match log.level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_ansi(false);
    // a second one in a process is no fault
    let _ = if log.json { lines.json().try_init() } else { lines.with_target(false).try_init() };
}
