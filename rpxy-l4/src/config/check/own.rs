//! Targets that lead back to the daemon, and sockets of its own that want one place.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{listeners::Draft, rules::Placed, targets};
use crate::config::{
    file::Table,
    model::{Config, Host, ListenAddress, Listener, Matcher, StatusListen, TlsMatcher, Transport, Upstream},
    report::{Position, Report, quote},
};

/// Symbolic links followed on the way to a file, as by the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// All that is listened on.
#[derive(Default)]
struct Own<'a> {
    /// By transport and port.
    addresses: HashMap<(Transport, u16), Vec<&'a ListenAddress>>,
    /// As [`resolved`].
    paths: HashSet<PathBuf>,
}

/// Refuses targets that are surely a listener of this daemon. Names, and addresses that only the machine knows to be its
/// own, are found when they are connected to.
pub(super) fn refuse(report: &mut Report<'_>, drafts: &[Draft<'_>], listeners: &[Listener], rules: &[Placed]) {
    let mut own = Own::default();
    own.paths
        .extend(listeners.iter().filter_map(|listener| listener.listen.unix.as_ref()).map(|unix| resolved(&unix.path)));
    for (transport, address, port) in listeners.iter().flat_map(Listener::sockets) {
        own.addresses.entry((transport, port.get())).or_default().push(address);
    }
    for ((draft, listener), rules) in drafts.iter().zip(listeners).zip(rules) {
        let defaults = [
            ("tcp_target", Transport::Tcp, &listener.tcp.default),
            ("udp_target", Transport::Udp, &listener.udp.default),
        ];
        for (key, transport, upstream) in defaults {
            if let (Some(field), Some(upstream)) = (draft.table.field(key), upstream) {
                own.refuse(report, &field.position, transport, upstream);
            }
        }
        for (position, rule) in rules {
            let transport = if rule.matcher.is_udp() { Transport::Udp } else { Transport::Tcp };
            own.refuse(report, position, transport, &rule.upstream);
            if let Matcher::Tls(TlsMatcher { ech: Some(ech), .. }) | Matcher::Quic(TlsMatcher { ech: Some(ech), .. }) =
                &rule.matcher
            {
                ech.private.iter().for_each(|private| own.refuse(report, position, transport, &private.upstream));
            }
        }
    }
}

impl Own<'_> {
    fn refuse(&self, report: &mut Report<'_>, position: &Position, transport: Transport, upstream: &Upstream) {
        targets::over(report, position, transport, upstream);
        for target in &upstream.targets {
            let is_own = match &target.host {
                Host::Unix(path) => self.paths.contains(&resolved(path)),
                Host::Srv(_) => false,
                Host::Ip { .. } | Host::LinkLocal { .. } | Host::Name(_) => {
                    target.literal().is_some_and(|address| self.has(transport, address))
                }
            };
            if is_own {
                report.error(position, format!("{target} is this daemon's own listener"));
            }
        }
    }

    fn has(&self, transport: Transport, target: SocketAddr) -> bool {
        let includes = |address: &&ListenAddress| address.includes(target.ip()).unwrap_or(target.ip().is_loopback());
        self.addresses.get(&(transport, target.port())).is_some_and(|addresses| addresses.iter().any(includes))
    }
}

/// Refuses a metrics endpoint, status page or admin socket where a listener is: the second of them could not be bound.
pub(super) fn refuse_shared(report: &mut Report<'_>, root: &Table<'_>, config: &Config) {
    let status = config.status.as_ref().map(|status| &status.listen);
    let page = match status {
        Some(StatusListen::Ip(address)) => Some(*address),
        Some(StatusListen::Unix(_)) | None => None,
    };
    for (key, address) in [("metrics_listen", config.metrics_listen), ("status_listen", page)] {
        let (Some(field), Some(address)) = (root.field(key), address) else { continue };
        let takes = |listener: &&Listener| {
            listener.sockets().any(|(transport, own, port)| {
                let all = address.ip().is_unspecified() && matches!(own, ListenAddress::V4(_)) == address.is_ipv4();
                transport == Transport::Tcp
                    && port.get() == address.port()
                    && (all || own.includes(address.ip()) != Some(false))
            })
        };
        if let Some(listener) = config.listeners().find(takes) {
            let message = format!("{address} belongs to the listener {} already", quote(&listener.name));
            report.error_with(&field.position, message, "give it another port");
        }
    }
    let page = match status {
        Some(StatusListen::Unix(path)) => Some(path),
        Some(StatusListen::Ip(_)) | None => None,
    };
    for (key, path) in [("admin_socket", config.admin_socket.as_ref()), ("status_listen", page)] {
        let (Some(field), Some(path)) = (root.field(key), path) else { continue };
        let place = resolved(path);
        let takes =
            |listener: &&Listener| listener.listen.unix.as_ref().is_some_and(|unix| resolved(&unix.path) == place);
        if let Some(listener) = config.listeners().find(takes) {
            let message = format!("{} belongs to the listener {} already", path.display(), quote(&listener.name));
            report.error_with(&field.position, message, "give it another path");
        }
    }
}

/// The path by which everybody who spells it differently comes to the same file: without links and `..`, though the file
/// may not be there yet.
fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(link) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(link);
    }
    let directory = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (directory, path.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        (Some(_) | None, _) => path,
    }
}
