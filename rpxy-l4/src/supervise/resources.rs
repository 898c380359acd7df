//! Limits of the machine that a configuration may exceed.

use crate::{config::model::Config, net};

/// Raises the limit on open files as far as it goes, and warns where `config` asks for more than the machine gives.
pub(super) fn warn_of_limits(config: &Config) {
    // A relayed connection takes two descriptors, a bulk transfer some more; a UDP session takes one.
    let udp = config.udp.default.is_some() || config.rules.iter().any(|rule| rule.matcher.is_udp());
    let sessions = if udp { config.udp.max_connections.get() } else { 0 };
    let needed = u64::from(config.tcp.max_connections.get()) * 2 + u64::from(sessions) + 64;
    if let Some(limit) = net::raise_open_files_limit().filter(|limit| *limit < needed) {
        let udp = if udp { format!(" and udp_max_connections = {sessions}") } else { String::new() };
        tracing::warn!(
            "tcp_max_connections = {}{udp} need {needed} open files, the limit is {limit}: raise it (LimitNOFILE=, \
             ulimit -n) or new connections will have to wait when they run out",
            config.tcp.max_connections
        );
    }
    if let Some(most) = net::longest_backlog().filter(|most| *most < config.tcp.backlog) {
        tracing::warn!("tcp_backlog = {} is cut to {most} by net.core.somaxconn", config.tcp.backlog);
    }
}
