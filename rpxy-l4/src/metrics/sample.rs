//! A few sums over everything, cheap enough to be taken every few seconds.

use super::{DatagramDrop, Metrics, Outcome, accounts::Accounts};

/// What plots are made of. Counters count from the start of the daemon, but for payload, which loses what a rule had
/// carried that is no longer in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// TCP connections open now.
    pub connections: u64,
    /// TCP connections accepted.
    pub accepted: u64,
    /// UDP sessions with a backend now.
    pub sessions: u64,
    /// UDP sessions that got a backend.
    pub begun: u64,
    /// Payload from clients, live connections and sessions included.
    pub bytes_up: u64,
    /// Payload to clients.
    pub bytes_down: u64,
    /// Connections that were turned away, and datagrams discarded because their session was.
    pub refused: u64,
    /// Datagrams that the daemon has forwarded, in both directions.
    pub relayed: u64,
    /// Packets that the kernel plane has forwarded.
    pub steered: u64,
}

impl Metrics {
    /// The sums now.
    #[must_use]
    pub(crate) fn sample(&self) -> Sample {
        let of_tcp = Outcome::ALL.iter().zip(&self.tcp_ended).filter(|(outcome, _)| outcome.is_refusal());
        let tcp: u64 = of_tcp.map(|(_, count)| count.get()).sum();
        let of_udp = DatagramDrop::ALL.iter().zip(&self.udp.dropped).filter(|(reason, _)| reason.is_refusal());
        let udp: u64 = of_udp.map(|(_, count)| count.get()).sum();
        let (tcp_up, tcp_down) = carried(&self.accounts.tcp);
        let (udp_up, udp_down) = carried(&self.accounts.udp);
        let gauge = |value: i64| u64::try_from(value).unwrap_or_default();
        Sample {
            connections: gauge(self.tcp_active.get()),
            accepted: self.tcp_accepted.get(),
            sessions: gauge(self.udp.active.get()),
            begun: self.udp.started.get(),
            bytes_up: tcp_up.saturating_add(udp_up),
            bytes_down: tcp_down.saturating_add(udp_down),
            refused: tcp.saturating_add(udp),
            relayed: self.udp.datagrams_up.get().saturating_add(self.udp.datagrams_down.get()),
            steered: self.kernel.steered(),
        }
    }
}

/// Bytes up and down over all rules.
fn carried(accounts: &Accounts) -> (u64, u64) {
    let bytes = accounts.rules().into_iter().map(|(_, account)| account.load.bytes());
    bytes.fold((0, 0), |(up, down), (more_up, more_down)| (up.saturating_add(more_up), down.saturating_add(more_down)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::{Carried, SessionEnd};

    #[test]
    fn each_sum_counts_what_it_is_of() {
        let metrics = Metrics::new();
        let name: Arc<str> = "a".into();
        let rules = [metrics.tcp_accounts().rule(&name), metrics.udp_accounts().rule(&name)];
        let targets = [metrics.tcp_accounts().target("b:1"), metrics.udp_accounts().target("b:1")];
        for (rule, target) in rules.iter().zip(&targets) {
            Carried::new(rule, target).tell(10, 3);
        }
        for outcome in [Outcome::Closed, Outcome::Unmatched] {
            metrics.tcp_accepted();
            metrics.tcp_ended(outcome, 100, 100);
        }
        metrics.tcp_accepted();
        metrics.udp().started();
        metrics.udp().started();
        metrics.udp().ended(SessionEnd::Evicted);
        metrics.udp().dropped(DatagramDrop::Unreachable, 4);
        metrics.udp().dropped(DatagramDrop::Overflow, 8);
        metrics.udp().sent_up(5, 1);
        metrics.udp().sent_down(2, 1);
        let expected = Sample {
            connections: 1,
            accepted: 3,
            sessions: 1,
            begun: 2,
            bytes_up: 20,
            bytes_down: 6,
            refused: 5,
            relayed: 7,
            steered: 0,
        };
        assert_eq!(metrics.sample(), expected);
    }
}
