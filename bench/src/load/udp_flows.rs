//! Many flows that all exist, of which one at a time is used.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    DATAGRAM, WARM_UP,
    sample::Sample,
    udp_client::Client,
    udp_turns::{Shape, Span, take_turns},
};

/// Flows created at the same time.
const IN_FLIGHT: u32 = 32;

/// The longest that creating them may take.
const CREATION: Duration = Duration::from_secs(120);

/// Flows that have all made an exchange.
pub struct Table {
    client: Client,
    flows: u32,
    /// Datagrams that were lost meanwhile.
    lost: u64,
}

impl Table {
    /// Creates `flows` flows to `target` by an exchange over each. What is lost is sent again.
    ///
    /// # Errors
    ///
    /// When nothing comes back, or a reply is not what was sent.
    pub fn open(target: SocketAddrV4, pool: Ipv4Addr, flows: u32) -> anyhow::Result<Self> {
        let mut client = Client::trains(target, pool, flows)?;
        let begin = Instant::now();
        let shape = Shape { slots: IN_FLIGHT.min(flows), width: 1, size: DATAGRAM, insist: true };
        let mut left = 0..flows;
        let sample = take_turns(&mut client, shape, Span { begin, end: begin + CREATION }, |_| left.next())?;
        ensure!(sample.all_operations == u64::from(flows), "only {} flows after {CREATION:?}", sample.all_operations);
        Ok(Self { client, flows, lost: sample.failures })
    }

    /// Calls `ready`, then makes one exchange at a time over random flows, for `window` after the warm-up. What was lost
    /// while the flows were created is among the failures.
    ///
    /// # Errors
    ///
    /// When nothing comes back, or a reply is not what was sent.
    pub fn run(mut self, window: Duration, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Sample> {
        ready()?;
        let begin = Instant::now() + WARM_UP;
        let shape = Shape { slots: 1, width: 1, size: DATAGRAM, insist: false };
        let mut picks = Picks(0);
        let span = Span { begin, end: begin + window };
        let sample = take_turns(&mut self.client, shape, span, |_| Some(picks.below(self.flows)))?;
        Ok(Sample { failures: sample.failures + self.lost, ..sample })
    }
}

/// SplitMix64: the same picks for every candidate, and no two flows alike in any way that hashes could see.
struct Picks(u64);

impl Picks {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The upper half of the product is below the bound.
        let upper = ((mixed >> 32) * u64::from(bound)) >> 32;
        u32::try_from(upper).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn picks_are_below_the_bound_and_reach_all() {
        for bound in [1, 2, 100] {
            let mut picks = Picks(0);
            let found: BTreeSet<_> = (0..100 * bound).map(|_| picks.below(bound)).collect();
            assert_eq!(found, (0..bound).collect(), "{bound}");
        }
    }
}
