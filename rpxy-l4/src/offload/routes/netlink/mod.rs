//! The rtnetlink client: events about links, addresses, neighbours and routes, and route look-ups.
//!
//! Messages become the types of [`event`]. Unknown messages are ignored, since newer kernels send more of them. Request
//! sockets are blocking: the kernel answers at once.
#![expect(clippy::wildcard_enum_match_arm, reason = "enums of the kernel's protocol grow with each release")]

mod event;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

pub(crate) use event::{Event, Link};
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

/// Multicast groups whose events can change where a packet goes (`RTNLGRP_*`).
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
/// Receive buffer for events, in bytes. After an overflow everything is read again.
const EVENT_BUFFER: usize = 1 << 20;

/// The way of packets to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// Outgoing interface.
    pub(crate) interface: u32,
    /// Neighbour that receives them: the gateway, or the destination itself.
    pub(crate) next: IpAddr,
    /// MTU of the route in bytes, if it has its own.
    pub(crate) mtu: Option<u32>,
    /// The destination is this machine.
    pub(crate) local: bool,
}

/// A request socket.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Reads all links, addresses and neighbours: links first, since the rest refers to them.
    pub(crate) fn state(&mut self) -> io::Result<Vec<Event>> {
        let requests = [
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
        ];
        let mut events = Vec::new();
        for request in requests {
            let answers = self.request(request, NLM_F_DUMP)?;
            events.extend(answers.iter().filter_map(Event::of));
        }
        Ok(events)
    }

    /// Looks up the route of packets that this machine sends from `source` to `destination`. The kernel refuses a source
    /// that no interface has (AnyIP, transparent proxying); pass `None` for those.
    pub(crate) fn route(&mut self, destination: IpAddr, source: Option<IpAddr>) -> io::Result<Route> {
        let mut request = RouteMessage::default();
        let (family, bits) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        request.header.address_family = family;
        request.header.destination_prefix_length = bits;
        request.attributes.push(RouteAttribute::Destination(destination.into()));
        if let Some(source) = source {
            request.header.source_prefix_length = bits;
            request.attributes.push(RouteAttribute::Source(source.into()));
        }
        let answers = self.request(RouteNetlinkMessage::GetRoute(request), 0)?;
        let route = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => read_route(route, destination),
            _ => None,
        });
        route.ok_or_else(|| io::Error::from_raw_os_error(libc::ENETUNREACH))
    }

    /// Returns whether this machine takes packets from `source` to its own address `destination` that arrive by `interface`:
    /// the kernel looks up their route as that of any first packet, through its reverse-path filter (`rp_filter`). An error
    /// that says nothing about that is passed on.
    pub(crate) fn takes(&mut self, source: Ipv4Addr, destination: Ipv4Addr, interface: u32) -> io::Result<bool> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        request.header.destination_prefix_length = 32;
        request.header.source_prefix_length = 32;
        request.attributes.push(RouteAttribute::Destination(IpAddr::from(destination).into()));
        request.attributes.push(RouteAttribute::Source(IpAddr::from(source).into()));
        request.attributes.push(RouteAttribute::Iif(interface));
        match self.request(RouteNetlinkMessage::GetRoute(request), 0) {
            Ok(_route) => Ok(true),
            // Of `fib_validate_source`; newer kernels have one number for all reasons (`inet_rtm_getroute`).
            Err(error) if matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EINVAL)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel resolve or confirm a neighbour, as if a packet were sent to it. The result arrives as an event.
    pub(crate) fn use_neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = interface;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(address.into()));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_ACK).map(drop)
    }

    /// Sends a request and collects the answers.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
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
                // A single answer has no terminating message.
                if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 && header.message_type > LAST_CONTROL {
                    return Ok(answers);
                }
            }
        }
    }
}

/// Message types above this one carry data (`NLMSG_MIN_TYPE`).
const LAST_CONTROL: u16 = 15;

/// A socket that receives events.
#[derive(Debug)]
pub(crate) struct Events {
    /// Readable while events are pending.
    pub(crate) socket: Socket,
}

impl Events {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // The default is smaller. The kernel clamps the size to what the system allows.
        drop(socket.set_rx_buf_sz(EVENT_BUFFER));
        socket.bind_auto()?;
        for group in GROUPS {
            match socket.add_membership(group) {
                // Older kernels do not have the newest group.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => result?,
            }
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Returns the events since the last call; `None` if some were lost.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<Event>>> {
        let mut events = Vec::new();
        let mut lost = false;
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => {
                    for (_, payload) in messages(&bytes) {
                        match payload {
                            Some(NetlinkPayload::InnerMessage(message)) => events.extend(Event::of(&message)),
                            Some(_) => {}
                            // An unknown message: something has changed.
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

/// Splits a datagram into messages. The payload is `None` where it cannot be parsed.
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

/// Reads the header of a message whose payload cannot be parsed (RFC 3549 section 2.3.2).
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
        // Broadcast, multicast, and routes that refuse.
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
            // The programs cannot repeat an encapsulation (MPLS, SRv6).
            RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    (read.interface != 0).then_some(read)
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
    fn packets_of_nobody_are_not_taken() {
        let mut netlink = Netlink::open().unwrap();
        let loopback = Ipv4Addr::LOCALHOST;
        assert!(!netlink.takes(Ipv4Addr::BROADCAST, loopback, 1).unwrap(), "a source that cannot be");
        assert!(netlink.takes(loopback, loopback, u32::MAX >> 1).is_err(), "no such interface");
        assert!(netlink.route(loopback.into(), None).unwrap().local, "and the socket still works");
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
