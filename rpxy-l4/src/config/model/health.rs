//! The `[health.*]` tables, as a rule asks for them.

use std::{num::NonZeroU16, ops::RangeInclusive, sync::Arc, time::Duration};

#[cfg(feature = "proxy-protocol")]
use super::ProxyVersion;

/// How the targets of a rule are asked whether they live.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Check {
    /// Name of the table.
    pub name: Arc<str>,
    /// What is asked.
    pub kind: CheckKind,
    /// The port that is asked, `None` for the target's own.
    pub port: Option<NonZeroU16>,
    /// The header in front of what is asked over TCP: the one that the rule's connections have, with the statement that
    /// the daemon speaks for itself. `None` on a port of its own.
    #[cfg(feature = "proxy-protocol")]
    pub send_proxy: Option<ProxyVersion>,
    /// Between the beginnings of two checks of one address.
    pub interval: Duration,
    /// Limit on one check; at most the interval, so that two never overlap.
    pub timeout: Duration,
    /// Failed checks in a row after which an address is down.
    pub fall: NonZeroU16,
    /// Passed checks in a row after which it is up again.
    pub rise: NonZeroU16,
    /// Connections and sessions of an address that goes down are ended.
    pub close: bool,
}

impl Check {
    /// Tells checks of one table from each other: how they introduce themselves.
    #[must_use]
    pub(crate) fn variant(&self) -> u8 {
        #[cfg(feature = "proxy-protocol")]
        return match self.send_proxy {
            None => 0,
            Some(ProxyVersion::V1) => 1,
            Some(ProxyVersion::V2) => 2,
        };
        #[cfg(not(feature = "proxy-protocol"))]
        0
    }

    /// Returns whether the answer to this check tells as much as one to `other`, whenever they are asked.
    #[must_use]
    pub(crate) fn asks_like(&self, other: &Self) -> bool {
        (&self.kind, self.port, self.variant()) == (&other.kind, other.port, other.variant())
    }
}

/// What is asked of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum CheckKind {
    /// TCP: it accepts a connection.
    Connect,
    /// TCP: it answers a ClientHello with a ServerHello.
    Tls {
        /// The name in the hello; `None` for the target's own, if it is a name.
        server_name: Option<Arc<str>>,
    },
    /// TCP: it answers a request with one of some statuses.
    Http(HttpCheck),
    /// TCP: it takes these bytes, and says those.
    Stream {
        /// Sent once connected; may be empty.
        send: Arc<[u8]>,
        /// In the answer; `None` asks for none.
        expect: Option<Arc<[u8]>>,
    },
    /// UDP: it answers this datagram.
    Datagram {
        /// Not empty.
        send: Arc<[u8]>,
        /// In the answer; `None` is content with silence, so that only a refusal fails.
        expect: Option<Arc<[u8]>>,
    },
    /// UDP: it answers a version that does not exist with Version Negotiation.
    Quic,
}

impl CheckKind {
    /// Returns whether it asks over UDP.
    #[must_use]
    pub(crate) fn is_udp(&self) -> bool {
        match self {
            Self::Datagram { .. } | Self::Quic => true,
            Self::Connect | Self::Tls { .. } | Self::Http(_) | Self::Stream { .. } => false,
        }
    }
}

/// A request and the statuses that pass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HttpCheck {
    /// Starts with a slash; visible ASCII.
    pub path: Arc<str>,
    /// The `Host`; `None` for the target as in the file.
    pub host: Option<Arc<str>>,
    /// Not empty, each within 100 to 599.
    pub status: Vec<RangeInclusive<u16>>,
}
