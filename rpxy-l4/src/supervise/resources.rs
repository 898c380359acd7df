//! Limits of the machine: what they leave room for, and what of a configuration exceeds them.

use std::num::NonZeroU32;

use crate::{config::model::Config, net};

/// Descriptors for everything that is neither a connection nor a session: sockets that are listened on, logs, epoll.
const RESERVE: u64 = 256;
/// Sessions that are allowed at least and at most where the configuration does not say how many.
const LEAST_SESSIONS: NonZeroU32 = NonZeroU32::new(1024).unwrap();
const MOST_SESSIONS: NonZeroU32 = NonZeroU32::new(65_536).unwrap();

/// Raises the limit on open files as far as it goes, and sets what `config` leaves to it: `udp_max_connections`.
pub(super) fn fill_in(config: &mut Config) {
    let tcp = config.tcp.max_connections;
    config.udp.max_connections.get_or_insert_with(|| udp_sessions(net::raise_open_files_limit(), tcp));
}

/// The UDP sessions that a limit on open files has room for beside `tcp` connections; each takes one.
fn udp_sessions(limit: Option<u64>, tcp: NonZeroU32) -> NonZeroU32 {
    let Some(limit) = limit else { return MOST_SESSIONS };
    let left = limit.saturating_sub(u64::from(tcp.get()) * 2 + RESERVE);
    let left = NonZeroU32::new(u32::try_from(left).unwrap_or(u32::MAX)).unwrap_or(LEAST_SESSIONS);
    left.clamp(LEAST_SESSIONS, MOST_SESSIONS)
}

/// Warns where `config` asks for more than the machine gives.
pub(super) fn warn_of_limits(config: &Config) {
    // A relayed connection takes two descriptors, a bulk transfer some more; a UDP session takes one.
    let udp = config.udp.default.is_some() || config.rules.iter().any(|rule| rule.matcher.is_udp());
    let sessions = config.udp.max_connections.filter(|_| udp).map_or(0, NonZeroU32::get);
    let needed = u64::from(config.tcp.max_connections.get()) * 2 + u64::from(sessions) + 64;
    if let Some(limit) = net::raise_open_files_limit().filter(|limit| *limit < needed) {
        let udp_too = if udp { format!(" and udp_max_connections = {sessions}") } else { String::new() };
        tracing::warn!(
            "tcp_max_connections = {}{udp_too} need {needed} open files, the limit is {limit}: raise it (LimitNOFILE=, \
             ulimit -n) or new connections will have to wait when they run out",
            config.tcp.max_connections
        );
    }
    if let Some(wanted) = config.udp.receive_buffer.filter(|_| udp)
        && let Some(given) = net::udp::receive_buffer_given(wanted.get()).filter(|given| *given < wanted.get())
    {
        tracing::warn!("udp_receive_buffer = {wanted} is cut to {given} by net.core.rmem_max");
    }
    if let Some(most) = net::longest_backlog().filter(|most| *most < config.tcp.backlog) {
        tracing::warn!("tcp_backlog = {} is cut to {most} by net.core.somaxconn", config.tcp.backlog);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_take_the_descriptors_that_are_left() {
        let rows = [
            ("nothing is left", Some(1024), 1024, 1024),
            ("just the least", Some(2 * 1024 + 256 + 1024), 1024, 1024),
            ("one more", Some(2 * 1024 + 256 + 1025), 1024, 1025),
            ("less for TCP", Some(4096), 100, 3640),
            ("just the most", Some(2 * 1024 + 256 + 65_536), 1024, 65_536),
            ("one more than the most", Some(2 * 1024 + 256 + 65_537), 1024, 65_536),
            ("more than 32 bits", Some(u64::MAX), 1024, 65_536),
            ("no limit", None, 1024, 65_536),
            ("TCP takes all", Some(1 << 20), u32::MAX, 1024),
        ];
        for (name, limit, tcp, expected) in rows {
            assert_eq!(udp_sessions(limit, NonZeroU32::new(tcp).unwrap()).get(), expected, "{name}");
        }
    }
}
