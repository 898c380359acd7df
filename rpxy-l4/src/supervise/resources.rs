//! Limits of the machine that a configuration may exceed.

use crate::{config::model::Config, net, tcp};

/// Raises the limit on open files as far as it goes, and warns of what `config` asks for beyond the machine's limits
/// otherwise.
pub(super) fn warn_of_limits(config: &Config) {
    let _limit = net::raise_open_files_limit();
    if let Some(most) = net::longest_backlog().filter(|most| *most < config.tcp.backlog) {
        tracing::warn!("tcp_backlog = {} is cut to {most} by net.core.somaxconn", config.tcp.backlog);
    }
}

/// Divides the descriptors between the connections and everything else, now that there are no connections yet, and
/// warns if `config` asks for more connections than fit.
pub(super) fn divide_descriptors(config: &Config, shared: &tcp::Shared, workers: usize) {
    let open = net::open_files().unwrap_or(TYPICAL);
    let limit = net::open_files_limit();
    let free = limit.map_or(u64::MAX, |limit| limit.saturating_sub(open));
    // A UDP session takes one descriptor, a relayed connection two, a bulk transfer some more.
    let udp = config.udp.default.is_some() || config.rules.iter().any(|rule| rule.matcher.is_udp());
    let sessions = if udp { u64::from(config.udp.max_connections.get()) } else { 0 };
    let of_tcp = u64::from(config.tcp.max_connections.get()) * 2;
    let beside_tcp = free.saturating_sub(of_tcp + OTHERS);
    let sessions_fit = sessions.min(beside_tcp.max(free / 3));
    let room = shared.divide_descriptors(open.saturating_add(sessions_fit), workers);
    if let Some(limit) = limit.filter(|limit| *limit < of_tcp + sessions + TYPICAL) {
        let sessions =
            if udp { format!(" and {sessions_fit} of udp_max_connections = {sessions}") } else { String::new() };
        tracing::warn!(
            "a limit of {limit} open files has room for {room} of tcp_max_connections = {}{sessions}: raise it \
             (LimitNOFILE=, ulimit -n), or new connections wait while there are more",
            config.tcp.max_connections
        );
    }
}

/// Open files of an idle daemon.
const TYPICAL: u64 = 64;
/// Descriptors for pipes and the reserve.
const OTHERS: u64 = 192;
