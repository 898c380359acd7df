//! What the `[protocols.*]` tables say.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::ech::EchKeys;

use super::Upstream;

/// One `[protocols."<name>"]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The table's name.
    pub name: Arc<str>,
    /// What it matches.
    pub matcher: Matcher,
    /// Where matching traffic goes.
    pub upstream: Upstream,
    /// UDP protocols: idle lifetime of a session, `None` means no limit. Without effect on TCP protocols.
    pub idle_lifetime: Option<Duration>,
}

/// What a rule matches. An empty list of names or ALPNs matches any.
#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
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
        /// Which messages are taken for WireGuard.
        reserved: Reserved,
    },
    /// QUIC.
    Quic(TlsMatcher),
}

/// What the three reserved bytes after the type of a WireGuard message may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reserved {
    /// Zero, as WireGuard has it.
    #[default]
    Zero,
    /// Anything, as Cloudflare WARP clients send it.
    Any,
}

impl Matcher {
    /// Whether it is about datagrams.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        match self {
            Self::WireGuard { .. } | Self::Quic(_) => true,
            Self::Http { .. } | Self::Tls(_) | Self::Ssh | Self::Socks5 => false,
        }
    }
}

/// Conditions on a ClientHello.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsMatcher {
    /// Server names; empty matches any, also a hello without one.
    pub server_names: Vec<NamePattern>,
    /// ALPN protocol names, any of which must be offered; empty matches any.
    pub alpns: Vec<Arc<[u8]>>,
    /// Encrypted Client Hello keys.
    pub ech: Option<Arc<Ech>>,
}

/// A server name to match, lower case and without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// Exactly this name.
    Exact(Arc<str>),
    /// `*.` and this suffix: any name with at least one more label in front.
    Wildcard(Arc<str>),
}

/// The `[protocols."<name>".ech]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct Ech {
    /// Configurations with their private keys.
    pub keys: EchKeys,
    /// What happens to hellos with and without Encrypted Client Hello.
    pub policy: EchPolicy,
    /// Where decrypted hellos go: those of `private_server_names`, then the `private` tables, in file order.
    pub private: Vec<EchPrivate>,
}

/// What a rule with an `ech` table does with a hello. What is *rejected* (RFC 9849 section 7.1) goes by its outer hello
/// to the targets of the rule, which can hand out the present configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EchPolicy {
    /// What can be decrypted is; the rest is rejected.
    #[default]
    Allowed,
    /// As `Allowed`, but a hello without the extension is refused: closed over TCP, dropped over UDP.
    Required,
    /// Nothing is decrypted.
    Rejected,
}

/// Where decrypted hellos of some names go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchPrivate {
    /// Inner server names; not empty.
    pub server_names: Vec<NamePattern>,
    /// ALPN protocol names of the inner hello, any of which must be offered; empty matches any.
    pub alpns: Vec<Arc<[u8]>>,
    /// Where they go.
    pub upstream: Upstream,
}
