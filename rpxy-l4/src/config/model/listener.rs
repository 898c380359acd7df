//! Listeners: the top of the file and the `[listeners.*]` tables.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    path::Path,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};

use super::{Rule, Tcp, Transport, Udp, Unmatched};

/// Name of the listener that the top of the file describes.
pub(crate) const TOP: &str = "default";

/// Sockets with settings, default targets and rules of their own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listener {
    /// [`TOP`], or the table's name.
    pub name: Arc<str>,
    /// Its sockets.
    pub listen: Listen,
    /// Clients that it takes. A reload applies to new connections, and ends the UDP sessions of those that it takes no
    /// more.
    pub access: AccessLists,
    /// Treatment of TLS, QUIC, HTTP and WireGuard that fits no rule of its protocol.
    pub unmatched: Unmatched,
    /// TCP settings.
    pub tcp: Tcp,
    /// UDP settings.
    pub udp: Udp,
    /// The rules that belong to it, in file order.
    pub rules: Vec<Arc<Rule>>,
}

impl Listener {
    /// Returns whether its sockets serve `transport`: there is somewhere to send the traffic.
    #[must_use]
    pub(crate) fn serves(&self, transport: Transport) -> bool {
        let has_destination = match transport {
            Transport::Tcp => self.tcp.default.is_some() || self.rules.iter().any(|rule| !rule.matcher.is_udp()),
            Transport::Udp => self.udp.default.is_some() || self.rules.iter().any(|rule| rule.matcher.is_udp()),
        };
        has_destination && self.listen.transport.is_none_or(|only| only == transport)
    }

    /// Its sockets but a unix one: every address with every port, for each transport that it serves.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (Transport, &ListenAddress, NonZeroU16)> {
        let Listen { ports, addresses, .. } = &self.listen;
        let served = [Transport::Tcp, Transport::Udp].into_iter().filter(|transport| self.serves(*transport));
        served.flat_map(move |transport| {
            addresses.iter().flat_map(move |address| ports.iter().map(move |port| (transport, address, *port)))
        })
    }
}

/// Networks without duplicates whose clients a listener takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AccessLists {
    /// Networks that may connect; `None` is all.
    pub allow: Option<Vec<IpNet>>,
    /// Networks that may not, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

/// Listening sockets: every address with every port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen {
    /// Without duplicates, in file order; empty only for a `default` beside other listeners.
    pub ports: Vec<NonZeroU16>,
    /// At least one, without duplicates, v4 before v6.
    pub addresses: Vec<ListenAddress>,
    /// A unix socket for TCP rules.
    pub unix: Option<UnixListen>,
    /// The only transport that is served; `None` is each that has a destination.
    pub transport: Option<Transport>,
    /// Listen also on addresses that this machine does not have (yet).
    pub free_bind: bool,
    /// Share the ports with other processes (SO_REUSEPORT without the exclusive probe).
    pub reuse_port: bool,
}

/// A unix socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnixListen {
    /// Absolute, of [`MAX_SOCKET_PATH`](super::MAX_SOCKET_PATH) bytes at most.
    pub path: Arc<Path>,
    /// Permissions of its file.
    pub mode: u32,
    /// ID of the group of its file; `None` is that of the daemon.
    pub group: Option<u32>,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ListenAddress {
    /// An IPv4 address; `0.0.0.0` means all.
    V4(Ipv4Addr),
    /// An IPv6 address; sockets are v6-only. `::` means all.
    V6 {
        /// The address.
        address: Ipv6Addr,
        /// Interface name or index of a link-local address (`fe80::1%eth0`), looked up when the socket is bound.
        zone: Option<String>,
    },
}

impl ListenAddress {
    /// Returns whether this is `address`; `None` if it is all of the machine's own of its family.
    #[must_use]
    pub(crate) fn includes(&self, address: IpAddr) -> Option<bool> {
        let (own, same_family): (IpAddr, bool) = match self {
            Self::V4(own) => ((*own).into(), address.is_ipv4()),
            Self::V6 { address: own, .. } => ((*own).into(), address.is_ipv6()),
        };
        if own.is_unspecified() && same_family { None } else { Some(own == address) }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6 { address, zone: None } => write!(f, "[{address}]"),
            Self::V6 { address, zone: Some(zone) } => write!(f, "[{address}%{zone}]"),
        }
    }
}

/// Without bits beyond the prefix; IPv4 in IPv6 clothes is IPv4, which is how clients are compared.
pub(crate) fn canonical(network: IpNet) -> IpNet {
    let network = network.trunc();
    let IpNet::V6(v6) = network else { return network };
    let unmapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let v4 = unmapped.and_then(|(address, len)| Ipv4Net::new(address, len).ok());
    v4.map_or(network, IpNet::V4)
}
