//! Events of rtnetlink that the kernel plane uses.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteAddress,
};

/// A change of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A link exists or has changed.
    Link(Link),
    /// A link is gone.
    NoLink(u32),
    /// This machine has an address.
    Address {
        /// Its interface.
        interface: u32,
        /// The address.
        address: IpAddr,
    },
    /// This machine no longer has an address.
    NoAddress {
        /// The interface that had it.
        interface: u32,
        /// The address.
        address: IpAddr,
    },
    /// A neighbour has this Ethernet address; `None` if it is no longer known.
    Neighbour {
        /// Interface that leads to it.
        interface: u32,
        /// Its IP address.
        address: IpAddr,
        /// Its Ethernet address.
        mac: Option<[u8; 6]>,
    },
    /// Some route, rule or next hop has changed.
    Route,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    /// Frames begin with an Ethernet header.
    pub(crate) ethernet: bool,
    /// Largest IP packet, in bytes.
    pub(crate) mtu: u32,
    /// Ethernet address.
    pub(crate) mac: [u8; 6],
    /// Kind of a virtual device, such as `veth`.
    pub(crate) kind: Option<String>,
    /// On a bus: a network card, including that of a virtual machine.
    pub(crate) physical: bool,
    /// An XDP program is attached.
    pub(crate) has_xdp: bool,
}

impl Event {
    /// Reads a message; `None` if it is of no interest.
    pub(super) fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        match message {
            // Bridges announce their ports in a separate family: a port that leaves is not a link that goes.
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)
                if link.header.interface_family != AddressFamily::Unspec =>
            {
                None
            }
            // Wireless drivers send events about other things, without the name of the link.
            RouteNetlinkMessage::NewLink(link) => {
                Some(read_link(link)).filter(|link| !link.name.is_empty()).map(Self::Link)
            }
            RouteNetlinkMessage::DelLink(link) => Some(Self::NoLink(link.header.index)),
            RouteNetlinkMessage::NewAddress(message) => {
                let (interface, address) = read_address(message)?;
                Some(Self::Address { interface, address })
            }
            RouteNetlinkMessage::DelAddress(message) => {
                let (interface, address) = read_address(message)?;
                Some(Self::NoAddress { interface, address })
            }
            RouteNetlinkMessage::NewNeighbour(message) => read_neighbour(message, true),
            RouteNetlinkMessage::DelNeighbour(message) => read_neighbour(message, false),
            // The crate does not know next hops (RTM_NEWNEXTHOP): they arrive without payload.
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewRule(_)
            | RouteNetlinkMessage::DelRule(_) => Some(Self::Route),
            _ => None,
        }
    }
}

fn read_link(message: &LinkMessage) -> Link {
    let header = &message.header;
    let mut link = Link {
        index: header.index,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::ParentDevBusName(_) => link.physical = true,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Xdp(xdp) => {
                link.has_xdp = xdp.iter().any(|xdp| matches!(xdp, LinkXdp::ProgId(id) if *id != 0));
            }
            _ => {}
        }
    }
    link
}

fn read_address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let local = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    };
    // On point-to-point links, and for IPv4 always, `Local` is ours; IPv6 has `Address` alone.
    let plain = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    let attributes = &message.attributes;
    let address = attributes.iter().find_map(local).or_else(|| attributes.iter().find_map(plain))?;
    Some((message.header.index, address))
}

fn read_neighbour(message: &NeighbourMessage, exists: bool) -> Option<Event> {
    let mut found = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => found = Some(IpAddr::from(*address)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => found = Some(IpAddr::from(*address)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let known = match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent => exists,
        // Incomplete or failed; without ARP there is no Ethernet address to write.
        _ => false,
    };
    Some(Event::Neighbour { interface: message.header.ifindex, address: found?, mac: mac.filter(|_| known) })
}

pub(super) fn route_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_what_only_looks_like_one() {
        let message = |family, name: Option<&str>| {
            let mut message = LinkMessage::default();
            message.header.interface_family = family;
            message.header.index = 7;
            message.attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
            message
        };
        let link = message(AddressFamily::Unspec, Some("eth0"));
        let expected = Link { index: 7, name: "eth0".to_owned(), ..Link::default() };
        assert_eq!(Event::of(&RouteNetlinkMessage::NewLink(link.clone())), Some(Event::Link(expected)));
        assert_eq!(Event::of(&RouteNetlinkMessage::DelLink(link)), Some(Event::NoLink(7)));
        let port = message(AddressFamily::Bridge, Some("eth0"));
        assert_eq!(Event::of(&RouteNetlinkMessage::NewLink(port.clone())), None, "port of a bridge");
        assert_eq!(Event::of(&RouteNetlinkMessage::DelLink(port)), None, "port that leaves its bridge");
        assert_eq!(Event::of(&RouteNetlinkMessage::NewLink(message(AddressFamily::Unspec, None))), None, "wireless");
    }

    #[test]
    fn neighbours_are_known_in_these_states() {
        let rows = [
            ("reachable", NeighbourState::Reachable, true),
            ("stale", NeighbourState::Stale, true),
            ("permanent", NeighbourState::Permanent, true),
            ("incomplete", NeighbourState::Incomplete, false),
            ("failed", NeighbourState::Failed, false),
            ("no ARP", NeighbourState::Noarp, false),
        ];
        for (name, state, known) in rows {
            let mut message = NeighbourMessage::default();
            message.header.state = state;
            message.attributes.push(NeighbourAttribute::Destination(IpAddr::from([192, 0, 2, 1]).into()));
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![1; 6]));
            let mac = |message| match Event::of(&message) {
                Some(Event::Neighbour { mac, .. }) => mac,
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(mac(RouteNetlinkMessage::NewNeighbour(message.clone())).is_some(), known, "{name}");
            assert_eq!(mac(RouteNetlinkMessage::DelNeighbour(message)), None, "{name}, gone");
        }
    }
}
