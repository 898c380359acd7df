//! Messages of the kernel, as far as they matter here.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteAddress,
};

/// Something is so, from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::offload) enum Event {
    /// A link is there, or has changed.
    Link(Link),
    /// A link is gone.
    NoLink(u32),
    /// This machine has an address.
    Address {
        /// The interface that has it.
        interface: u32,
        /// The address.
        address: IpAddr,
    },
    /// This machine has an address no longer.
    NoAddress {
        /// The interface that had it.
        interface: u32,
        /// The address.
        address: IpAddr,
    },
    /// A neighbour has this Ethernet address; `None` when it is not known any more.
    Neighbour {
        /// The link.
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
pub(in crate::offload) struct Link {
    pub(in crate::offload) index: u32,
    pub(in crate::offload) name: String,
    pub(in crate::offload) up: bool,
    pub(in crate::offload) loopback: bool,
    /// Frames begin with an Ethernet header.
    pub(in crate::offload) ethernet: bool,
    /// Largest IP packet, in bytes.
    pub(in crate::offload) mtu: u32,
    /// Ethernet address.
    pub(in crate::offload) mac: [u8; 6],
    /// What kind of virtual device it is, such as `veth`.
    pub(in crate::offload) kind: Option<String>,
    /// On a bus: a network card, also that of a virtual machine.
    pub(in crate::offload) physical: bool,
    /// An XDP program is attached.
    pub(in crate::offload) has_xdp: bool,
}

impl Event {
    /// What a message says.
    pub(super) fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        match message {
            // Bridges tell of their ports in messages of a family of their own: a port that leaves is no link that goes.
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)
                if link.header.interface_family != AddressFamily::Unspec =>
            {
                None
            }
            // Wireless drivers tell of other things than the link, without its name.
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
            // Next hops (RTM_NEWNEXTHOP) are not among the messages that the crate knows: they come without payload.
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
        // Incomplete, failed; without ARP there is no Ethernet address to write.
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
