//! Settings of UDP listeners.

use std::{num::NonZeroU32, time::Duration};

use super::{LimitOf, NewSessions, Upstream};

/// UDP settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Udp {
    /// Sessions at once; `None` means as many as the limit on open files has room for, which the supervisor finds out.
    pub max_connections: Option<NonZeroU32>,
    /// The listeners that `max_connections` is for.
    pub max_connections_of: LimitOf,
    /// Receive buffer of each listening socket of each worker, in bytes; `None` means the usual one, as far as the kernel
    /// gives it. A reload applies to the sockets that there are.
    pub receive_buffer: Option<NonZeroU32>,
    /// Limit on new sessions per source network; `None` means no limit.
    pub new_sessions: Option<NewSessions>,
    /// The listeners that `new_sessions` is for.
    pub new_sessions_of: LimitOf,
    /// Destination of datagrams that no rule claims; `None` means that they are dropped.
    pub default: Option<Upstream>,
    /// Idle lifetime of sessions of the default destination; `None` means no limit.
    pub idle_lifetime: Option<Duration>,
    /// Time for which a target that refused is tried last; zero is not at all. Established sessions keep their target.
    pub target_retry: Duration,
    /// Treatment of stray datagrams. A reload applies to the next datagram.
    pub orphan: Orphan,
    /// Treatment of QUIC of a version whose names cannot be read. A reload leaves established sessions alone.
    pub unknown_version: UnknownVersion,
}

/// Treatment of stray datagrams, which belong to a QUIC connection or WireGuard tunnel that no known session has: short
/// headers with an unknown connection ID, and WireGuard types 2 to 4 with an unknown index. Only where there are rules
/// for the protocol; without any, they are like all other datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Orphan {
    /// Dropped.
    Drop,
    /// Sent to the default destination; dropped where there is none. The default, since a first byte of 0x40 to 0x7f is
    /// all that marks a short header: with `Drop`, other protocols behind `udp_target` would lose one datagram in four.
    #[default]
    Default,
    /// QUIC: sent to the target that `source_ip` gives, if one rule alone is about QUIC, so that several gateways with the
    /// same file agree without sharing state. Otherwise as by default.
    Balance,
}

/// Treatment of QUIC long headers of a version other than 1 and 2, where there are QUIC rules. Without any, they are
/// like all other datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum UnknownVersion {
    /// Dropped.
    Drop,
    /// Sent to the first QUIC rule with neither server names nor ALPNs, or else to the default destination; dropped
    /// where there is neither.
    #[default]
    Default,
}
