//! Limits of the machine: what they leave room for, and what of a configuration exceeds them.

use std::num::NonZeroU32;

use super::worker_count;
use crate::{
    config::model::{Config, Listener, Transport},
    net, tcp,
};

/// Open files of an idle daemon besides those of its workers: logs, maps and programs, the admin socket.
pub(super) const TYPICAL: u64 = 64;
/// Descriptors kept for a reload, and for those who look at metrics or ask for the status.
const KEPT: u64 = 64;
/// Open files of a worker without its sockets and pipes: what it waits with.
const OF_WORKER: u64 = 8;
/// Sessions that are allowed at least and at most where the configuration does not say how many.
const LEAST_SESSIONS: NonZeroU32 = NonZeroU32::new(1024).unwrap();
const MOST_SESSIONS: NonZeroU32 = NonZeroU32::new(65_536).unwrap();

/// Raises the limit on open files as far as it goes, and lowers `udp_max_connections` to what that has room for, which is
/// also its default. Listeners that say their own number get what they say. Returns what was lowered.
pub(super) fn fill_in(config: &mut Config) -> Option<NonZeroU32> {
    let (limit, tcp) = (net::raise_open_files_limit(), config.tcp_connections());
    let own = config.named.iter().filter(|listener| listener.udp.max_connections_of.is_some());
    let own: u64 = own.map(|listener| u64::from(listener.udp.max_connections.map_or(0, NonZeroU32::get))).sum();
    let left = limit.map(|limit| limit.saturating_sub(own));
    let others = others(config);
    let wanted = config.top.udp.max_connections.unwrap_or_else(|| udp_sessions(left, tcp, others));
    let fitting = fitting(left, tcp, others);
    for listener in config.listeners_mut().filter(|listener| listener.udp.max_connections_of.is_none()) {
        listener.udp.max_connections = Some(wanted.min(fitting));
    }
    Some(wanted).filter(|wanted| *wanted > fitting)
}

/// Descriptors for everything that is neither a connection nor a session, at most. Each worker has its own listening
/// sockets, and pipes.
fn others(config: &Config) -> u64 {
    let sockets_of = |listener: &Listener| {
        let ip = listener.listen.ports.len().saturating_mul(listener.listen.addresses.len()).saturating_mul(2);
        ip.saturating_add(usize::from(listener.listen.unix.is_some()))
    };
    let sockets: usize = config.listeners().map(sockets_of).sum();
    let of_worker = (sockets as u64).saturating_add(OF_WORKER + tcp::PIPE_DESCRIPTORS);
    of_worker.saturating_mul(worker_count(config) as u64).saturating_add(TYPICAL + KEPT)
}

/// The UDP sessions that are allowed by default beside `tcp` connections and `others`; each takes one descriptor.
fn udp_sessions(limit: Option<u64>, tcp: u64, others: u64) -> NonZeroU32 {
    let Some(limit) = limit else { return MOST_SESSIONS };
    let left = limit.saturating_sub(tcp.saturating_mul(2).saturating_add(others));
    let left = NonZeroU32::new(u32::try_from(left).unwrap_or(u32::MAX)).unwrap_or(LEAST_SESSIONS);
    left.clamp(LEAST_SESSIONS, MOST_SESSIONS)
}

/// The UDP sessions that there is room for: what `tcp` connections and `others` leave, but at least a third.
fn fitting(limit: Option<u64>, tcp: u64, others: u64) -> NonZeroU32 {
    let Some(limit) = limit else { return NonZeroU32::MAX };
    let free = limit.saturating_sub(TYPICAL.min(limit / 2));
    let left = limit.saturating_sub(tcp.saturating_mul(2).saturating_add(others)).max(free / 3);
    NonZeroU32::new(u32::try_from(left).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
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
        for missing in listener.tcp.source_addresses.iter().filter(|address| !net::is_source(**address)) {
            tracing::warn!(
                "{of}tcp_source_addresses: this machine does not have {missing}: connections come from the others"
            );
        }
        if let Some(most) = net::longest_backlog().filter(|most| *most < listener.tcp.backlog)
            && (listener.serves(Transport::Tcp) || config.named.is_empty())
        {
            let backlog = listener.tcp.backlog;
            tracing::warn!("{of}tcp_backlog = {backlog} is cut to {most} by net.core.somaxconn");
        }
    }
}

/// Divides the descriptors between the connections and everything else, of which `open` are open files that are neither a
/// connection nor a session. Warns if `config` asks for more than fits, and of `udp_max_connections` that were `lowered`.
pub(super) fn divide_descriptors(
    config: &Config,
    lowered: Option<NonZeroU32>,
    shared: &tcp::Shared,
    (workers, open): (usize, u64),
) {
    // A UDP session takes one descriptor, a relayed connection two, a bulk transfer some more.
    let udp = config.listeners().any(|listener| listener.serves(Transport::Udp));
    let sessions = if udp { config.udp_sessions() } else { 0 };
    let room = shared.divide_descriptors(open.saturating_add(sessions), workers);
    let tcp = config.tcp_connections();
    let lowered = lowered.filter(|_| udp);
    if u64::from(room) >= tcp && lowered.is_none() {
        return;
    }
    let limit = net::open_files_limit().unwrap_or(u64::MAX);
    let sessions = lowered.map_or(String::new(), |wanted| format!(" and {sessions} of udp_max_connections = {wanted}"));
    tracing::warn!(
        "a limit of {limit} open files has room for {} of tcp_max_connections = {tcp}{sessions}: raise it (LimitNOFILE=, \
         ulimit -n), or new connections wait while there are more",
        u64::from(room).min(tcp)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_never_take_more_than_there_is_room_for() {
        for (row, limit, tcp, expected) in [
            ("no limit", None, 1024, u32::MAX),
            ("what TCP leaves", Some(4096), 1024, 4096 - 2048 - 256),
            ("a third", Some(1024), 1024, 320),
            ("hardly any", Some(60), 1024, 10),
            ("none", Some(0), 1024, 1),
        ] {
            assert_eq!(fitting(limit, tcp, 256).get(), expected, "{row}");
        }
    }

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
            assert_eq!(udp_sessions(limit, tcp, 256).get(), expected, "{name}");
        }
    }
}
