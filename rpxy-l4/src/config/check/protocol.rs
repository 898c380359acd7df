//! The protocols that a rule can name, and what each of them has.

use std::time::Duration;

use super::duration;

/// The value of the key `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleProtocol {
    Http,
    Tls,
    Ssh,
    Socks5,
    WireGuard,
    Quic,
}

pub(super) const PROTOCOLS: &[(&str, RuleProtocol)] = &[
    ("http", RuleProtocol::Http),
    ("tls", RuleProtocol::Tls),
    ("ssh", RuleProtocol::Ssh),
    ("socks5", RuleProtocol::Socks5),
    ("wireguard", RuleProtocol::WireGuard),
    ("quic", RuleProtocol::Quic),
];

impl RuleProtocol {
    pub(super) fn is_udp(self) -> bool {
        match self {
            Self::WireGuard | Self::Quic => true,
            Self::Http | Self::Tls | Self::Ssh | Self::Socks5 => false,
        }
    }

    /// Idle lifetime of a session when the rule does not say.
    pub(super) fn idle_lifetime(self) -> Option<Duration> {
        match self {
            Self::WireGuard => Some(duration::WIREGUARD_IDLE),
            Self::Quic => Some(duration::QUIC_IDLE),
            Self::Http | Self::Tls | Self::Ssh | Self::Socks5 => None,
        }
    }

    /// Connections of the protocol start with a ClientHello.
    pub(super) fn has_hello(self) -> bool {
        match self {
            Self::Tls | Self::Quic => true,
            Self::Http | Self::Ssh | Self::Socks5 | Self::WireGuard => false,
        }
    }
}
