//! Targets that lead back to the daemon.

use std::{collections::HashMap, net::SocketAddr};

use super::{listeners::Draft, rules::Placed};
use crate::config::{
    model::{ListenAddress, Listener, Target, Transport, Upstream},
    report::{Position, Report},
};

/// All addresses that are listened on, by transport and port.
struct Own<'a>(HashMap<(Transport, u16), Vec<&'a ListenAddress>>);

/// Refuses targets that are surely a listener of this daemon. Names, and addresses that only the machine knows to be its
/// own, are found when they are connected to.
pub(super) fn refuse(report: &mut Report<'_>, drafts: &[Draft<'_>], listeners: &[Listener], rules: &[Placed]) {
    let mut own = Own(HashMap::new());
    for (transport, address, port) in listeners.iter().flat_map(Listener::sockets) {
        own.0.entry((transport, port.get())).or_default().push(address);
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
        }
    }
}

impl Own<'_> {
    fn refuse(&self, report: &mut Report<'_>, position: &Position, transport: Transport, upstream: &Upstream) {
        for target in upstream.targets.iter().filter_map(Target::literal) {
            if self.has(transport, target) {
                report.error(position, format!("{target} is this daemon's own listener"));
            }
        }
    }

    fn has(&self, transport: Transport, target: SocketAddr) -> bool {
        let includes = |address: &&ListenAddress| address.includes(target.ip()).unwrap_or(target.ip().is_loopback());
        self.0.get(&(transport, target.port())).is_some_and(|addresses| addresses.iter().any(includes))
    }
}
