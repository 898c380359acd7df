//! Limits of the machine: what they leave room for, and what of a configuration exceeds them.

use std::num::NonZeroU32;

use crate::{
    config::model::{Config, Transport},
    net, tcp,
};

/// Descriptors for everything that is neither a connection nor a session: sockets that are listened on, logs, epoll.
const RESERVE: u64 = 256;
/// Sessions that are allowed at least and at most where the configuration does not say how many.
const LEAST_SESSIONS: NonZeroU32 = NonZeroU32::new(1024).unwrap();
const MOST_SESSIONS: NonZeroU32 = NonZeroU32::new(65_536).unwrap();

/// Raises the limit on open files as far as it goes, and sets what `config` leaves to it: `udp_max_connections`.
pub(super) fn fill_in(config: &mut Config) {
    let room = udp_sessions(net::raise_open_files_limit(), config.tcp_connections());
    for listener in config.listeners_mut() {
        listener.udp.max_connections.get_or_insert(room);
    }
}

/// The UDP sessions that a limit on open files has room for beside `tcp` connections; each takes one.
fn udp_sessions(limit: Option<u64>, tcp: u64) -> NonZeroU32 {
    let Some(limit) = limit else { return MOST_SESSIONS };
    let left = limit.saturating_sub(tcp.saturating_mul(2).saturating_add(RESERVE));
    let left = NonZeroU32::new(u32::try_from(left).unwrap_or(u32::MAX)).unwrap_or(LEAST_SESSIONS);
    left.clamp(LEAST_SESSIONS, MOST_SESSIONS)
}

/// Raises the limit on open files as far as it goes, and warns of what `config` asks for beyond the machine's limits
/// otherwise.
pub(super) fn warn_of_limits(config: &Config) {
    let _limit = net::raise_open_files_limit();
    for listener in config.listeners() {
        let of = if config.named.is_empty() { String::new() } else { format!("listener {}: ", listener.name) };
        if let Some(wanted) = listener.udp.receive_buffer.filter(|_| listener.serves(Transport::Udp))
            && let Some(given) = net::udp::receive_buffer_given(wanted.get()).filter(|given| *given < wanted.get())
        {
            tracing::warn!("{of}udp_receive_buffer = {wanted} is cut to {given} by net.core.rmem_max");
        }
        if let Some(most) = net::longest_backlog().filter(|most| *most < listener.tcp.backlog)
            && (listener.serves(Transport::Tcp) || config.named.is_empty())
        {
            let backlog = listener.tcp.backlog;
            tracing::warn!("{of}tcp_backlog = {backlog} is cut to {most} by net.core.somaxconn");
        }
    }
}

/// Divides the descriptors between the connections and everything else, now that there are no connections yet, and
/// warns if `config` asks for more connections than fit.
pub(super) fn divide_descriptors(config: &Config, shared: &tcp::Shared, workers: usize) {
    let open = net::open_files().unwrap_or(TYPICAL);
    let limit = net::open_files_limit();
    let free = limit.map_or(u64::MAX, |limit| limit.saturating_sub(open));
    // A UDP session takes one descriptor, a relayed connection two, a bulk transfer some more.
    let udp = config.listeners().any(|listener| listener.serves(Transport::Udp));
    let sessions = if udp { config.udp_sessions() } else { 0 };
    let of_tcp = config.tcp_connections() * 2;
    let beside_tcp = free.saturating_sub(of_tcp + OTHERS);
    let sessions_fit = sessions.min(beside_tcp.max(free / 3));
    let room = shared.divide_descriptors(open.saturating_add(sessions_fit), workers);
    if let Some(limit) = limit.filter(|limit| *limit < of_tcp + sessions + TYPICAL) {
        let sessions =
            if udp { format!(" and {sessions_fit} of udp_max_connections = {sessions}") } else { String::new() };
        tracing::warn!(
            "a limit of {limit} open files has room for {room} of tcp_max_connections = {}{sessions}: raise it \
             (LimitNOFILE=, ulimit -n), or new connections wait while there are more",
            config.tcp_connections()
        );
    }
}

/// Open files of an idle daemon.
const TYPICAL: u64 = 64;
/// Descriptors for pipes and the reserve.
const OTHERS: u64 = 192;

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
            ("TCP takes all", Some(1 << 20), u64::MAX, 1024),
        ];
        for (name, limit, tcp, expected) in rows {
            assert_eq!(udp_sessions(limit, tcp).get(), expected, "{name}");
        }
    }
}
