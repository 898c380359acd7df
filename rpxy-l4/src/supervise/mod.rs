//! Start, reload, drain, stop.
//!
//! The main thread runs a small runtime of its own for everything that is not a connection: configuration, DNS, signals
//! and metrics. Connections live on the workers.

mod admin;
mod daemon;
mod kernel;
mod listeners;
mod reload;
mod resources;
mod scrape;
mod signals;
mod sockets;
mod worker;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    config::{self, model::Config, watch::Watch},
    limit::Bans,
    log::{self, Logs},
    metrics::Metrics,
    resolve::Resolver,
    tcp, udp,
};
use daemon::{Daemon, KnownTargets};
use listeners::Listeners;
use signals::{Signal, Signals};
use sockets::Sockets;

/// Interval of polling for the end of the last connection in a drain.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Arguments of the daemon.
#[derive(Debug)]
pub(crate) struct Options {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// Directory of the log files; `None` logs to the standard output.
    pub(crate) log_dir: Option<PathBuf>,
    /// Wait for a valid configuration instead of failing.
    pub(crate) wait_for_config: bool,
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
///
/// Something that the configuration asks for cannot be started. Once the daemon is ready, nothing but a signal ends it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let logs = log::start(options.log_dir.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the control runtime")?;
    let result = runtime.block_on(control(options, &logs, started));
    // Lookups still running in the background must not hold up the end.
    runtime.shutdown_background();
    if let (Err(error), Some(_)) = (&result, &options.log_dir) {
        tracing::error!("{error:#}");
    }
    result
}

async fn control(options: &Options, logs: &Logs, started: Instant) -> Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let mut watch =
        Watch::new(&options.config).with_context(|| format!("cannot watch {}", options.config.display()))?;
    if let Some(reason) = watch.degraded() {
        tracing::warn!("the configuration is polled every few seconds, without change events: {reason}");
    }
    let Some(mut config) = first_config(options, &mut watch, &mut signals).await? else { return Ok(()) };
    resources::fill_in(&mut config);
    resources::warn_of_limits(&config);

    let metrics = Metrics::new();
    let resolver = Resolver::new(tokio::runtime::Handle::current(), config.dns, Arc::clone(&metrics));
    let targets = KnownTargets::default();
    let bans = Arc::new(Bans::default());
    bans.set_configured(&config.ebpf.ban);
    let (requests, mut asked) = crate::admin::requests();
    let kernel = kernel::start(&config);
    if let Some(kernel) = &kernel {
        metrics.set_kernel(Arc::clone(kernel) as _);
    }
    let tcp = Arc::new(tcp::Shared::new(Arc::clone(&bans), Arc::clone(&metrics), logs.access.clone(), started));
    let udp = Arc::new(udp::Shared::new(
        config.quic_affinity_lifetime,
        Arc::clone(&bans),
        kernel::offload(kernel.as_ref()),
        Arc::clone(&metrics),
        logs.access.clone(),
        started,
    ));
    let sockets = Sockets::new(&config)?;
    let snapshot = tcp::Snapshot::new(&config, &sockets.tcp(), &tcp, &targets.tcp, &resolver);
    tcp.snapshot.store(Arc::new(snapshot));
    let udp_snapshot = Arc::new(udp::Snapshot::new(&config, &sockets.udp(), &udp.active, &targets.udp, &resolver));
    let count = worker_count(&config);
    let workers = worker::start(count, &tcp).context("cannot start the worker threads")?;
    let runtime = tokio::runtime::Handle::current();
    let udp_workers = (0..count)
        .map(|index| udp::Worker::start(index, Arc::clone(&udp), Arc::clone(&udp_snapshot), runtime.clone()))
        .collect::<Result<_, _>>()
        .context("cannot start the UDP threads")?;
    let mut listeners = Listeners::new(workers, udp_workers);
    let plan = listeners.plan(sockets)?;
    let inherited = kernel::hand_out_inherited(kernel.as_ref(), &udp_snapshot, &listeners).await;
    resources::divide_descriptors(&config, &tcp, count);
    listeners.apply(plan);
    let socket = admin::bind(&config)?;
    let mut daemon = Daemon {
        path: options.config.clone(),
        started,
        config,
        resolver,
        targets,
        metrics,
        bans,
        tcp,
        udp,
        kernel,
        listeners,
        metrics_server: None,
        requests,
        admin_server: None,
    };
    daemon.tell_kernel();
    daemon.start_inherited(inherited).await;
    daemon.serve_metrics(scrape::bind(&daemon.config, None)?);
    daemon.serve_admin(socket);
    tracing::info!("ready: {}", daemon.summary());

    loop {
        tokio::select! {
            () = watch.changed() => watch.set_others(&daemon.reload().await),
            Some(request) = asked.recv() => daemon.handle_command(request),
            signal = signals.next() => match signal {
                Signal::Reload => {
                    logs.reopen();
                    watch.set_others(&daemon.reload().await);
                }
                Signal::Stop => break,
            },
        }
    }
    drop(asked);
    daemon.close_admin().await;
    drain(&mut daemon, &mut signals, logs).await;
    if let Some(kernel) = &daemon.kernel {
        kernel.leave();
    }
    daemon.listeners.stop();
    tracing::info!("stopped");
    Ok(())
}

/// The configuration to start with; `None` when a signal came first.
async fn first_config(options: &Options, watch: &mut Watch, signals: &mut Signals) -> Result<Option<Config>> {
    loop {
        match config::load(&options.config) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{}", warning.in_file(&options.config));
                }
                watch.set_others(&loaded.files);
                return Ok(Some(loaded.config));
            }
            Err(error) if !options.wait_for_config => return Err(error.into()),
            Err(error) => {
                tracing::warn!("waiting for a valid configuration: {error}");
                watch.set_others(error.files());
            }
        }
        tokio::select! {
            () = watch.changed() => {}
            signal = signals.next() => match signal {
                Signal::Reload => {}
                Signal::Stop => return Ok(None),
            },
        }
    }
}

/// Lets connections finish for `drain_timeout`; a second signal ends the wait.
async fn drain(daemon: &mut Daemon, signals: &mut Signals, logs: &Logs) {
    let limit = daemon.config.drain_timeout;
    let deadline = tokio::time::Instant::now() + limit;
    let closing = daemon.listeners.close_tcp();
    let active = Arc::clone(&daemon.tcp.active);
    tracing::info!("draining: {} connections, for {limit:?} at most", active.count());
    let finished = async {
        for closed in closing {
            // Ends with an error, which is the sender being dropped.
            drop(closed.await);
        }
        while active.count() > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    tokio::pin!(finished);
    loop {
        tokio::select! {
            () = &mut finished => break,
            () = tokio::time::sleep_until(deadline) => break,
            signal = signals.next() => match signal {
                Signal::Reload => logs.reopen(),
                Signal::Stop => break,
            },
        }
    }
    match active.count() {
        0 => {}
        left => tracing::info!("closing {left} remaining connections"),
    }
}

fn worker_count(config: &Config) -> usize {
    config.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, std::num::NonZeroUsize::get)
}
