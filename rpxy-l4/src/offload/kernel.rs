//! The kernel plane as the daemon uses it: sessions in and out, what they have counted, what to drop.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use ipnet::IpNet;
use rpxy_l4_common::{
    map::{Counted, Flow, FlowKey},
    verdict::Counter,
};
use rpxy_l4_proto::quic::ConnectionId;
use rustix::time::{ClockId, clock_gettime};

use super::{
    Guards, NotSteered, Offload, Steered, Usage, encode, explain, netlink,
    pin::Pins,
    state::Inner,
    table::{Direction, Way, is_link_local},
};

/// The kernel plane.
#[derive(Debug)]
pub struct Kernel {
    pub(super) inner: Arc<Inner>,
    /// Closed when the thread is to end.
    pub(super) stop: Option<OwnedFd>,
    pub(super) thread: Option<JoinHandle<()>>,
    /// The daemon ends, and its flows stay.
    pub(super) leaving: AtomicBool,
}

/// Keys of both directions, the forward one first.
fn keys(flow: &Steered) -> [FlowKey; 2] {
    [
        FlowKey { source: encode::socket(flow.client), destination: encode::socket(flow.local) },
        FlowKey { source: encode::socket(flow.backend), destination: encode::socket(flow.upstream) },
    ]
}

/// The address ways and families are judged by.
fn ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// The client's direction alone has these.
fn with_cid(mut entry: Flow, flow: &Steered) -> Flow {
    let id = flow.cid.as_ref().map(ConnectionId::as_bytes).unwrap_or_default();
    entry.cid = [0; 20];
    entry.cid.iter_mut().zip(id).for_each(|(byte, from)| *byte = *from);
    entry.cid_len = u8::try_from(id.len()).unwrap_or_default();
    entry.mark = flow.mark.to_ne_bytes();
    entry
}

impl Offload for Kernel {
    fn install(&self, flow: &Steered) -> Result<(), NotSteered> {
        let addresses = [flow.client, flow.local, flow.upstream, flow.backend].map(ip);
        if addresses.iter().any(|address| address.is_ipv4() != addresses[0].is_ipv4()) {
            return Err(NotSteered::Family);
        }
        // A link-local address alone does not tell whose it is.
        if addresses.iter().any(|address| is_link_local(*address) || !netlink::is_plain(*address)) {
            return Err(NotSteered::Address);
        }
        let [client, local, upstream, backend] = addresses;
        let [forward, reverse] = keys(flow);
        let there = Way { source: upstream, destination: backend };
        let back = Way { source: local, destination: client };

        let state = &mut *self.inner.state();
        // Asked first: to find routes takes system calls.
        if state.table.is_full(&forward) {
            state.turned_away = true;
            return Err(NotSteered::Full);
        }
        let route_there = state.route(&there)?;
        let route_back = state.route(&back)?;
        let entry = |source, destination| Flow {
            source: encode::socket(source),
            destination: encode::socket(destination),
            kind: flow.kind,
            ..Flow::default()
        };
        let reply = Direction { key: reverse, flow: entry(flow.local, flow.client), way: back, route: route_back };
        let request = Direction {
            key: forward,
            flow: with_cid(entry(flow.upstream, flow.backend), flow),
            way: there,
            route: route_there,
        };
        let updates = state.table.install([reply, request]).inspect_err(|reason| {
            state.turned_away |= matches!(reason, NotSteered::Full);
        })?;
        let Err(error) = state.maps.apply(&updates) else { return Ok(()) };
        let undo = state.table.revoke([forward, reverse]);
        state.maps.apply_all(&undo);
        match explain::os_error(&error).and_then(io::Error::raw_os_error) {
            Some(libc::E2BIG | libc::ENOMEM) => {
                state.turned_away = true;
                Err(NotSteered::Full)
            }
            _ => {
                tracing::debug!("kernel plane: cannot install {flow:?}: {error}");
                Err(NotSteered::Failed)
            }
        }
    }

    fn update_cid(&self, flow: &Steered) {
        let [forward, _] = keys(flow);
        let state = &mut *self.inner.state();
        if let Some(updates) = state.table.change(forward, |entry| *entry = with_cid(*entry, flow)) {
            state.maps.apply_all(&updates);
        }
    }

    fn revoke(&self, flow: &Steered) {
        if self.leaving.load(Ordering::Relaxed) {
            return;
        }
        let state = &mut *self.inner.state();
        let updates = state.table.revoke(keys(flow));
        state.maps.apply_all(&updates);
        // Whoever was turned away hears of the place once; the next one tells the rest.
        if !updates.is_empty() && std::mem::take(&mut state.turned_away) {
            self.inner.changed();
        }
    }

    fn path_changed(&self, flow: &Steered) {
        let way = Way { source: ip(flow.upstream), destination: ip(flow.backend) };
        self.inner.state().ask_again(way);
    }

    fn usage(&self, flow: &Steered) -> Option<Usage> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?);
        // An entry that is out for now has counted as well.
        let parked = |key| self.inner.state().maps.parked(&key);
        usage(keys(flow).map(|key| self.inner.readers.counted(&key).or_else(|| parked(key))), now)
    }

    fn changes(&self) -> u64 {
        self.inner.changes()
    }
}

/// Of both directions.
type Both = [Option<Counted>; 2];

/// What the entries of both directions say at `now`, that towards the backend first.
fn usage(counted: Both, now: Duration) -> Option<Usage> {
    let [up, down] = counted;
    up.or(down)?;
    let (up, down) = (up.unwrap_or_default(), down.unwrap_or_default());
    let seen = up.last_seen.max(down.last_seen);
    let idle = (seen > 0).then(|| now.saturating_sub(Duration::from_nanos(seen)));
    Some(Usage { packets: up.packets + down.packets, bytes_up: up.bytes, bytes_down: down.bytes, idle })
}

impl Kernel {
    /// Which hook is used: `tc`, `xdp` or `xdp-generic`.
    #[must_use]
    pub fn plane(&self) -> &'static str {
        self.inner.plane.name()
    }

    /// The interfaces that a program stands on, each with how.
    #[must_use]
    pub fn attachments(&self) -> Vec<(String, &'static str)> {
        self.inner.state().programs.attachments()
    }

    /// The sessions that an earlier daemon has left to the kernel. They end with [`Kernel::take_over`], unless they are
    /// installed before.
    #[must_use]
    pub fn left(&self) -> Vec<Steered> {
        self.inner.state().programs.pins.as_ref().map(Pins::left).unwrap_or_default()
    }

    /// From now on what this value knows holds, instead of what an earlier daemon has left.
    pub fn take_over(&self) {
        let state = &mut *self.inner.state();
        state.programs.take_over(&state.maps.flows_data);
        let attached: Vec<u32> = state.table.links().map(|link| link.index).collect();
        for index in attached {
            state.table.set_attached(index, state.programs.is_attached(index));
        }
    }

    /// The daemon ends: flows are not taken out any more, where they can be found again.
    pub fn leave(&self) {
        if self.inner.state().programs.pins.is_some() {
            self.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// The sockets that the daemon listens on, wildcards among them, each with bits of `map::drop_class`: replaces those of
    /// before.
    pub fn set_listeners(&self, listeners: &[(SocketAddr, u32)]) {
        let wanted: HashMap<_, _> = listeners.iter().map(|(address, drop)| (encode::socket(*address), *drop)).collect();
        if let Err(error) = self.inner.state().maps.set_listeners(wanted) {
            tracing::warn!(
                "kernel plane: not all listening sockets are known to it, early_drop and ban miss them: {error}"
            );
        }
    }

    /// What the beginnings of sessions are judged by: replaces what was before. Returns the bits of `map::drop_class` that
    /// listeners may have because of it.
    #[must_use]
    pub fn set_guards(&self, guards: &Guards) -> u32 {
        match self.inner.state().maps.set_guards(guards) {
            Ok(()) => guards.bits(),
            Err(error) => {
                tracing::warn!("kernel plane: handshakes are left to the daemon: {error}");
                0
            }
        }
    }

    /// The networks whose datagrams to listening sockets are dropped: replaces those of before.
    pub fn set_bans(&self, networks: &[IpNet]) {
        let wanted: HashSet<IpNet> = networks.iter().map(IpNet::trunc).collect();
        if let Err(error) = self.inner.state().maps.set_banned(wanted) {
            tracing::warn!("kernel plane: not all banned networks are known to it: {error}");
        }
    }

    /// Packets by outcome, over all interfaces, since the start.
    #[must_use]
    pub fn counters(&self) -> Vec<(Counter, u64)> {
        let counted = |counter: &Counter| Some((*counter, self.inner.readers.counter(counter.index())?));
        Counter::ALL.iter().filter_map(counted).collect()
    }

    /// Sessions that are installed now.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.inner.state().table.sessions()
    }

    /// How many there may be.
    #[must_use]
    pub fn max_flows(&self) -> usize {
        self.inner.state().table.max_sessions()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("kernel plane: the thread that follows the network has failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_that_of_both_directions() {
        let now = Duration::from_secs(10);
        let second = 1_000_000_000;
        let idle = Duration::from_secs;
        let of = |last_seen, packets, bytes| Counted { last_seen, packets, bytes };
        let rows: &[(&str, Both, Option<Usage>)] = &[
            ("not installed", [None, None], None),
            ("nothing yet", [Some(of(0, 0, 0)), Some(of(0, 0, 0))], Some(Usage::default())),
            (
                "the later one counts",
                [Some(of(7 * second, 2, 300)), Some(of(9 * second, 1, 50))],
                Some(Usage { packets: 3, bytes_up: 300, bytes_down: 50, idle: Some(idle(1)) }),
            ),
            (
                "one direction",
                [Some(of(7 * second, 2, 300)), None],
                Some(Usage { packets: 2, bytes_up: 300, bytes_down: 0, idle: Some(idle(3)) }),
            ),
            (
                "seen after the clock was read",
                [Some(of(11 * second, 1, 1)), None],
                Some(Usage { packets: 1, bytes_up: 1, bytes_down: 0, idle: Some(Duration::ZERO) }),
            ),
        ];
        for (name, counted, expected) in rows {
            assert_eq!(usage(*counted, now), *expected, "{name}");
        }
    }
}
