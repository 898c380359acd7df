//! Reload: a changed configuration takes effect as a whole or not at all.
//!
//! Reading, checking and compiling a file takes as long as the file is large, and names may have to be looked up. All of
//! that is done beside the control thread, which goes on to answer; it only carries out the change.

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use super::{
    Options, admin, checked,
    daemon::{Daemon, FIRST_ANSWERS, KnownTargets, LastReload},
    kernel, page, resources, say_each, scrape,
    sockets::Sockets,
};
use crate::{
    config::{self, LoadError, Loaded, Problem, Severity, model::Config, watch::Seen},
    health,
    metrics::Reload,
    resolve::Resolver,
    tcp, udp,
};

/// Problems that `status` tells.
const MOST_TOLD: usize = 10;
/// Time after which no worker works with the snapshots of before.
const OUT_OF_USE: Duration = Duration::from_secs(1);

/// The reload that is being prepared, if any.
#[derive(Debug, Default)]
pub(super) struct Reloading {
    task: Option<JoinHandle<Prepared>>,
    /// The file may have changed since.
    again: bool,
}

/// A file that was read again.
#[derive(Debug)]
pub(super) struct Prepared {
    loaded: Result<Compiled, LoadError>,
    /// Files that it names, also if it is wrong: a change of one of them may mend it.
    pub(super) files: Vec<Seen>,
}

/// A configuration that can take effect.
#[derive(Debug)]
struct Compiled {
    config: Config,
    /// `udp_max_connections` where that was more than fits.
    lowered: Option<NonZeroU32>,
    warnings: Vec<Problem>,
    /// `None` if the configuration is the one in effect.
    snapshots: Option<Result<Snapshots>>,
}

/// What workers go by, and the sockets that they are for.
#[derive(Debug)]
pub(super) struct Snapshots {
    pub(super) sockets: Sockets,
    pub(super) tcp: tcp::Snapshot,
    pub(super) udp: udp::Snapshot,
}

/// What a configuration is compiled with: state that outlives it.
#[derive(Debug)]
pub(super) struct Compiler {
    pub(super) targets: Arc<KnownTargets>,
    pub(super) resolver: Resolver,
    pub(super) tcp: Arc<tcp::Shared>,
    pub(super) udp: Arc<udp::Shared>,
}

impl Compiler {
    /// Compiles `config`. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// There are no such sockets.
    pub(super) fn compile(&self, config: &Config) -> Result<Snapshots> {
        let Self { targets, resolver, tcp, udp } = self;
        let sockets = Sockets::new(config)?;
        Ok(Snapshots {
            tcp: tcp::Snapshot::new(config, &sockets.tcp(), tcp, &targets.tcp, resolver),
            udp: udp::Snapshot::new(config, &sockets.udp(), &udp.active, &targets.udp, resolver),
            sockets,
        })
    }
}

impl Snapshots {
    /// Waits for the first answers about new names, but not for long.
    async fn resolved(&self) {
        let answers = async { tokio::join!(self.tcp.resolved(), self.udp.resolved()) };
        drop(timeout(FIRST_ANSWERS, answers).await);
    }
}

impl Reloading {
    /// Begins to read the file of `daemon` again, or notes that it has to be read once more.
    pub(super) fn begin(&mut self, daemon: &Daemon) {
        if self.task.is_some() {
            self.again = true;
            return;
        }
        let (options, current) = (daemon.options.clone(), Arc::clone(&daemon.config));
        let compiler = Compiler {
            targets: Arc::clone(&daemon.targets),
            resolver: daemon.resolver.clone(),
            tcp: Arc::clone(&daemon.tcp),
            udp: Arc::clone(&daemon.udp),
        };
        self.task = Some(tokio::spawn(async move {
            let prepared = spawn_blocking(move || prepare(&options, &current, &compiler)).await;
            let prepared = prepared.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            if let Ok(Compiled { snapshots: Some(Ok(snapshots)), .. }) = &prepared.loaded {
                snapshots.resolved().await;
            }
            prepared
        }));
    }

    /// The configuration that was being prepared, once it is; never where none is. Cancel-safe.
    pub(super) async fn prepared(&mut self) -> Result<Prepared> {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let prepared = task.await;
        self.task = None;
        prepared.context("internal error")
    }

    /// Begins again if the file may have changed meanwhile.
    pub(super) fn go_on(&mut self, daemon: &Daemon) {
        if std::mem::take(&mut self.again) {
            self.begin(daemon);
        }
    }
}

fn prepare(options: &Options, current: &Config, compiler: &Compiler) -> Prepared {
    let loaded = config::load(&options.config);
    let files = loaded.as_ref().map_or_else(LoadError::files, |loaded| &loaded.files).to_vec();
    let loaded = loaded.map(|Loaded { mut config, warnings, .. }| {
        options.fill_in(&mut config);
        let lowered = resources::fill_in(&mut config);
        let snapshots = (config != *current).then(|| compiler.compile(&config));
        Compiled { config, lowered, warnings, snapshots }
    });
    Prepared { loaded, files }
}

impl Daemon {
    /// Applies what was read if it is valid and its sockets can be bound. Returns the files that it names.
    pub(super) fn reload(&mut self, prepared: Result<Prepared>) -> Option<Vec<Seen>> {
        let (result, files) = match prepared {
            Ok(Prepared { loaded, files }) => (loaded.map_err(Into::into).and_then(|new| self.apply(new)), Some(files)),
            Err(error) => (Err(error), None),
        };
        let path = self.options.config.display();
        let (result, mut problems) = match result {
            Ok(result) => (result, Vec::new()),
            Err(error) => (Reload::Refused, config::told_apart(&error)),
        };
        if result == Reload::Refused {
            problems.extend(self.out_of_reach(files.as_deref().unwrap_or_default()));
        }
        match result {
            Reload::Unchanged => tracing::info!("configuration unchanged in {path}"),
            Reload::Applied => tracing::info!("configuration reloaded from {path}: {}", self.summary()),
            Reload::Refused => say_each(
                "configuration not reloaded, the previous one stays in effect: ",
                "configuration not reloaded: ",
                problems.clone(),
            ),
        }
        self.metrics.reloaded(result);
        problems.truncate(MOST_TOLD);
        self.last_reload = Some(LastReload { result, when: SystemTime::now(), problems });
        files
    }

    /// What of the files of a refused configuration cannot be read, by the daemon's own choice.
    fn out_of_reach(&self, files: &[Seen]) -> Vec<(Severity, String)> {
        let line = |path: PathBuf| {
            let path = path.display();
            let text = format!("{path}: the daemon confined itself to other directories (Landlock); start it again");
            (Severity::Error, text)
        };
        let all: Vec<Seen> = files.iter().cloned().chain([Seen::now(&self.options.config)]).collect();
        self.confinement.unreadable(&all).into_iter().map(line).collect()
    }

    fn apply(&mut self, new: Compiled) -> Result<Reload> {
        let Compiled { config, lowered, warnings, snapshots } = new;
        for warning in &warnings {
            tracing::warn!("{}", warning.in_file(&self.options.config));
        }
        let Some(snapshots) = snapshots else { return Ok(Reload::Unchanged) };
        let Snapshots { sockets, tcp: snapshot, udp: udp_snapshot } = snapshots?;
        let metrics = if config.metrics_listen == self.config.metrics_listen {
            None
        } else {
            let ours = self.config.metrics_listen.map(|held| held.port());
            Some(scrape::bind(&config, ours)?)
        };
        if let Some(path) = self.confinement.without_socket(&config).first() {
            bail!(
                "cannot listen on {}: the daemon confined itself to other directories (Landlock); start it again",
                path.display()
            );
        }
        let socket = if config.admin_socket == self.config.admin_socket { None } else { Some(admin::bind(&config)?) };
        let page =
            if page::moves(&self.config, &config) { Some(page::bind(&config, Some(&self.config))?) } else { None };
        admin::give(&config, &self.config)?;
        let subjects = checked::subjects(&snapshot, &udp_snapshot);
        // Last, and without a pause until they are served: these sockets get connections from now on.
        let plan = self.listeners.plan(sockets);
        let plan = plan.inspect_err(|_| drop(admin::give(&self.config, &config)))?;

        // Nothing below can fail.
        for socket in &plan.unserved {
            tracing::warn!("{socket}: clients that come there wait until it is served again");
        }
        if config.workers != self.config.workers {
            tracing::warn!("workers: the change takes effect when the daemon is started again");
        }
        kernel::warn_of_postponed(&self.config, &config);
        self.confinement.reloaded(&config);
        resources::warn_of_limits(&config);
        self.options.form.follow(config.access_log_format);
        self.resolver.set_bounds(config.dns);
        let old_tcp = self.tcp.replace(snapshot);
        self.udp.affinity.set_linger(config.quic_affinity_lifetime);
        let old_udp = std::mem::replace(&mut self.udp_snapshot, Arc::new(udp_snapshot));
        self.listeners.tell_udp(|| udp::Control::Snapshot(Arc::clone(&self.udp_snapshot)));
        self.listeners.apply(plan);
        let for_checks = health::descriptors(&subjects);
        self.checks.set(subjects, checked::sources(&config));
        let open = self.other_files.saturating_add(self.listeners.sockets()).saturating_add(for_checks);
        resources::divide_descriptors(&config, lowered, &self.tcp, (self.listeners.workers(), open));
        let old = std::mem::replace(&mut self.config, Arc::new(config));
        drop_later((old, old_tcp, old_udp));
        self.apply_bans();
        self.tell_kernel();
        self.tell_metrics();
        if let Some(listener) = metrics {
            self.serve_metrics(listener);
        }
        match page {
            Some(listener) => self.serve_page(listener),
            None => self.tell_page(),
        }
        if let Some(listener) = socket {
            self.serve_admin(listener);
        } else if let Some(members) = &self.admin_members {
            members.set(self.config.admin_group);
        }
        self.say_drained();
        Ok(Reload::Applied)
    }
}

/// Drops what may be large once no worker has it any more, so that none has to do it.
fn drop_later(old: impl Send + 'static) {
    tokio::spawn(async move {
        sleep(OUT_OF_USE).await;
        spawn_blocking(move || drop(old));
    });
}
