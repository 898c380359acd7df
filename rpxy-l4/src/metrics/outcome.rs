//! The ends of TCP connections: each ends in exactly one.

/// End of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// Both sides finished in good order.
    Closed,
    /// The client broke off (reset, or an error on its socket).
    ClientReset,
    /// The backend broke off.
    BackendReset,
    /// No byte either way for `tcp_idle_timeout`.
    Idle,
    /// One side had ended, and no byte came for `tcp_half_closed_timeout` or `tcp_backend_closed_timeout`.
    HalfClosed,
    /// Bytes waited for a side that took none for `tcp_stall_timeout`.
    Stalled,
    /// Over `tcp_max_connections`.
    TooMany,
    /// Over `tcp_max_connections_per_source`.
    SourceConnections,
    /// Over `tcp_new_connections_per_source`.
    SourceRate,
    /// From a banned network.
    Banned,
    /// Not from a network that the listener takes: `allow`, `deny`.
    Denied,
    /// Inbound PROXY header: the peer is not in `tcp_trusted_proxies`.
    ProxyUntrusted,
    /// Inbound PROXY header: missing or malformed.
    ProxyInvalid,
    /// Inbound PROXY header: not complete in time, or the peer stopped writing before it was.
    ProxyIncomplete,
    /// Not recognised in time (or at all), and there is no default target.
    NotRecognised,
    /// Recognised, but no rule of its protocol fits.
    Unmatched,
    /// Encrypted Client Hello that no correct client sends.
    EchInvalid,
    /// The rule has as many connections as it may have.
    RuleConnections,
    /// So has each of its targets.
    TargetConnections,
    /// No target could be reached.
    Unreachable,
    /// No target could be reached for want of a local port.
    NoPort,
    /// No target was up, and the rule is for healthy ones alone.
    Unhealthy,
    /// A check found its target to be down.
    TargetDown,
    /// The client went away before it had a backend.
    ClientGone,
    /// An operator closed it.
    Admin,
    /// The daemon stopped first.
    Drained,
    /// A bug: the connection's task panicked.
    InternalError,
}

impl Outcome {
    pub(super) const ALL: [Self; 27] = [
        Self::Closed,
        Self::ClientReset,
        Self::BackendReset,
        Self::Idle,
        Self::HalfClosed,
        Self::Stalled,
        Self::TooMany,
        Self::SourceConnections,
        Self::SourceRate,
        Self::Banned,
        Self::Denied,
        Self::ProxyUntrusted,
        Self::ProxyInvalid,
        Self::ProxyIncomplete,
        Self::NotRecognised,
        Self::Unmatched,
        Self::EchInvalid,
        Self::RuleConnections,
        Self::TargetConnections,
        Self::Unreachable,
        Self::NoPort,
        Self::Unhealthy,
        Self::TargetDown,
        Self::ClientGone,
        Self::Admin,
        Self::Drained,
        Self::InternalError,
    ];

    /// The outcome as logs write it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::Idle => "idle",
            Self::HalfClosed => "half_closed",
            Self::Stalled => "stalled",
            Self::TooMany => "too_many",
            Self::SourceConnections => "source_connections",
            Self::SourceRate => "source_rate",
            Self::Banned => "banned",
            Self::Denied => "denied",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::ProxyInvalid => "proxy_invalid",
            Self::ProxyIncomplete => "proxy_incomplete",
            Self::NotRecognised => "not_recognised",
            Self::Unmatched => "unmatched",
            Self::EchInvalid => "ech_invalid",
            Self::RuleConnections => "rule_connections",
            Self::TargetConnections => "target_connections",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no_port",
            Self::Unhealthy => "unhealthy",
            Self::TargetDown => "target_down",
            Self::ClientGone => "client_gone",
            Self::Admin => "admin",
            Self::Drained => "drained",
            Self::InternalError => "internal_error",
        }
    }
}

impl Outcome {
    /// Returns whether a connection that ends so before it has a backend was turned away, and gets a line in the access
    /// log: not where the client itself or the daemon's end is the reason.
    #[must_use]
    pub(crate) fn is_refusal(self) -> bool {
        match self {
            Self::TooMany
            | Self::SourceConnections
            | Self::SourceRate
            | Self::Banned
            | Self::Denied
            | Self::ProxyUntrusted
            | Self::ProxyInvalid
            | Self::ProxyIncomplete
            | Self::NotRecognised
            | Self::Unmatched
            | Self::EchInvalid
            | Self::RuleConnections
            | Self::TargetConnections
            | Self::Unreachable
            | Self::Unhealthy
            | Self::NoPort => true,
            Self::Closed
            | Self::ClientReset
            | Self::BackendReset
            | Self::Idle
            | Self::HalfClosed
            | Self::Stalled
            | Self::TargetDown
            | Self::ClientGone
            | Self::Admin
            | Self::Drained
            | Self::InternalError => false,
        }
    }

    /// The reasons of refused connections.
    #[cfg(test)]
    pub(crate) fn refusals() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(|outcome| outcome.is_refusal()).map(Self::name)
    }
}
