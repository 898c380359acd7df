//! Following the configuration file: whole or not at all.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    admin, kernel,
    listeners::{self, Listeners, Served, Transport},
};
use crate::{
    admin::Request,
    config::{self, LoadError, Loaded, model::Config, watch::Seen},
    limit::Bans,
    metrics::{self, Metrics, Reload},
    net,
    offload::Kernel,
    resolve::Resolver,
    route::Targets,
    tcp, udp,
};

/// Scrapers are few.
const METRICS_BACKLOG: u32 = 16;
/// How long a reload waits for the addresses of names that are new.
pub(super) const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// What is known of targets. A host may answer on a TCP port and not on the UDP port of the same number.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) tcp: Targets,
    pub(super) udp: Targets,
}

/// The running daemon as the supervisor holds it.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) path: std::path::PathBuf,
    pub(super) started: Instant,
    pub(super) config: Config,
    pub(super) resolver: Resolver,
    pub(super) targets: Known,
    pub(super) metrics: Arc<Metrics>,
    pub(super) bans: Arc<Bans>,
    pub(super) shared: Arc<tcp::Shared>,
    pub(super) udp: Arc<udp::Shared>,
    pub(super) kernel: Option<Arc<Kernel>>,
    pub(super) listeners: Listeners,
    pub(super) scrape: Option<JoinHandle<()>>,
    /// Where the admin socket's server puts what is asked.
    pub(super) requests: mpsc::Sender<Request>,
    /// That server.
    pub(super) admin: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Reads the file again and takes it over if it is valid and its ports can be had. Returns the other files that had a
    /// part in it, whatever came of it: a change of one of them may mend a bad file.
    pub(super) async fn reload(&mut self) -> Vec<Seen> {
        let loaded = config::load(&self.path);
        let files = loaded.as_ref().map_or_else(LoadError::files, |loaded| &loaded.files).to_vec();
        let result = self.adopt_config(loaded).await;
        let path = self.path.display();
        match result {
            Ok(Reload::Unchanged) => tracing::info!("configuration unchanged in {path}"),
            Ok(_) => tracing::info!("configuration reloaded from {path}: {}", self.summary()),
            Err(ref error) => tracing::error!("configuration not reloaded, the old one stays: {error:#}"),
        }
        self.metrics.reloaded(result.unwrap_or(Reload::Refused));
        files
    }

    async fn adopt_config(&mut self, loaded: Result<Loaded, LoadError>) -> Result<Reload> {
        let Loaded { config, warnings, .. } = loaded?;
        for warning in &warnings {
            tracing::warn!("{}", warning.in_file(&self.path));
        }
        if config == self.config {
            return Ok(Reload::Unchanged);
        }
        let snapshot = tcp::Snapshot::new(&config, &self.targets.tcp, &self.resolver);
        let udp_snapshot = udp::Snapshot::new(&config, &self.targets.udp, &self.resolver);
        let answers = async { tokio::join!(snapshot.resolved(), udp_snapshot.resolved()) };
        drop(timeout(FIRST_ANSWERS, answers).await);
        let scrape = if config.metrics_listen == self.config.metrics_listen {
            None
        } else {
            let ours = self.config.metrics_listen.map(|held| held.port());
            Some(bind_metrics(&config, ours)?)
        };
        let socket = if config.admin_socket == self.config.admin_socket { None } else { Some(admin::bind(&config)?) };
        // Last, and without a pause until they are taken over: these sockets get connections from now on.
        let served = Served { tcp: snapshot.has_destination(), udp: udp_snapshot.has_destination() };
        let wanted = listeners::wanted(&config, served)?;
        let plan = self.listeners.plan(&wanted, config.listen.reuse_port)?;

        // Nothing below can fail.
        if config.workers != self.config.workers {
            tracing::warn!("workers: the change takes effect when the daemon is started again");
        }
        kernel::warn_of_what_waits(&self.config, &config);
        super::warn_of_few_resources(&config);
        self.resolver.set_bounds(config.dns);
        self.shared.snapshot.store(Arc::new(snapshot));
        self.udp.affinity.set_linger(udp_snapshot.affinity_lifetime());
        let udp_snapshot = Arc::new(udp_snapshot);
        self.listeners.tell_udp(|| udp::Control::Snapshot(Arc::clone(&udp_snapshot)));
        self.listeners.apply(plan);
        self.config = config;
        self.adopt_bans();
        self.tell_kernel();
        if let Some(listener) = scrape {
            self.scrape(listener);
        }
        if let Some(listener) = socket {
            self.serve_admin(listener);
        }
        Ok(Reload::Applied)
    }

    /// Starts the metrics endpoint, if the configuration has one.
    pub(super) fn serve_metrics(&mut self) -> Result<()> {
        let listener = bind_metrics(&self.config, None)?;
        self.scrape(listener);
        Ok(())
    }

    fn scrape(&mut self, listener: Option<TcpListener>) {
        if let Some(old) = self.scrape.take() {
            old.abort();
        }
        self.scrape = listener.map(|listener| tokio::spawn(metrics::serve(listener, Arc::clone(&self.metrics))));
    }

    /// Where the daemon listens, for the log.
    pub(super) fn summary(&self) -> String {
        let [tcp, udp] = [Transport::Tcp, Transport::Udp].map(|transport| {
            let addresses: Vec<String> = self.listeners.addresses(transport).map(ToString::to_string).collect();
            match addresses.as_slice() {
                [] => format!("no {transport}"),
                some => format!("{transport} on {}", some.join(", ")),
            }
        });
        format!("{tcp}; {udp}; {} rules, {} workers", self.config.rules.len(), self.listeners.workers())
    }
}

/// Binds the metrics endpoint. `ours` is the port that it has now: a wildcard and a single address of one port overlap.
fn bind_metrics(config: &Config, ours: Option<u16>) -> Result<Option<TcpListener>> {
    let Some(address) = config.metrics_listen else { return Ok(None) };
    let bind = || {
        if ours != Some(address.port()) {
            net::tcp_port_is_free(address)?;
        }
        TcpListener::from_std(net::tcp_listener(address, METRICS_BACKLOG)?)
    };
    bind().map(Some).with_context(|| format!("metrics_listen: cannot listen on {address}"))
}
