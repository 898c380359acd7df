//! Settings of TCP listeners.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

#[cfg(feature = "proxy-protocol")]
use super::ReceiveProxy;
use super::{LimitOf, NewSessions, SourcePrefix, Upstream};

/// What a TLS client gets whose hello matches no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TlsRefused {
    /// The end of the connection, as in 0.2.x.
    #[default]
    Close,
    /// The fatal alert `unrecognized_name` (RFC 6066 section 3) before that.
    Alert,
}

/// TCP settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tcp {
    /// Length of the kernel's accept queue, in connections.
    pub backlog: u32,
    /// Connections at once.
    pub max_connections: NonZeroU32,
    /// The listeners that `max_connections` is for.
    pub max_connections_of: LimitOf,
    /// Connections at once of one source network; `None` is no other limit than that of all.
    pub max_connections_per_source: Option<NonZeroU32>,
    /// The listeners that `max_connections_per_source` is for.
    pub max_connections_per_source_of: LimitOf,
    /// Rate at which a source network may begin connections; `None` is no limit.
    pub new_connections: Option<NewSessions>,
    /// The listeners that `new_connections` is for.
    pub new_connections_of: LimitOf,
    /// Bits of a source network.
    pub source_prefix: SourcePrefix,
    /// Time for recognising the protocol, from the end of the PROXY header, or from accept without one.
    pub probe_timeout: Duration,
    /// Time for one attempt to connect to one address of a target.
    pub connect_timeout: Duration,
    /// Targets tried for one connection.
    pub connect_attempts: NonZeroU32,
    /// Addresses of this machine that connections to backends of their family come from, in turn, without duplicates; the
    /// kernel's choice for a family that has none. A reload applies to new connections.
    pub source_addresses: Arc<[IpAddr]>,
    /// A relayed connection without a byte in either direction for this long is closed; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// The same once the client has ended its side and the backend has not; `None` is never.
    pub half_closed_timeout: Option<Duration>,
    /// The same once the backend has ended its side and the client has not; `None` is never.
    pub backend_closed_timeout: Option<Duration>,
    /// A relayed connection with bytes that wait for a side that has taken none for this long is closed; `None` is never.
    pub stall_timeout: Option<Duration>,
    /// Time for which a target that could not be reached is tried last.
    pub target_retry: Duration,
    /// Destination of connections that no rule claims; `None` means that they are closed.
    pub default: Option<Upstream>,
    /// What a refused TLS client gets. A reload applies to new connections.
    pub tls_refused: TlsRefused,
    /// Inbound PROXY protocol; `None` means that clients speak first-hand.
    #[cfg(feature = "proxy-protocol")]
    pub receive_proxy: Option<ReceiveProxy>,
}
