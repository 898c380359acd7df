//! Targets that lead back to the daemon.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
};

use super::{listeners::Draft, rules::Placed, targets};
use crate::config::{
    model::{Host, ListenAddress, Listener, Matcher, TlsMatcher, Transport, Upstream},
    report::{Position, Report},
};

/// All that is listened on.
#[derive(Default)]
struct Own<'a> {
    /// By transport and port.
    addresses: HashMap<(Transport, u16), Vec<&'a ListenAddress>>,
    paths: HashSet<&'a Path>,
}

/// Refuses targets that are surely a listener of this daemon. Names, and addresses that only the machine knows to be its
/// own, are found when they are connected to.
pub(super) fn refuse(report: &mut Report<'_>, drafts: &[Draft<'_>], listeners: &[Listener], rules: &[Placed]) {
    let mut own = Own::default();
    own.paths.extend(listeners.iter().filter_map(|listener| listener.listen.unix.as_ref()).map(|unix| &*unix.path));
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
                Host::Unix(path) => self.paths.contains(&**path),
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
