//! Start, reload, drain, stop.
//!
//! The main thread runs a small runtime of its own for everything that is not a connection: configuration, DNS, signals
//! and metrics. Connections live on the workers.

mod admin;
mod checked;
mod daemon;
mod drained;
mod explain;
mod first;
mod hand_over;
mod inspect;
mod kernel;
mod listeners;
mod maintenance;
mod notify;
mod overview;
mod page;
mod passed;
mod predecessor;
mod reload;
mod resources;
mod scrape;
mod signals;
mod sockets;
mod status;
mod successor;
mod watchdog;
mod worker;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    config::{self, model::Config, watch::Watch},
    confine::{Confinement, Enter, Places, Role, confine},
    health::{self, Checks},
    limit::{Bans, DrainedListeners},
    log::{self, Form, Logs},
    metrics::{Metrics, Readiness},
    net::{self, PassedSocket},
    resolve::Resolver,
    tcp::{self, Splicer},
    udp,
};
use daemon::{Daemon, FIRST_ANSWERS, KnownTargets};
use drained::DrainedTargets;
pub(crate) use explain::from_file as explain_file;
use first::{first, say_each};
use listeners::Listeners;
use notify::Notify;
use passed::Passed;
use predecessor::Predecessor;
use reload::{Compiler, Reloading, Snapshots};
use signals::{Signal, Signals};
use successor::Handing;
use watchdog::Watchdog;

/// Longest wait for threads that have nothing left to do.
const JOIN: Duration = Duration::from_secs(1);
/// Interval of polling for the end of the last connection in a drain.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Interval of telling how many lines about refused traffic were withheld, and the service manager how busy the daemon is.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// Arguments of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// Directory of the log files; `None` logs to the standard output.
    pub(crate) log_dir: Option<PathBuf>,
    /// Wait for a valid configuration instead of failing.
    pub(crate) wait_for_config: bool,
    /// The admin socket where the configuration names none.
    pub(crate) admin_socket: Option<PathBuf>,
    /// The form of log lines.
    pub(crate) form: Form,
    /// Take over from the daemon that runs with this configuration.
    pub(crate) take_over: bool,
}

impl Options {
    /// Has `config` take what the command line says beside or above it.
    fn fill_in(&self, config: &mut Config) {
        self.form.overrule(config);
        if config.admin_socket.is_none() {
            config.admin_socket.clone_from(&self.admin_socket);
        }
    }
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
///
/// Something that the configuration asks for cannot be started. Once the daemon is ready, nothing but a signal ends it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    // Before anything else opens descriptors.
    let passed = net::take_passed().context("sockets of the service manager")?;
    let metrics = Metrics::new();
    let logs = log::start(options.log_dir.as_deref(), &options.form, &metrics)?;
    let result = serve(options, &logs, metrics, (started, passed));
    if let (Err(error), Some(_)) = (&result, &options.log_dir) {
        say_each("", "", config::told_apart(error));
    }
    result
}

/// Reads the configuration on a runtime of its own, confines what threads are left, and starts everything else: threads have
/// the rights of those that start them.
fn serve(
    options: &Options,
    logs: &Logs,
    metrics: Arc<Metrics>,
    (started, passed): (Instant, Vec<PassedSocket>),
) -> Result<()> {
    let passed = Passed::new(passed)?;
    let mut notify = Notify::from_environment();
    let runtime = runtime(None)?;
    let first = runtime.block_on(first(options, logs, &mut notify));
    // What a signal has interrupted must not hold up the end.
    runtime.shutdown_timeout(if matches!(first, Ok(Some(_))) { JOIN } else { Duration::ZERO });
    let Some((config, mut watch)) = first? else { return Ok(()) };
    let places = Places { config: &options.config, files: watch.others(), logs: options.log_dir.as_deref() };
    let confinement = confine(&config, &places, logs)?;
    let enter = confinement.enter(Role::Files);
    // Its thread gets the rights of the one that starts it.
    std::thread::scope(|scope| {
        let restart = || {
            enter();
            watch.restart();
        };
        drop(scope.spawn(restart).join());
    });
    let runtime = self::runtime(Some(enter))?;
    let result = runtime.block_on(control(
        options,
        logs,
        metrics,
        Given { started, passed, notify },
        (config, watch, confinement),
    ));
    // Lookups still running in the background must not hold up the end.
    runtime.shutdown_background();
    result
}

/// A runtime for the main thread; threads that it starts for work that blocks begin with `enter`.
fn runtime(enter: Option<Enter>) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    if let Some(enter) = enter {
        builder.on_thread_start(move || enter());
    }
    builder.enable_all().build().context("cannot start the control runtime")
}

/// What the process has been given by whoever has started it.
struct Given {
    started: Instant,
    passed: Passed,
    notify: Notify,
}

async fn control(
    options: &Options,
    logs: &Logs,
    metrics: Arc<Metrics>,
    Given { started, mut passed, mut notify }: Given,
    (mut config, mut watch, confinement): (Config, Watch, Confinement),
) -> Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let mut predecessor = None;
    let mut bans_before = Vec::new();
    if options.take_over {
        let path = config.admin_socket.clone();
        let path =
            path.context("--take-over: the file has no admin_socket, at which the running daemon could be asked")?;
        let met = beside(move || Predecessor::meet(&path), &mut signals).await?;
        let Some(met) = met else { return Ok(()) };
        let (met, sockets, rest) = met.context("--take-over: the running daemon does not hand over")?;
        passed.take_over(sockets);
        notify.take_over(rest.notify, rest.watchdog);
        bans_before = rest.bans;
        predecessor = Some(met);
    }
    let lowered = resources::fill_in(&mut config);
    resources::warn_of_limits(&config);
    // Workers may not open files.
    net::read_settings();

    let config = Arc::new(config);
    let resolver = Resolver::new(tokio::runtime::Handle::current(), config.dns, Arc::clone(&metrics));
    let targets = Arc::new(KnownTargets::new(&metrics));
    metrics.set_targets(Arc::clone(&targets) as _);
    let bans = Arc::new(Bans::default());
    bans.set_configured(&config.ebpf.ban);
    for network in bans_before {
        if let Err(error) = bans.ban(network) {
            tracing::warn!("{network} is not banned any more: {error}");
        }
    }
    let (requests, mut asked) = crate::admin::requests();
    let (successors, mut succeeding) = crate::admin::successors();
    let kernel = kernel::start(&config, predecessor.is_some(), &confinement);
    if let Some(kernel) = &kernel {
        metrics.set_kernel(Arc::clone(kernel) as _);
    }
    let tcp = Arc::new(tcp::Shared::new(Arc::clone(&bans), Arc::clone(&metrics), logs.access.clone(), started));
    if let Some(splice) = kernel::splice(kernel.as_ref()) {
        let enter = confinement.enter(Role::Splicer);
        let splicer = Splicer::start(splice, Arc::clone(&metrics), enter);
        tcp.splice_by(splicer.context("cannot start the thread that hands connections over")?);
    }
    let udp = Arc::new(udp::Shared::new(
        config.quic_affinity_lifetime,
        Arc::clone(&bans),
        kernel::offload(kernel.as_ref()),
        Arc::clone(&metrics),
        logs.access.clone(),
        started,
    ));
    let compiler = Compiler {
        targets: Arc::clone(&targets),
        resolver: resolver.clone(),
        tcp: Arc::clone(&tcp),
        udp: Arc::clone(&udp),
    };
    let compile = {
        let config = Arc::clone(&config);
        move || compiler.compile(&config)
    };
    let Some(compiled) = beside(compile, &mut signals).await? else { return Ok(()) };
    let Snapshots { sockets, tcp: snapshot, udp: udp_snapshot } = compiled?;
    tcp.snapshot.store(Arc::new(snapshot));
    let udp_snapshot = Arc::new(udp_snapshot);
    let checks = Checks::start(started);
    let subjects = checked::subjects(&tcp.snapshot.load(), &udp_snapshot);
    let for_checks = health::descriptors(&subjects);
    checks.set(subjects, checked::sources(&config));
    let fallen = checks.fallen();
    let count = worker_count(&config);
    let workers =
        worker::start(count, &tcp, &confinement.enter(Role::Tcp)).context("cannot start the worker threads")?;
    let runtime = tokio::runtime::Handle::current();
    let enter = confinement.enter(Role::Udp);
    let udp_workers = (0..count)
        .map(|index| {
            let enter = Arc::clone(&enter);
            udp::Worker::start(index, Arc::clone(&udp), Arc::clone(&udp_snapshot), runtime.clone(), move || enter())
        })
        .collect::<Result<_, _>>()
        .context("cannot start the UDP threads")?;
    let mut listeners = Listeners::new(workers, udp_workers, passed);
    let plan = listeners.plan(sockets)?;
    if !plan.unserved.is_empty() {
        bail!("{}", plan.unserved.join("; "));
    }
    let inherited = kernel::hand_out_inherited(kernel.as_ref(), &udp_snapshot, &listeners).await;
    // There are no connections yet.
    let open = net::open_files().unwrap_or(resources::TYPICAL);
    let predecessor = match predecessor {
        None => None,
        Some(predecessor) => {
            drop(timeout(FIRST_ANSWERS, udp_snapshot.resolved()).await);
            let Some(ready) = beside(move || predecessor.ready(), &mut signals).await? else { return Ok(()) };
            let (predecessor, handed) = ready.context("--take-over")?;
            listeners.take_over(handed);
            Some(predecessor)
        }
    };
    listeners.apply(plan);
    let other_files = open.saturating_sub(listeners.sockets());
    resources::divide_descriptors(&config, lowered, &tcp, (count, open.saturating_add(for_checks)));
    let socket = admin::bind(&config)?;
    let mut daemon = Daemon {
        options: options.clone(),
        started,
        binary: crate::admin::own_binary(),
        last_reload: None,
        config,
        confinement,
        udp_snapshot,
        resolver,
        targets,
        checks,
        metrics,
        access: logs.access.clone(),
        bans,
        tcp,
        udp,
        kernel,
        listeners,
        drained_listeners: DrainedListeners::default(),
        drained_targets: DrainedTargets::default(),
        other_files,
        metrics_server: None,
        requests,
        successors,
        page: None,
        page_members: None,
        page_server: None,
        admin_members: None,
        admin_server: None,
    };
    daemon.tell_kernel();
    daemon.start_inherited(inherited).await;
    daemon.tell_metrics();
    daemon.serve_metrics(scrape::bind(&daemon.config, None)?);
    daemon.serve_page(page::bind(&daemon.config, None)?);
    daemon.serve_admin(socket);
    daemon.confinement.ready();
    if let Some(predecessor) = predecessor {
        daemon.succeed(predecessor).await?;
    }
    tracing::info!("ready: {}", daemon.summary());
    notify.ready(&daemon.status_line());

    let mut watchdog = Watchdog::new(notify.watchdog());
    let mut now_and_then = tokio::time::interval(NOW_AND_THEN);
    let mut reloading = Reloading::default();
    let mut handing = Handing::default();
    let left = loop {
        tokio::select! {
            _ = now_and_then.tick() => {
                logs.access.withheld(daemon.config.access_log_format);
                notify.status(&daemon.status_line());
            }
            () = watchdog.due() => watchdog.look(&daemon.listeners, &notify),
            () = watch.changed() => {
                notify.reloading();
                reloading.begin(&daemon);
            }
            prepared = reloading.prepared() => {
                if let Some(files) = daemon.reload(prepared) {
                    watch.set_others(&files);
                }
                notify.ready(&daemon.status_line());
                reloading.go_on(&daemon);
            }
            Some(request) = asked.recv() => daemon.handle_command(request).await,
            Some(successor) = succeeding.recv() => handing.begin(successor, &daemon, &notify),
            ready = handing.ready() => {
                if daemon.hand_over(ready, &mut notify).await {
                    break true;
                }
            }
            () = fallen.notified() => daemon.listeners.tell_udp(|| udp::Control::Fallen),
            signal = signals.next() => match signal {
                Signal::Reload => {
                    logs.reopen();
                    notify.reloading();
                    reloading.begin(&daemon);
                }
                Signal::Reopen => logs.reopen(),
                Signal::Stop => break false,
            },
        }
    };
    daemon.metrics.set_readiness(Readiness::Draining);
    drop((asked, succeeding, handing));
    daemon.close_page().await;
    daemon.close_admin().await;
    drain(&mut daemon, &mut signals, logs, (&notify, &mut watchdog, left)).await;
    if let Some(kernel) = &daemon.kernel {
        kernel.leave();
    }
    daemon.listeners.stop();
    daemon.tcp.stop_splicing();
    logs.access.withheld(daemon.config.access_log_format);
    tracing::info!("stopped");
    Ok(())
}

/// The result of `work`, which is done beside the control thread; `None` when a signal came first that ends the daemon.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    signals: &mut Signals,
) -> Result<Option<T>> {
    let mut working = tokio::task::spawn_blocking(work);
    loop {
        tokio::select! {
            done = &mut working => return done.map(Some).context("internal error"),
            signal = signals.next() => match signal {
                // It reads the file anyhow, and the logs are new.
                Signal::Reload | Signal::Reopen => {}
                Signal::Stop => return Ok(None),
            },
        }
    }
}

/// Lets connections finish for `drain_timeout`; a second signal ends the wait. Where the daemon has `left` the rest to a
/// successor, for `upgrade_timeout`, and a first signal shortens that.
async fn drain(
    daemon: &mut Daemon,
    signals: &mut Signals,
    logs: &Logs,
    (notify, watchdog, left): (&Notify, &mut Watchdog, bool),
) {
    // A successor serves already: nobody waits for the end.
    let limit = if left { daemon.config.upgrade_timeout } else { daemon.config.drain_timeout };
    let mut deadline = tokio::time::Instant::now() + limit;
    let mut may_be_told_again = left;
    let closing = daemon.listeners.close_tcp();
    let active = Arc::clone(&daemon.tcp.active);
    tracing::info!("draining: {} connections, for {limit:?} at most", active.count());
    notify.stopping(&format_args!("draining: {} connections, for {limit:?} at most", active.count()));
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
            () = watchdog.due() => watchdog.look(&daemon.listeners, notify),
            signal = signals.next() => match signal {
                Signal::Reload | Signal::Reopen => logs.reopen(),
                Signal::Stop if std::mem::take(&mut may_be_told_again) => {
                    deadline = deadline.min(tokio::time::Instant::now() + daemon.config.drain_timeout);
                }
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
