//! The `[protocols.*]` tables.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use ipnet::IpNet;
use rpxy_l4_proto::{ech::EchKeys, wireguard::Reserved};

use super::Upstream;

/// One `[protocols."<name>"]` table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    /// The table's name.
    pub name: Arc<str>,
    /// Its conditions on what clients send.
    pub matcher: Matcher,
    /// Networks that clients must come from, without duplicates; empty is any. A reload leaves established connections and
    /// sessions alone.
    pub from: Vec<IpNet>,
    /// Destination of matching traffic.
    pub upstream: Upstream,
    /// UDP protocols: idle lifetime of a session, `None` means no limit. Without effect on TCP protocols.
    pub idle_lifetime: Option<Duration>,
    /// UDP protocols: clients that change their address are followed by connection ID or index; true unless told. A reload
    /// changes it for what is learned from then on.
    pub affinity: bool,
    /// Connections or sessions at once; `None` is all places but those that other rules have a share in. A reload closes none.
    pub max_connections: Option<NonZeroU32>,
}

/// Conditions of a rule. An empty list of names or ALPNs matches any.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Matcher {
    /// Cleartext HTTP/1 or HTTP/2 with prior knowledge.
    Http {
        /// Host names; empty matches any.
        server_names: Vec<NamePattern>,
    },
    /// TLS.
    Tls(TlsMatcher),
    /// SSH.
    Ssh,
    /// SOCKS5.
    Socks5,
    /// WireGuard.
    WireGuard {
        /// Static public key of the server behind the rule; `None` takes initiations that fit no other rule's key.
        ///
        /// The key alone tells rules apart: of several with the same, or without, the first in the file wins.
        public_key: Option<[u8; 32]>,
        /// Accepted reserved bytes of a message; others are not WireGuard.
        reserved: Reserved,
    },
    /// QUIC.
    Quic(TlsMatcher),
}

impl Matcher {
    /// The protocol as the file writes it.
    #[must_use]
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tls(_) => "tls",
            Self::Ssh => "ssh",
            Self::Socks5 => "socks5",
            Self::WireGuard { .. } => "wireguard",
            Self::Quic(_) => "quic",
        }
    }

    /// Returns whether the protocol is over UDP.
    #[must_use]
    pub(crate) fn is_udp(&self) -> bool {
        match self {
            Self::WireGuard { .. } | Self::Quic(_) => true,
            Self::Http { .. } | Self::Tls(_) | Self::Ssh | Self::Socks5 => false,
        }
    }
}

/// Conditions on a ClientHello.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TlsMatcher {
    /// Server names; empty matches any, also a hello without one.
    pub server_names: Vec<NamePattern>,
    /// ALPN protocol names, any of which must be offered; empty matches any.
    pub alpns: Vec<Arc<[u8]>>,
    /// Encrypted Client Hello keys.
    pub ech: Option<Arc<Ech>>,
}

/// A server name to match, lower case and without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum NamePattern {
    /// Exactly this name.
    Exact(Arc<str>),
    /// `*.` and this suffix: any name with at least one more label in front.
    Wildcard(Arc<str>),
}

/// The `[protocols."<name>".ech]` table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ech {
    /// Configurations with their private keys.
    pub keys: EchKeys,
    /// Treatment of hellos with and without Encrypted Client Hello.
    pub policy: EchPolicy,
    /// Destinations of decrypted hellos: those of `private_server_names`, then the `private` tables, in file order.
    pub private: Vec<EchPrivate>,
}

/// Treatment of hellos by a rule with an `ech` table. A *rejected* one (RFC 9849 section 7.1) goes by its outer hello
/// to the targets of the rule, which can hand out the present configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EchPolicy {
    /// Hellos that open are decrypted; others are rejected.
    #[default]
    Allowed,
    /// As `Allowed`, but a hello without the extension is refused: closed over TCP, dropped over UDP.
    Required,
    /// Nothing is decrypted.
    Rejected,
}

/// Destination of decrypted hellos of some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EchPrivate {
    /// Inner server names; not empty.
    pub server_names: Vec<NamePattern>,
    /// ALPN protocol names of the inner hello, any of which must be offered; empty matches any.
    pub alpns: Vec<Arc<[u8]>>,
    /// Their destination.
    pub upstream: Upstream,
}
