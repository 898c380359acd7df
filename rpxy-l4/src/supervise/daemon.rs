//! The running daemon as the supervisor holds it. What it does on a command, on a reload and with the kernel plane is
//! in the modules of those names.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{Options, drained::DrainedTargets, listeners::Listeners};
use crate::{
    admin::{Request, Successor},
    config::{
        Severity,
        model::{Config, TOP, Transport},
    },
    confine::Confinement,
    health::Checks,
    limit::{Bans, DrainedListeners},
    log::AccessLog,
    metrics::{Metrics, Reload},
    net::{Address, unix::Members},
    offload::Kernel,
    resolve::Resolver,
    route::Targets,
    status_page::Page,
    tcp, udp,
};

/// Longest wait for the first answers of the DNS about new names, before their configuration takes effect without them.
pub(super) const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// Health of targets by transport: a host may answer on a TCP port and not on the UDP port of the same number.
#[derive(Debug)]
pub(super) struct KnownTargets {
    pub(super) tcp: Targets,
    pub(super) udp: Targets,
}

impl KnownTargets {
    /// None yet; what they carry is told to `metrics`.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { tcp: Targets::new(metrics.tcp_accounts()), udp: Targets::new(metrics.udp_accounts()) }
    }

    /// Those of `transport`.
    pub(super) fn of(&self, transport: Transport) -> &Targets {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Udp => &self.udp,
        }
    }
}

/// The latest reload, as `status` tells it.
#[derive(Debug)]
pub(super) struct LastReload {
    pub(super) result: Reload,
    pub(super) when: SystemTime,
    /// Why it was refused, the worst first.
    pub(super) problems: Vec<(Severity, String)>,
}

#[derive(Debug)]
pub(super) struct Daemon {
    /// What the command line asks for.
    pub(super) options: Options,
    pub(super) started: Instant,
    /// Device and inode of the program that runs; another one may be at its path.
    pub(super) binary: Option<String>,
    /// The latest reload.
    pub(super) last_reload: Option<LastReload>,
    /// The configuration in effect.
    pub(super) config: Arc<Config>,
    /// What the process has given up.
    pub(super) confinement: Confinement,
    /// What UDP workers go by.
    pub(super) udp_snapshot: Arc<udp::Snapshot>,
    pub(super) resolver: Resolver,
    pub(super) targets: Arc<KnownTargets>,
    /// What asks targets whether they live.
    pub(super) checks: Checks,
    pub(super) metrics: Arc<Metrics>,
    /// It keeps the latest refusals.
    pub(super) access: AccessLog,
    pub(super) bans: Arc<Bans>,
    pub(super) tcp: Arc<tcp::Shared>,
    pub(super) udp: Arc<udp::Shared>,
    pub(super) kernel: Option<Arc<Kernel>>,
    pub(super) listeners: Listeners,
    /// Where no new connections and sessions are let in.
    pub(super) drained_listeners: DrainedListeners,
    pub(super) drained_targets: DrainedTargets,
    /// Open files but for listening sockets, connections and sessions.
    pub(super) other_files: u64,
    /// The task of the metrics endpoint.
    pub(super) metrics_server: Option<JoinHandle<()>>,
    /// The end at which the admin server puts requests.
    pub(super) requests: mpsc::Sender<Request>,
    /// The end at which it puts processes that want to succeed this one.
    pub(super) successors: mpsc::Sender<Successor>,
    /// The status page, if there is one.
    pub(super) page: Option<Arc<Page>>,
    /// Who else gets into its unix socket.
    pub(super) page_members: Option<Arc<Members>>,
    /// The task of its server.
    pub(super) page_server: Option<JoinHandle<()>>,
    /// Who else gets into the admin socket.
    pub(super) admin_members: Option<Arc<Members>>,
    /// The task of the admin server.
    pub(super) admin_server: Option<JoinHandle<()>>,
}

impl Daemon {
    /// One line for the log: listening addresses, UDP sessions allowed, number of rules and workers.
    pub(super) fn summary(&self) -> String {
        let several = !self.config.named.is_empty();
        let [tcp, udp] = [Transport::Tcp, Transport::Udp].map(|transport| {
            let named = |(address, name): (&Address, &str)| {
                if several && name != TOP { format!("{address} ({name})") } else { address.to_string() }
            };
            let addresses: Vec<String> = self.listeners.addresses(transport).map(named).collect();
            match addresses.as_slice() {
                [] => format!("no {transport}"),
                some => format!("{transport} on {}", some.join(", ")),
            }
        });
        let sessions = if self.listeners.addresses(Transport::Udp).next().is_some() {
            format!(" ({} sessions)", self.config.udp_sessions())
        } else {
            String::new()
        };
        format!("{tcp}; {udp}{sessions}; {} rules, {} workers", self.config.rules, self.listeners.workers())
    }

    /// One line for the service manager: load, and the latest reload where it was refused.
    pub(super) fn status_line(&self) -> String {
        let connections = self.tcp.active.count();
        let sessions: u32 = self.udp.active.all().iter().map(|limit| limit.count()).sum();
        let drained = if self.all_drained() { "; the listeners are drained" } else { "" };
        let refused = self.last_reload.as_ref().and_then(|last| last.problems.first());
        let refused = refused.map_or(String::new(), |(_, text)| format!("; the file is not what runs: {text}"));
        format!("{connections} TCP connections, {sessions} UDP sessions{drained}{refused}")
    }
}
