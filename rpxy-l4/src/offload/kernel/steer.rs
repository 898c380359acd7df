//! Sessions in and out of the kernel, and their counters.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rpxy_l4_common::map::Counted;
use rpxy_l4_proto::quic::ConnectionId;
use rustix::time::{ClockId, clock_gettime};

use super::Kernel;
use crate::offload::{
    api::{Installed, NotSteered, Offload, Steered, Usage},
    maps,
    routes::{Direction, Routes, Session, is_link_local, is_unicast},
};

fn ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// What speaks against steering a session between these addresses, whatever the routes.
#[must_use]
pub(crate) fn by_addresses(addresses: &[IpAddr]) -> Option<NotSteered> {
    let is_v4 = |address: &IpAddr| address.to_canonical().is_ipv4();
    if addresses.iter().map(is_v4).any(|v4| addresses.first().map(is_v4) != Some(v4)) {
        return Some(NotSteered::Family);
    }
    // A link-local address is ambiguous without its link.
    let is_ambiguous = |address: &IpAddr| is_link_local(*address) || !is_unicast(*address);
    addresses.iter().any(is_ambiguous).then_some(NotSteered::Address)
}

impl Offload for Kernel {
    fn install(&self, flow: &Steered) -> Result<Installed, NotSteered> {
        let addresses = [flow.client, flow.local, flow.upstream, flow.backend].map(ip);
        if let Some(reason) = by_addresses(&addresses) {
            return Err(reason);
        }
        let session = Session::new(flow);

        let state = &mut *self.inner.state();
        // Checked first: route look-ups take system calls.
        if state.table.is_full(&session) {
            state.turned_away = true;
            return Err(NotSteered::Full);
        }
        let there = state.route(&session.pair(Direction::Forward))?;
        let back = state.route(&session.pair(Direction::Reverse))?;
        let (installed, updates) = state.table.install(session, Routes { there, back }).inspect_err(|reason| {
            state.turned_away |= matches!(reason, NotSteered::Full);
        })?;
        let Err(error) = state.maps.apply(&updates) else { return Ok(installed) };
        let undo = state.table.revoke(installed);
        state.maps.apply_all(&undo);
        if maps::is_full(&error) {
            state.turned_away = true;
            return Err(NotSteered::Full);
        }
        tracing::debug!("kernel plane: cannot install {flow:?}: {error}");
        Err(NotSteered::Failed)
    }

    fn update_cid(&self, session: Installed, cid: &ConnectionId) {
        let state = &mut *self.inner.state();
        if let Some(updates) = state.table.set_cid(session, cid) {
            state.maps.apply_all(&updates);
        }
    }

    fn revoke(&self, session: Installed) {
        if self.inner.stays() {
            return;
        }
        let state = &mut *self.inner.state();
        let updates = state.table.revoke(session);
        state.maps.apply_all(&updates);
        // One notification for each refusal: the retries that it causes refuse again if the table is still full.
        if !updates.is_empty() && std::mem::take(&mut state.turned_away) {
            self.inner.changed();
        }
    }

    fn path_changed(&self, session: Installed) {
        let state = &mut *self.inner.state();
        if let Some(pair) = state.table.get(session).map(|session| session.pair(Direction::Forward)) {
            state.refresh_route(pair);
        }
    }

    fn usage(&self, session: Installed) -> Option<Usage> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?);
        let session = *self.inner.state().table.get(session)?;
        // A parked flow has counters as well.
        let parked = |key| self.inner.state().maps.parked(&key);
        let counted = |direction| {
            let key = session.key(direction);
            self.inner.readers.counted(&key).or_else(|| parked(key))
        };
        usage([Direction::Forward, Direction::Reverse].map(counted), now)
    }

    fn changes(&self) -> u64 {
        self.inner.changes()
    }
}

/// Counters of both directions, those towards the backend first.
type Both = [Option<Counted>; 2];

/// Sums the counters of both directions up at `now`, the time since the machine was started.
fn usage(counted: Both, now: Duration) -> Option<Usage> {
    let [up, down] = counted;
    up.or(down)?;
    let (up, down) = (up.unwrap_or_default(), down.unwrap_or_default());
    let seen = up.last_seen.max(down.last_seen);
    let idle = (seen > 0).then(|| now.saturating_sub(Duration::from_nanos(seen)));
    // A few may be forged.
    let asymmetric = [up, down].iter().any(|counted| counted.elsewhere > counted.packets);
    let turns = up.packets.min(down.packets + 1);
    let packets = up.packets + down.packets;
    Some(Usage { packets, bytes_up: up.bytes, bytes_down: down.bytes, idle, turns, asymmetric })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_that_of_both_directions() {
        let now = Duration::from_secs(10);
        let second = 1_000_000_000;
        let idle = Duration::from_secs;
        let of = |last_seen, packets, bytes| Counted { last_seen, packets, bytes, elsewhere: 0 };
        let seen = |packets, elsewhere| Some(Counted { elsewhere, ..of(0, packets, 0) });
        let usage_of = |packets, turns, asymmetric| Some(Usage { packets, turns, asymmetric, ..Usage::default() });
        let rows: &[(&str, Both, Option<Usage>)] = &[
            ("not installed", [None, None], None),
            ("nothing yet", [Some(of(0, 0, 0)), Some(of(0, 0, 0))], Some(Usage::default())),
            (
                "the later one counts",
                [Some(of(7 * second, 2, 300)), Some(of(9 * second, 1, 50))],
                Some(Usage {
                    packets: 3,
                    bytes_up: 300,
                    bytes_down: 50,
                    idle: Some(idle(1)),
                    turns: 2,
                    asymmetric: false,
                }),
            ),
            ("answers alone", [seen(0, 0), seen(100, 0)], usage_of(100, 0, false)),
            ("forged packets", [seen(9, 9), seen(9, 0)], usage_of(18, 9, false)),
            ("clients come another way", [seen(0, 1), seen(9, 0)], usage_of(9, 0, true)),
            ("answers come another way", [seen(9, 0), seen(1, 9)], usage_of(10, 2, true)),
            (
                "one direction",
                [Some(of(7 * second, 2, 300)), None],
                Some(Usage {
                    packets: 2,
                    bytes_up: 300,
                    bytes_down: 0,
                    idle: Some(idle(3)),
                    turns: 1,
                    asymmetric: false,
                }),
            ),
            (
                "seen after the clock was read",
                [Some(of(11 * second, 1, 1)), None],
                Some(Usage {
                    packets: 1,
                    bytes_up: 1,
                    bytes_down: 0,
                    idle: Some(Duration::ZERO),
                    turns: 1,
                    asymmetric: false,
                }),
            ),
        ];
        for (name, counted, expected) in rows {
            assert_eq!(usage(*counted, now), *expected, "{name}");
        }
    }
}
