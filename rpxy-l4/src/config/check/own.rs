//! Targets that lead back to the daemon.

use std::{net::SocketAddr, sync::Arc};

use crate::config::{
    file::Table,
    model::{Listen, Rule, Tcp, Udp, Upstream},
    report::{Position, Report},
};

/// Refuses targets that are surely a listener of this daemon. Names, and addresses that only the machine knows to be its
/// own, are found when they are connected to.
pub(super) fn refuse(
    report: &mut Report<'_>,
    root: &Table<'_>,
    listen: &Listen,
    (tcp, udp): (&Tcp, &Udp),
    rules: &[(Position, Arc<Rule>)],
) {
    let mut check = |position: &Position, upstream: &Upstream| {
        let literals = upstream.targets.iter().filter_map(crate::config::model::Target::literal);
        for own in literals.filter(|address| is_own(listen, *address)) {
            report.error(position, format!("{own} is this daemon's own listener"));
        }
    };
    for (key, upstream) in [("tcp_target", &tcp.default), ("udp_target", &udp.default)] {
        if let (Some(field), Some(upstream)) = (root.field(key), upstream) {
            check(&field.position, upstream);
        }
    }
    for (position, rule) in rules {
        check(position, &rule.upstream);
    }
}

fn is_own(listen: &Listen, target: SocketAddr) -> bool {
    listen.ports.iter().any(|port| port.get() == target.port())
        && listen.addresses.iter().any(|address| address.includes(target.ip()).unwrap_or(target.ip().is_loopback()))
}
