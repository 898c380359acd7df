//! One target.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    num::{NonZeroU16, NonZeroU32},
    path::Path,
    sync::Arc,
};

/// The part of a QUIC connection ID that tells its server, behind the first byte; 1 to 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerId(Box<[u8]>);

impl ServerId {
    /// The longest, in bytes (draft-ietf-quic-load-balancers section 3.1).
    pub(crate) const LONGEST: usize = 15;

    /// `None` when there are too few or too many bytes.
    #[must_use]
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        (1..=Self::LONGEST).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// Address or name.
    pub host: Host,
    /// Port. 0 is accepted as 0.2.x does (with a warning): such a target can never be reached.
    pub port: u16,
    /// Share of the connections relative to the other targets of the group; 1 unless told. 1 to 256.
    pub weight: NonZeroU16,
    /// Used only when no target without this mark can be reached.
    pub backup: bool,
    /// Never chosen, but known: what it has already goes on.
    pub down: bool,
    /// Connections or sessions at once, of all rules over its transport that name it with this limit; `None` is no other limit than theirs. A reload
    /// closes none.
    pub max_connections: Option<NonZeroU32>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip { address, scope } => socket_address(*address, *scope, self.port).fmt(f),
            Host::LinkLocal { address, zone } => write!(f, "[{address}%{zone}]:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Srv(name) => write!(f, "srv:{name}"),
            Host::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Target {
    /// The socket address, when neither a name nor an interface has to be looked up.
    #[must_use]
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip { address, scope } => Some(socket_address(address, scope, self.port)),
            Host::LinkLocal { .. } | Host::Name(_) | Host::Srv(_) | Host::Unix(_) => None,
        }
    }
}

/// The socket address of these parts; the scope is that of a link-local one.
#[must_use]
pub(crate) fn socket_address(address: IpAddr, scope: u32, port: u16) -> SocketAddr {
    match address {
        IpAddr::V4(address) => SocketAddrV4::new(address, port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope).into(),
    }
}

/// Returns whether a backend can have this address: not one that means any, many or all hosts.
#[must_use]
pub(crate) fn is_one_host(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast()),
    }
}

/// Address or name of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// A literal address.
    Ip {
        /// The address.
        address: IpAddr,
        /// IPv6 scope id (`sin6_scope_id`) of a link-local address; 0 otherwise.
        scope: u32,
    },
    /// A link-local address on an interface that is known by its name; its index is looked up for each connection and session,
    /// since interfaces come and go.
    LinkLocal {
        /// The address.
        address: Ipv6Addr,
        /// Name of the interface.
        zone: Arc<str>,
    },
    /// A name to resolve; lower case, without a trailing dot.
    Name(Arc<str>),
    /// A name whose SRV records tell hosts and ports; lower case, without a trailing dot unless it is complete. The port is 0.
    Srv(Arc<str>),
    /// A unix socket (TCP only), by an absolute path of [`MAX_SOCKET_PATH`](super::MAX_SOCKET_PATH) bytes at most. Its port is 0.
    Unix(Arc<Path>),
}
