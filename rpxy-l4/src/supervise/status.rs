//! The answer to `status`: what an operator asks first, in one line.

use std::{path::Path, sync::Arc};

use serde::Serialize;

use super::daemon::Daemon;
use crate::{
    config::model::Transport,
    overview::{Drained, KernelPlane, Listener, Reload},
    route::DownTarget,
};

/// The answer to `status`, in one line.
#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    pid: u32,
    /// Device and inode of the program that runs.
    binary: Option<&'a str>,
    uptime_s: u64,
    config: &'a Path,
    /// Directory of the log files; none where it logs to the standard output.
    log_dir: Option<&'a Path>,
    /// The command line asks for lines in JSON.
    log_json: bool,
    rules: usize,
    last_reload: Option<Reload>,
    workers: usize,
    tcp: Load,
    udp: Load,
    listeners: Vec<Listener>,
    /// Datagrams for which sockets had no room.
    udp_kernel_drops: u64,
    kernel_plane: KernelPlane,
    targets_down: Vec<Down>,
    drained: Drained,
    bans: usize,
}

#[derive(Debug, Serialize)]
struct Load {
    listen: Vec<String>,
    active: u32,
    max: u64,
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

impl Daemon {
    /// The state and load of the daemon.
    pub(super) fn status(&self) -> Status<'_> {
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
            config: &self.options.config,
            log_dir: self.options.log_dir.as_deref(),
            log_json: self.options.form.is_asked_for(),
            rules: self.config.rules,
            last_reload: self.last_reload.as_ref().map(Reload::from),
            workers: self.listeners.workers(),
            tcp: Load {
                listen: self.addresses(Transport::Tcp, None),
                active: self.tcp.active.count(),
                max: self.config.tcp_connections(),
            },
            udp: Load {
                listen: self.addresses(Transport::Udp, None),
                active: self.sessions(),
                max: self.config.udp_sessions(),
            },
            listeners: self.listener_lines(),
            udp_kernel_drops: self.metrics.udp().lost(),
            kernel_plane: self.kernel_plane(),
            targets_down: tcp_down.chain(down("udp", self.targets.udp.down(uptime))).collect(),
            drained: self.drained(),
            bans: self.bans.count(),
        }
    }
}
