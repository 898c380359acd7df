//! Counters of UDP: every session ends in exactly one [`SessionEnd`], and every datagram that goes nowhere has exactly
//! one [`DatagramDrop`].

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{ByDirection, member};
use crate::offload::NotSteered;

/// Defines an enum whose variants have names for logs and labels.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As logs and labels write it.
            #[must_use]
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

named! {
    /// End of a UDP session.
    SessionEnd {
        /// No datagram in either direction for its idle lifetime.
        Idle = "idle",
        /// A reload took its rule, its target or its listening address away.
        Withdrawn = "withdrawn",
        /// Its backend refused, and the client goes on with another one.
        Refused = "refused",
        /// Its backend had gone, was silent or its name had moved, and the client goes on with another one.
        Moved = "moved",
        /// A check found its backend to be down.
        TargetDown = "target_down",
        /// It made room for a new one: its client had never shown that it receives.
        Evicted = "evicted",
        /// The client's network was banned.
        Banned = "banned",
        /// An operator closed it.
        Admin = "admin",
        /// After a reload, its listener does not take the client's network any more.
        Denied = "denied",
        /// Its second hello was not one that a client of Encrypted Client Hello sends.
        EchInvalid = "ech_invalid",
        /// The daemon stopped.
        Drained = "drained",
        /// A bug.
        InternalError = "internal_error",
    }
}

named! {
    /// Reason for which a datagram was discarded.
    DatagramDrop {
        /// Not recognised, and there is no default target.
        NotRecognised = "not_recognised",
        /// Recognised, but no rule of its protocol fits.
        Unmatched = "unmatched",
        /// A stray datagram, with no default target or `orphan = "drop"`.
        Orphan = "orphan",
        /// QUIC of another version than 1 and 2, without a destination.
        UnknownVersion = "unknown_version",
        /// The rest of its ClientHello did not come in time.
        Incomplete = "incomplete",
        /// Its ClientHello contradicts itself.
        Malformed = "malformed",
        /// Encrypted Client Hello that no correct client sends.
        EchInvalid = "ech_invalid",
        /// Too much was waiting for a decision.
        Overflow = "overflow",
        /// Over `udp_max_connections`.
        TooMany = "too_many",
        /// It would have begun a session, is nothing that a rule selects, and more came than could be read.
        Overloaded = "overloaded",
        /// Its rule has `max_connections`.
        RuleConnections = "rule_connections",
        /// Every target of its rule has `max_connections`.
        TargetConnections = "target_connections",
        /// From a banned network.
        Banned = "banned",
        /// It would have begun a session while an operator lets none begin.
        Drained = "drained",
        /// Not from a network that the listener takes: `allow`, `deny`.
        Denied = "denied",
        /// From a socket of the daemon itself.
        Loop = "loop",
        /// An answer that the host's reverse-path filter does not take from the interface that it arrived by.
        OtherInterface = "other_interface",
        /// Too many changes of address from one network.
        RateLimited = "rate_limited",
        /// Over `udp_new_sessions_per_source`.
        SourceLimited = "source_limited",
        /// No target could be reached.
        Unreachable = "unreachable",
        /// No target was up, and the rule is for healthy ones alone.
        Unhealthy = "unhealthy",
        /// No local port was left towards the target.
        NoPort = "no_port",
        /// Descriptors or memory ran out.
        Shortage = "shortage",
        /// The kernel did not take it towards the backend (buffer full, larger than the path, backend refused).
        NotSentUp = "not_sent_up",
        /// The kernel did not take it towards the client.
        NotSentDown = "not_sent_down",
    }
}

impl DatagramDrop {
    /// Returns whether traffic that is discarded so before it has a backend was turned away, and gets a line in the access
    /// log.
    #[must_use]
    pub(crate) fn is_refusal(self) -> bool {
        match self {
            Self::NotRecognised
            | Self::Unmatched
            | Self::Orphan
            | Self::UnknownVersion
            | Self::Incomplete
            | Self::Malformed
            | Self::EchInvalid
            | Self::TooMany
            | Self::Overloaded
            | Self::RuleConnections
            | Self::TargetConnections
            | Self::Banned
            | Self::Drained
            | Self::Denied
            | Self::Unhealthy
            | Self::RateLimited
            | Self::SourceLimited
            | Self::Unreachable
            | Self::NoPort
            | Self::Shortage => true,
            Self::Overflow | Self::Loop | Self::OtherInterface | Self::NotSentUp | Self::NotSentDown => false,
        }
    }

    /// The reasons of refused traffic.
    #[cfg(test)]
    pub(crate) fn refusals() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(|reason| reason.is_refusal()).map(|reason| reason.name())
    }
}

named! {
    /// An event of the connection IDs and tunnel indices that backends choose.
    AffinityEvent {
        /// A new session found its backend by one.
        Followed = "followed",
        /// One could not be remembered: the table is full, or it belongs to another backend.
        Refused = "refused",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEnd {
    end: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEvent {
    event: &'static str,
}

/// Counters made once, so that counting is one atomic addition.
#[derive(Debug)]
pub(crate) struct Udp {
    pub(super) started: Counter,
    pub(super) ended: Vec<Counter>,
    pub(super) active: Gauge,
    pub(super) dropped: Vec<Counter>,
    pub(super) datagrams_up: Counter,
    pub(super) datagrams_down: Counter,
    bytes_up: Counter,
    bytes_down: Counter,
    affinity: Vec<Counter>,
    lost_up: Counter,
    lost_down: Counter,
    pub(super) not_steered: Vec<Counter>,
}

impl Udp {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let ended = Family::<ByEnd, Counter>::default();
        let dropped = Family::<ByReason, Counter>::default();
        let datagrams = Family::<ByDirection, Counter>::default();
        let bytes = Family::<ByDirection, Counter>::default();
        let affinity = Family::<ByEvent, Counter>::default();
        let lost = Family::<ByDirection, Counter>::default();
        let not_steered = Family::<ByReason, Counter>::default();
        let (up, down) = (ByDirection { direction: "up" }, ByDirection { direction: "down" });
        let udp = Self {
            started: Counter::default(),
            ended: SessionEnd::ALL.iter().map(|end| member(&ended, &ByEnd { end: end.name() })).collect(),
            active: Gauge::default(),
            dropped: DatagramDrop::ALL.iter().map(|r| member(&dropped, &ByReason { reason: r.name() })).collect(),
            datagrams_up: member(&datagrams, &up),
            datagrams_down: member(&datagrams, &down),
            bytes_up: member(&bytes, &up),
            bytes_down: member(&bytes, &down),
            affinity: AffinityEvent::ALL.iter().map(|e| member(&affinity, &ByEvent { event: e.name() })).collect(),
            lost_up: member(&lost, &up),
            lost_down: member(&lost, &down),
            not_steered: NotSteered::ALL
                .iter()
                .map(|reason| member(&not_steered, &ByReason { reason: reason.name() }))
                .collect(),
        };
        registry.register("udp_sessions", "UDP sessions that got a backend", udp.started.clone());
        registry.register("udp_ended", "UDP sessions ended, by end", ended);
        registry.register("udp_active", "UDP sessions with a backend now", udp.active.clone());
        registry.register("udp_dropped", "Datagrams discarded, by reason", dropped);
        registry.register("udp_datagrams", "Datagrams forwarded", datagrams);
        registry.register_with_unit("udp_relayed", "Payload of forwarded datagrams", Unit::Bytes, bytes);
        registry.register("udp_affinity", "Connection IDs and tunnel indices, by event", affinity);
        let help = "UDP sessions that the kernel did not take, by reason";
        registry.register("udp_not_steered", help, not_steered);
        registry.register("udp_kernel_drops", "Datagrams for which a socket had no room", lost);
        udp
    }

    /// Counts a session that got a backend.
    pub(crate) fn started(&self) {
        self.started.inc();
        self.active.inc();
    }

    /// Counts the end of a session with a backend.
    pub(crate) fn ended(&self, end: SessionEnd) {
        self.active.dec();
        inc(&self.ended, end as usize, 1);
    }

    /// Counts discarded datagrams.
    pub(crate) fn dropped(&self, reason: DatagramDrop, count: u64) {
        inc(&self.dropped, reason as usize, count);
    }

    /// Counts datagrams forwarded to a backend.
    pub(crate) fn sent_up(&self, datagrams: u64, bytes: u64) {
        self.datagrams_up.inc_by(datagrams);
        self.bytes_up.inc_by(bytes);
    }

    /// Counts datagrams forwarded to clients.
    pub(crate) fn sent_down(&self, datagrams: u64, bytes: u64) {
        self.datagrams_down.inc_by(datagrams);
        self.bytes_down.inc_by(bytes);
    }

    /// Counts datagrams of clients for which a listening socket had no room.
    pub(crate) fn lost_up(&self, datagrams: u32) {
        self.lost_up.inc_by(u64::from(datagrams));
    }

    /// Counts datagrams of backends for which a session's socket had no room.
    pub(crate) fn lost_down(&self, datagrams: u32) {
        self.lost_down.inc_by(u64::from(datagrams));
    }

    /// All of those.
    #[must_use]
    pub(crate) fn lost(&self) -> u64 {
        self.lost_up.get() + self.lost_down.get()
    }

    /// Counts a session that the kernel did not take.
    pub(crate) fn stays(&self, reason: NotSteered) {
        inc(&self.not_steered, reason as usize, 1);
    }

    /// Counts an event of a connection ID or index.
    pub(crate) fn affinity(&self, event: AffinityEvent) {
        inc(&self.affinity, event as usize, 1);
    }
}

/// The lists are in the order of the discriminants.
fn inc(counters: &[Counter], index: usize, by: u64) {
    if let Some(counter) = counters.get(index) {
        counter.inc_by(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn counters_show_under_their_documented_names() {
        let metrics = Metrics::new();
        let udp = metrics.udp();
        udp.started();
        udp.started();
        udp.ended(SessionEnd::Evicted);
        udp.dropped(DatagramDrop::NotSentDown, 3);
        udp.sent_up(2, 100);
        udp.sent_down(1, 7);
        udp.affinity(AffinityEvent::Refused);
        udp.stays(NotSteered::Failed);
        udp.lost_up(5);
        udp.lost_down(1);
        assert_eq!(udp.lost(), 6);
        let text = metrics.encode().unwrap();
        for line in [
            "rpxy_l4_udp_sessions_total 2",
            "rpxy_l4_udp_active 1",
            "rpxy_l4_udp_ended_total{end=\"evicted\"} 1",
            "rpxy_l4_udp_dropped_total{reason=\"not_sent_down\"} 3",
            "rpxy_l4_udp_datagrams_total{direction=\"up\"} 2",
            "rpxy_l4_udp_relayed_bytes_total{direction=\"down\"} 7",
            "rpxy_l4_udp_kernel_drops_total{direction=\"up\"} 5",
            "rpxy_l4_udp_affinity_total{event=\"refused\"} 1",
            "rpxy_l4_udp_not_steered_total{reason=\"failed\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let documentation = include_str!("../../../docs/metrics.md");
        let labels = SessionEnd::ALL
            .iter()
            .map(|end| end.name())
            .chain(DatagramDrop::ALL.iter().map(|reason| reason.name()))
            .chain(AffinityEvent::ALL.iter().map(|event| event.name()));
        for label in labels {
            assert!(documentation.contains(&format!("`{label}`")), "docs/metrics.md does not explain {label}");
        }
    }
}
