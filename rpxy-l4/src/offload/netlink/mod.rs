//! What the kernel tells over rtnetlink of links, addresses, neighbours and routes, and the few things asked of it.
//!
//! Messages become the types of [`event`]; what cannot be read is passed over, since newer kernels say more than this
//! program knows. Sockets are blocking: the kernel answers at once.
#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel says more than matters here, and more each year")]

mod event;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub(super) use event::{Event, Link};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::LinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Groups of events that change where a packet goes (`RTNLGRP_*`).
const GROUPS: [u32; 9] = [
    1,  // LINK
    3,  // NEIGH
    5,  // IPV4_IFADDR
    7,  // IPV4_ROUTE
    8,  // IPV4_RULE
    9,  // IPV6_IFADDR
    11, // IPV6_ROUTE
    19, // IPV6_RULE
    32, // NEXTHOP
];
/// Room for events while the thread is busy, in bytes. When it overflows, everything is read again.
const EVENT_BUFFER: usize = 1 << 20;

/// Where packets to a destination go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// The interface that they leave by.
    pub(super) interface: u32,
    /// The neighbour that takes them: the gateway, or the destination itself.
    pub(super) next: IpAddr,
    /// MTU of the route, where it has one of its own.
    pub(super) mtu: Option<u32>,
    /// The destination is this machine.
    pub(super) local: bool,
}

/// A socket that asks.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Everything there is: links first, since the rest refers to them.
    pub(super) fn state(&mut self) -> io::Result<Vec<Event>> {
        let questions = [
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
        ];
        let mut events = Vec::new();
        for question in questions {
            let answers = self.ask(question, NLM_F_DUMP)?;
            events.extend(answers.iter().filter_map(Event::of));
        }
        Ok(events)
    }

    /// The route that a packet of this machine from `source` to `destination` takes. A source that no interface has
    /// (AnyIP, transparent proxying) is refused by the kernel: better left out.
    pub(super) fn route(&mut self, destination: IpAddr, source: Option<IpAddr>) -> io::Result<Route> {
        let mut question = RouteMessage::default();
        let (family, bits) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        question.header.address_family = family;
        question.header.destination_prefix_length = bits;
        question.attributes.push(RouteAttribute::Destination(destination.into()));
        if let Some(source) = source {
            question.header.source_prefix_length = bits;
            question.attributes.push(RouteAttribute::Source(source.into()));
        }
        let answers = self.ask(RouteNetlinkMessage::GetRoute(question), 0)?;
        let route = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => read_route(route, destination),
            _ => None,
        });
        route.ok_or_else(|| io::Error::from_raw_os_error(libc::ENETUNREACH))
    }

    /// Has the kernel resolve or confirm a neighbour, as if a packet were sent to it. Its events tell the result.
    pub(super) fn use_neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = interface;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(address.into()));
        self.ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_ACK).map(drop)
    }

    /// Sends a request and collects what it brings.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            for (header, payload) in messages(&bytes).filter(|(header, _)| header.sequence_number == self.sequence) {
                match payload {
                    Some(NetlinkPayload::Error(error)) if error.code.is_none() => return Ok(answers),
                    Some(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                    Some(NetlinkPayload::Done(_)) => return Ok(answers),
                    Some(NetlinkPayload::InnerMessage(answer)) => answers.push(answer),
                    Some(_) | None => {}
                }
                // A single answer is not followed by an end.
                if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 && header.message_type > LAST_CONTROL {
                    return Ok(answers);
                }
            }
        }
    }
}

/// Types of messages above this one carry something (`NLMSG_MIN_TYPE`).
const LAST_CONTROL: u16 = 15;

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Events {
    /// Readable when there are events.
    pub(super) socket: Socket,
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // The default is smaller; more than the system allows is cut, which is no error.
        drop(socket.set_rx_buf_sz(EVENT_BUFFER));
        socket.bind_auto()?;
        for group in GROUPS {
            match socket.add_membership(group) {
                // The newest group is younger than the oldest kernel.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => result?,
            }
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// What has happened since the last call; `None` when some of it was lost.
    pub(super) fn read(&self) -> io::Result<Option<Vec<Event>>> {
        let mut events = Vec::new();
        let mut lost = false;
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => {
                    for (_, payload) in messages(&bytes) {
                        match payload {
                            Some(NetlinkPayload::InnerMessage(message)) => events.extend(Event::of(&message)),
                            Some(_) => {}
                            // Something has changed that cannot be read.
                            None => events.push(Event::Route),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) => return Err(error),
            }
        }
        Ok((!lost).then_some(events))
    }
}

/// The messages of a datagram; without payload where that cannot be read.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (NetlinkHeader, Option<NetlinkPayload<RouteNetlinkMessage>>)> {
    std::iter::from_fn(move || {
        let length = bytes.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length))?;
        let length = usize::try_from(length).ok()?.max(16);
        let message = bytes.get(..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(read(message))
    })
}

fn read(message: &[u8]) -> (NetlinkHeader, Option<NetlinkPayload<RouteNetlinkMessage>>) {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
        Ok(message) => (message.header, Some(message.payload)),
        Err(_) => (read_header(message), None),
    }
}

/// The header of a message whose payload cannot be read (RFC 3549 section 2.3.2).
fn read_header(message: &[u8]) -> NetlinkHeader {
    let mut header = NetlinkHeader::default();
    if let Some(&[_, _, _, _, t0, t1, _, _, s0, s1, s2, s3]) = message.first_chunk::<12>() {
        header.message_type = u16::from_ne_bytes([t0, t1]);
        header.sequence_number = u32::from_ne_bytes([s0, s1, s2, s3]);
    }
    header
}

fn read_route(route: &RouteMessage, destination: IpAddr) -> Option<Route> {
    let mut read = Route { interface: 0, next: destination, mtu: None, local: false };
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => read.local = true,
        // Broadcast, multicast, and the refusals.
        _ => return None,
    }
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(interface) => read.interface = *interface,
            RouteAttribute::Gateway(gateway) => read.next = event::route_address(gateway)?,
            RouteAttribute::Via(RouteVia::Inet(gateway)) => read.next = (*gateway).into(),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => read.next = (*gateway).into(),
            RouteAttribute::Metrics(metrics) => {
                read.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            // What leaves in a tunnel of the route's own cannot be repeated (MPLS, SRv6).
            RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    (read.interface != 0).then_some(read)
}

/// Addresses that stay on one machine or reach many.
pub(super) fn is_plain(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address != Ipv4Addr::UNSPECIFIED && address != Ipv4Addr::BROADCAST && !address.is_multicast()
        }
        IpAddr::V6(address) => address != Ipv6Addr::UNSPECIFIED && !address.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback() {
        let state = Netlink::open().unwrap().state().unwrap();
        let loopback = state.iter().any(|event| matches!(event, Event::Link(link) if link.loopback));
        assert!(loopback, "{state:?}");
    }

    #[test]
    fn loopback_is_local() {
        let mut netlink = Netlink::open().unwrap();
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert!(netlink.route(loopback, Some(loopback)).unwrap().local);
        assert!(netlink.route(loopback, Some(Ipv4Addr::new(192, 0, 2, 9).into())).is_err(), "a source of nobody");
        assert!(netlink.route(loopback, None).unwrap().local, "and the socket still works");
        assert!(netlink.route(Ipv4Addr::BROADCAST.into(), None).is_err());
    }

    #[test]
    fn messages_of_a_datagram() {
        let header = |length: u32| {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes
        };
        let rows: &[(&str, Vec<u8>, usize)] = &[
            ("nothing", vec![], 0),
            ("cut header", header(20)[..12].to_vec(), 0),
            ("cut payload", header(24).to_vec(), 0),
            ("length of nothing", header(0).to_vec(), 1),
            ("one", header(20).to_vec(), 1),
            ("two", [header(20), header(20)].concat(), 2),
            ("padded", [&header(19)[..], &header(20)[..]].concat(), 2),
        ];
        for (name, bytes, count) in rows {
            assert_eq!(messages(bytes).count(), *count, "{name}");
        }
    }
}
