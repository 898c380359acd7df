//! Counters of hellos where a rule has keys for Encrypted Client Hello.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use rpxy_l4_proto::ech::Rejection;

use super::{Metrics, member};

/// The state of one hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EchState {
    /// Decrypted; it goes to a private backend, or nowhere if its name is not listed.
    Accepted,
    /// Without the extension.
    NotOffered,
    /// Made for a configuration that is not here, or grease.
    UnknownConfig,
    /// With a cipher suite that its configuration does not offer.
    UnknownSuite,
    /// Not tried: too many from its network had failed.
    Limited,
    /// Tried in vain.
    Undecryptable,
    /// Malformed, or otherwise not what a client sends.
    Invalid,
    /// Not looked at, because the rule says `policy = "rejected"`.
    SwitchedOff,
}

impl EchState {
    const ALL: [Self; 8] = [
        Self::Accepted,
        Self::NotOffered,
        Self::UnknownConfig,
        Self::UnknownSuite,
        Self::Limited,
        Self::Undecryptable,
        Self::Invalid,
        Self::SwitchedOff,
    ];

    /// The name that is written like `text`.
    pub(crate) fn known(text: &str) -> Option<&'static str> {
        Self::ALL.into_iter().map(Self::name).find(|name| *name == text)
    }

    /// As the counter and the access log write it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NotOffered => "not_offered",
            Self::UnknownConfig => "unknown_config",
            Self::UnknownSuite => "unknown_suite",
            Self::Limited => "limited",
            Self::Undecryptable => "undecryptable",
            Self::Invalid => "invalid",
            Self::SwitchedOff => "switched_off",
        }
    }
}

impl From<Rejection> for EchState {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::UnknownConfig => Self::UnknownConfig,
            Rejection::UnknownSuite => Self::UnknownSuite,
            Rejection::Limited => Self::Limited,
            Rejection::Undecryptable => Self::Undecryptable,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    transport: &'static str,
    state: &'static str,
}

/// Counters by state, in the order of [`EchState::ALL`], which is that of the discriminants.
#[derive(Debug)]
pub(super) struct Ech {
    tcp: [Counter; EchState::ALL.len()],
    udp: [Counter; EchState::ALL.len()],
}

impl Ech {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let family = Family::<Labels, Counter>::default();
        let of = |transport| EchState::ALL.map(|state| member(&family, &Labels { transport, state: state.name() }));
        let counters = Self { tcp: of("tcp"), udp: of("udp") };
        registry.register("ech_hellos", "Hellos at rules with keys for Encrypted Client Hello, by state", family);
        counters
    }

    pub(super) fn tcp(&self, state: EchState) {
        if let Some(counter) = self.tcp.get(state as usize) {
            counter.inc();
        }
    }

    pub(super) fn udp(&self, state: EchState) {
        if let Some(counter) = self.udp.get(state as usize) {
            counter.inc();
        }
    }
}

impl Metrics {
    /// A hello over TCP came to a rule with ECH keys.
    pub(crate) fn tcp_ech(&self, state: EchState) {
        self.ech.tcp(state);
    }

    /// A hello over QUIC came to a rule with ECH keys.
    pub(crate) fn udp_ech(&self, state: EchState) {
        self.ech.udp(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_listed_in_the_order_of_their_discriminants() {
        for (index, state) in EchState::ALL.iter().enumerate() {
            assert_eq!(*state as usize, index, "{}", state.name());
        }
    }
}
