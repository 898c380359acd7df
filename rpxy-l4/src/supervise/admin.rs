//! Carries out what comes through the admin socket.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde::Serialize;

use super::{
    daemon::{Daemon, LastReload},
    maintenance::Drained,
};
use crate::{
    admin::{self, Answer, Command, ListenerArgs, Request},
    config::model::{Config, Transport},
    limit::{self, BanSource, Unban},
    net::unix::{self, PrivateListener},
    offload::Kernel,
    route::DownTarget,
    udp::Control,
};

/// The answer to `status`, in one line.
#[derive(Debug, Serialize)]
struct Status<'a> {
    version: &'static str,
    pid: u32,
    /// Device and inode of the program that runs.
    binary: Option<&'a str>,
    uptime_s: u64,
    config: &'a Path,
    rules: usize,
    last_reload: Option<ReloadStatus<'a>>,
    workers: usize,
    tcp: Load,
    udp: Load,
    listeners: Vec<ListenerStatus<'a>>,
    /// Datagrams for which sockets had no room.
    udp_kernel_drops: u64,
    kernel_plane: KernelStatus,
    targets_down: Vec<Down>,
    drained: Drained,
    bans: usize,
}

#[derive(Debug, Serialize)]
struct ReloadStatus<'a> {
    result: &'static str,
    time: String,
    age_s: u64,
    /// Why it was refused, the worst first.
    problems: Vec<&'a str>,
}

impl<'a> From<&'a LastReload> for ReloadStatus<'a> {
    fn from(LastReload { result, when, problems }: &'a LastReload) -> Self {
        Self {
            result: result.name(),
            time: humantime::format_rfc3339_seconds(*when).to_string(),
            age_s: when.elapsed().unwrap_or_default().as_secs(),
            problems: problems.iter().map(|(_, text)| text.as_str()).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Load {
    listen: Vec<String>,
    active: u32,
    max: u64,
}

/// A listener, and where it serves.
#[derive(Debug, Serialize)]
struct ListenerStatus<'a> {
    name: &'a str,
    tcp: Vec<String>,
    udp: Vec<String>,
    rules: usize,
}

#[derive(Debug, Serialize)]
struct KernelStatus {
    state: &'static str,
    reason: Option<&'static str>,
    /// Interfaces with a program, each with its hook.
    interfaces: Vec<String>,
    /// Sessions that are steered, and how many may be; `null` when it is off.
    flows: Option<usize>,
    max_flows: Option<usize>,
    /// Packets by outcome.
    counters: BTreeMap<&'static str, u64>,
}

impl KernelStatus {
    fn of(kernel: Option<&Kernel>) -> Self {
        let Some(kernel) = kernel else {
            let reason = Some("[ebpf] is off, or could not be started: see the log");
            let (interfaces, counters) = (Vec::new(), BTreeMap::new());
            return Self { state: "off", reason, interfaces, flows: None, max_flows: None, counters };
        };
        let interfaces = kernel.attachments().into_iter().map(|(name, hook)| format!("{name} ({hook})")).collect();
        let counted = kernel.counters().into_iter().filter(|(_, count)| *count > 0);
        let counters = counted.map(|(counter, count)| (counter.name(), count)).collect();
        let (flows, max_flows) = (Some(kernel.flows()), Some(kernel.max_flows()));
        Self { state: kernel.hook(), reason: None, interfaces, flows, max_flows, counters }
    }
}

#[derive(Debug, Serialize)]
struct Down {
    transport: &'static str,
    target: String,
    active: u32,
    /// The check that has found it; none where connections have.
    check: Option<Arc<str>>,
    /// What the check has met.
    reason: Option<Arc<str>>,
}

/// One line of `ban`, `unban` and `bans`.
#[derive(Debug, Serialize)]
struct Ban {
    network: String,
    banned: bool,
    source: Option<&'static str>,
}

/// Opens the admin socket, if the configuration has one.
pub(super) fn bind(config: &Config) -> Result<Option<PrivateListener>> {
    let Some(path) = &config.admin_socket else { return Ok(None) };
    let bound = PrivateListener::bind(path, config.admin_group).map_err(|error| match error {
        unix::BindError::Listen(error) => explain(error).context("admin_socket"),
        unix::BindError::Group(error) => explain_group(error),
    });
    bound.map(Some).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Gives the admin socket, which stays where it is, to the group of `config`, if that is another one than before.
pub(super) fn give(config: &Config, before: &Config) -> Result<()> {
    match &config.admin_socket {
        Some(path) if before.admin_socket == config.admin_socket && before.admin_group != config.admin_group => {
            unix::give_to(path, config.admin_group).map_err(explain_group)
        }
        Some(_) | None => Ok(()),
    }
}

fn explain_group(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error)
        .context("admin_group: cannot give the socket to the group; the daemon's user must be one of its members")
}

fn explain(error: io::Error) -> anyhow::Error {
    let remedies = [
        (io::ErrorKind::NotFound, "its directory does not exist; create it"),
        (io::ErrorKind::PermissionDenied, "permission denied; choose a directory that the daemon's user owns"),
    ];
    let Some((_, remedy)) = remedies.into_iter().find(|(kind, _)| *kind == error.kind()) else { return error.into() };
    anyhow::Error::new(error).context(remedy)
}

impl Daemon {
    /// Carries out one command. What takes time goes on in a task.
    pub(super) async fn handle_command(&mut self, request: Request) {
        let Request { command, answer } = request;
        let done = match command {
            Command::Status {} => Answer::one(&self.status()),
            Command::Flows(list) => return self.flows(&list, answer),
            Command::Connections(list) => return self.connections(&list, answer),
            Command::Close { id } => return self.close(id, answer),
            Command::Targets {} => self.target_lines(),
            Command::Drain(args) => self.drain_target(&args),
            Command::Up(args) => self.up_target(&args),
            Command::DrainListeners(ListenerArgs { listener }) => self.drain_listeners(listener.as_deref()),
            Command::UpListeners(ListenerArgs { listener }) => self.up_listeners(listener.as_deref()).await,
            // The server has passed it on elsewhere.
            Command::HandOver { .. } => return,
            Command::Ban { network } => self.ban(network),
            Command::Unban { network } => self.unban(network),
            Command::Bans {} => Answer::lines(self.bans.list().into_iter().map(|(network, source)| Ban {
                network: network.to_string(),
                banned: true,
                source: Some(source.name()),
            })),
        };
        // The client may have left.
        drop(answer.send(done));
    }

    /// Serves the admin socket from now on, or no more.
    pub(super) fn serve_admin(&mut self, listener: Option<PrivateListener>) {
        if let Some(old) = self.admin_server.take() {
            old.abort();
        }
        self.admin_members = listener.as_ref().map(|listener| Arc::clone(listener.members()));
        self.admin_server = listener
            .map(|listener| tokio::spawn(admin::serve(listener, self.requests.clone(), self.successors.clone())));
    }

    /// Closes the admin socket and removes its file, so that a successor can have the path.
    pub(super) async fn close_admin(&mut self) {
        if let Some(serving) = self.admin_server.take() {
            serving.abort();
            // An aborted task lets go of the listener only when it has been dropped.
            drop(serving.await);
        }
    }

    fn status(&self) -> Status<'_> {
        let listen = |transport, of: Option<&str>| {
            let sockets = self.listeners.addresses(transport);
            let sockets = sockets.filter(|(_, name)| of.is_none_or(|of| of == *name));
            sockets.map(|(address, _)| address.to_string()).collect::<Vec<String>>()
        };
        let uptime = self.started.elapsed();
        let down = |transport, targets: Vec<DownTarget>| {
            let line =
                move |DownTarget { target, active, check, reason }| Down { transport, target, active, check, reason };
            targets.into_iter().map(line)
        };
        let tcp_down = down("tcp", self.targets.tcp.down(uptime));
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            binary: self.binary.as_deref(),
            uptime_s: uptime.as_secs(),
            config: &self.path,
            rules: self.config.rules,
            last_reload: self.last_reload.as_ref().map(ReloadStatus::from),
            workers: self.listeners.workers(),
            tcp: Load {
                listen: listen(Transport::Tcp, None),
                active: self.tcp.active.count(),
                max: self.config.tcp_connections(),
            },
            udp: Load {
                listen: listen(Transport::Udp, None),
                active: self.udp.active.all().iter().map(|limit| limit.count()).sum(),
                max: self.config.udp_sessions(),
            },
            listeners: self
                .config
                .listeners()
                .map(|listener| ListenerStatus {
                    name: &listener.name,
                    tcp: listen(Transport::Tcp, Some(&listener.name)),
                    udp: listen(Transport::Udp, Some(&listener.name)),
                    rules: listener.rules.len(),
                })
                .collect(),
            udp_kernel_drops: self.metrics.udp().lost(),
            kernel_plane: KernelStatus::of(self.kernel.as_deref()),
            targets_down: tcp_down.chain(down("udp", self.targets.udp.down(uptime))).collect(),
            drained: self.drained(),
            bans: self.bans.count(),
        }
    }

    fn ban(&self, network: IpNet) -> Answer {
        match self.bans.ban(network) {
            Ok(new) => {
                if new {
                    tracing::info!("banned by command: {network}");
                    self.ban_changed(network);
                }
                Answer::one(&Ban { network: network.to_string(), banned: true, source: Some("command") })
            }
            Err(error) => Answer::refused(error.to_string(), "lift some, or ban larger networks"),
        }
    }

    fn unban(&self, network: IpNet) -> Answer {
        let lifted = self.bans.unban(network);
        if matches!(lifted, Unban::Lifted | Unban::Covered(..)) {
            tracing::info!("unbanned by command: {network}");
            self.ban_changed(network);
        }
        let network = network.to_string();
        match lifted {
            Unban::Lifted => Answer::one(&Ban { network, banned: false, source: None }),
            // Done as asked, and yet without effect so far.
            Unban::Covered(_, source) => Answer::one(&Ban { network, banned: true, source: Some(source.name()) }),
            Unban::NotByCommand(around, source) => Answer::refused(
                format!("{network} is banned by {around}, which the {} asks for", source.name()),
                match source {
                    BanSource::Configuration => format!("take {around} out of the configuration file"),
                    BanSource::Command => format!("unban {around}"),
                },
            ),
            Unban::NotBanned => Answer::refused(format!("{network} is not banned"), "`rpxy-l4 bans` lists what is"),
        }
    }

    /// Applies the ban of one network, or that it was lifted, whatever number of others there is.
    fn ban_changed(&self, network: IpNet) {
        self.listeners.tell_udp(|| Control::Bans);
        if let Some(kernel) = &self.kernel {
            kernel.set_ban(limit::canonical(network), self.bans.lists(network));
        }
    }
}
