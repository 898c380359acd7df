//! Datagrams that wait for a decision.
//!
//! They are copied, within bounds for each flow and for all together: nothing is proven of who sent them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rpxy_l4_proto::quic::{LongType, packets};

/// What one flow may have waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// Datagrams.
    most: usize,
    /// Bytes.
    bytes: usize,
}

/// For a flow whose route is not known.
/// Clients send at most ten packets of a hello before they hear from the server; 0-RTT packets come between them.
pub(super) const UNDECIDED: Limit = Limit { most: 16, bytes: 24 << 10 };
/// For a flow whose socket is about to be there: what a client sends at once may arrive as one buffer.
pub(super) const OPENING: Limit = Limit { most: 128, bytes: 64 << 10 };
/// Bytes held by one worker at most, for either stage.
const BUDGET: usize = 8 << 20;

/// All that one worker holds at one stage, in bytes. Each stage has its own: flows that wait for a name, or for a second
/// hello, must not push out those that wait for a first one. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(super) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn has_room(&self, len: usize) -> bool {
        self.used().saturating_add(len) <= BUDGET
    }

    fn take(&self, len: usize) {
        self.0.fetch_add(len, Ordering::Relaxed);
    }

    fn give_back(&self, len: usize) {
        self.0.fetch_sub(len, Ordering::Relaxed);
    }
}

/// The datagrams of one flow, in the order of their arrival. They take room of a budget until they are taken or dropped.
#[derive(Debug)]
pub(super) struct Held {
    datagrams: Vec<(Box<[u8]>, u8)>,
    bytes: usize,
    budget: Budget,
}

impl Held {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { datagrams: Vec::new(), bytes: 0, budget: budget.clone() }
    }

    /// Keeps a copy, in place of early data or else of the oldest where there is no room. Returns how many were given up, this one included
    /// when it is too large.
    pub(super) fn push(&mut self, datagram: &[u8], tos: u8, limit: Limit) -> usize {
        let mut given_up = 0;
        while !self.datagrams.is_empty()
            && (self.datagrams.len() >= limit.most || self.bytes + datagram.len() > limit.bytes)
        {
            // Without the hello, early data is of no use.
            let first = self.datagrams.iter().position(|(datagram, _)| is_early_data(datagram)).unwrap_or(0);
            let (oldest, _) = self.datagrams.remove(first);
            self.bytes -= oldest.len();
            self.budget.give_back(oldest.len());
            given_up += 1;
        }
        if !self.budget.has_room(datagram.len()) {
            return given_up + 1;
        }
        self.bytes += datagram.len();
        self.budget.take(datagram.len());
        self.datagrams.push((datagram.into(), tos));
        given_up
    }

    /// Copies of them.
    pub(super) fn copies(&self) -> Vec<(Box<[u8]>, u8)> {
        self.datagrams.clone()
    }

    pub(super) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Gives them all up or back.
    pub(super) fn take(&mut self) -> Vec<(Box<[u8]>, u8)> {
        self.budget.give_back(std::mem::take(&mut self.bytes));
        std::mem::take(&mut self.datagrams)
    }
}

/// Returns whether a datagram begins with a 0-RTT packet (RFC 9000 section 17.2.3, RFC 9369 section 3.2).
fn is_early_data(datagram: &[u8]) -> bool {
    packets(datagram).next().is_some_and(|packet| packet.typ == LongType::ZeroRtt)
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_holds_its_latest_datagrams() {
        let budget = Budget::default();
        let mut held = Held::new(&budget);
        let given_up: usize = (0..20_u8).map(|n| held.push(&[n; 10], n, UNDECIDED)).sum();
        assert_eq!((given_up, held.len(), budget.used()), (4, 16, 160));
        assert_eq!(held.push(&[99; 24 << 10], 0, UNDECIDED), 16, "as large as all others may be together");
        assert_eq!((held.len(), budget.used()), (1, 24 << 10));
        let datagrams = held.take();
        assert_eq!((datagrams.len(), budget.used()), (1, 0));
        assert_eq!(held.push(&[1; 30_000], 0, UNDECIDED), 0, "a single one of any size");
    }

    #[test]
    fn order_and_ecn_are_kept() {
        let budget = Budget::default();
        let mut held = Held::new(&budget);
        for n in 0..3 {
            assert_eq!(held.push(&[n], n, UNDECIDED), 0);
        }
        let expected: Vec<(Box<[u8]>, u8)> = (0..3).map(|n| (Box::from([n]), n)).collect();
        assert_eq!(held.take(), expected);
    }

    #[test]
    fn all_flows_together_are_bounded() {
        let budget = Budget::default();
        let mut flows: Vec<Held> = Vec::new();
        let mut refused = 0;
        for _ in 0..10_000 {
            let mut held = Held::new(&budget);
            refused += held.push(&[0; 1200], 0, UNDECIDED);
            flows.push(held);
        }
        assert!(budget.used() <= BUDGET && refused == 10_000 - BUDGET / 1200, "{refused}");
        drop(flows);
        assert_eq!(budget.used(), 0, "given back however a flow ends");
    }
}
