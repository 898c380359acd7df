//! The machine that the tables are about: its flows, next hops, sockets and bans, the same for both families.
//!
//! Which flow a packet belongs to is told by the client's port, which listener by ours.

use std::net::{IpAddr, SocketAddr};

use rpxy_l4_common::map::{Flow, Hop, access, drop_class, hop_flag, kind};

use crate::maps::{Maps, key, socket};
use crate::packet::{STATION, Udp};

/// The loopback interface, by which test packets arrive.
pub(crate) const HERE: u32 = 1;
/// An interface that they leave by; nothing is sent in a test run.
pub(crate) const ELSEWHERE: u32 = 77;
/// Ethernet address of every next hop.
pub(crate) const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// Largest IP packet on the narrow way, in bytes.
pub(crate) const NARROW: usize = 576;

/// Ports of clients with a flow.
pub(crate) mod from {
    /// Everything is steered to another interface.
    pub(crate) const OPEN: u16 = 4000;
    /// Everything is steered back to where it came from.
    pub(crate) const BACK: u16 = 4001;
    /// The same, on a device where that takes a redirect.
    pub(crate) const REDIRECTED: u16 = 4008;
    /// To another interface with a small MTU.
    pub(crate) const NARROW: u16 = 4002;
    /// The next hop is not known.
    pub(crate) const LOST: u16 = 4003;
    /// The new source is of the other family.
    pub(crate) const MIXED_SOURCE: u16 = 4004;
    /// The new destination is of the other family.
    pub(crate) const MIXED_DESTINATION: u16 = 4005;
    /// Its packets come by another interface, as answers of its backend would.
    pub(crate) const ANOTHER_WAY: u16 = 4006;
    /// It comes by the right interface, to another station.
    pub(crate) const NEIGHBOURS: u16 = 4007;
    /// A QUIC flow whose connection ID is not compared.
    pub(crate) const QUIC: u16 = 5000;
    /// A WireGuard flow.
    pub(crate) const WIREGUARD: u16 = 5001;
    /// A flow of neither, by which new handshakes may come.
    pub(crate) const GENERIC: u16 = 5002;
    /// A QUIC flow that is not known by a connection ID, beside which others may come.
    pub(crate) const QUIC_ALONE: u16 = 5003;
    /// Known by a connection ID of 1 byte.
    pub(crate) const CID_1: u16 = 5010;
    /// Known by a connection ID of 8 bytes.
    pub(crate) const CID_8: u16 = 5011;
    /// Known by a connection ID of 9 bytes.
    pub(crate) const CID_9: u16 = 5012;
    /// Known by a connection ID of 17 bytes.
    pub(crate) const CID_17: u16 = 5013;
    /// Known by a connection ID of 20 bytes.
    pub(crate) const CID_20: u16 = 5014;
    /// An entry that no daemon writes: an ID that is longer than any.
    pub(crate) const CID_21: u16 = 5015;
    /// Nobody knows it.
    pub(crate) const STRANGER: u16 = 6000;
}

/// Ports of this machine.
pub(crate) mod to {
    /// A listener of the daemon that drops nothing.
    pub(crate) const OURS: u16 = 443;
    /// One at the wildcard address.
    pub(crate) const ANY: u16 = 444;
    /// One that drops everything.
    pub(crate) const CLOSED: u16 = 445;
    /// Seven that drop all classes but one: the bit's place is added.
    pub(crate) const ALL_BUT: u16 = 500;
    /// Seven that drop one class: the bit's place is added.
    pub(crate) const ONLY: u16 = 520;
    /// Nobody's.
    pub(crate) const FOREIGN: u16 = 446;
    /// One whose access list takes only who is named.
    pub(crate) const LISTED: u16 = 447;
    /// One whose access list takes all but those named.
    pub(crate) const DENYING: u16 = 448;
}

/// All bits of [`drop_class`].
const EVERYTHING: u32 = drop_class::QUIC_LONG
    | drop_class::QUIC_OTHER_VERSION
    | drop_class::QUIC_SMALL_INITIAL
    | drop_class::WIREGUARD_INITIATION
    | drop_class::UNKNOWN
    | drop_class::QUIC_SHORT
    | drop_class::WIREGUARD_OTHER;

/// The connection ID of flows that are known by one, or as much of it as they have.
pub(crate) const CID: [u8; 20] = [0xc1, 2, 3, 4, 5, 6, 7, 0xc8, 0xc9, 10, 11, 12, 13, 14, 15, 16, 0xd1, 18, 19, 0xd4];

/// Who sends to whom, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Net {
    pub(crate) name: &'static str,
    pub(crate) client: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) upstream: &'static str,
    pub(crate) backend: &'static str,
    /// An address on this machine that belongs to no listener but those of the wildcard address.
    pub(crate) other: &'static str,
    /// One that is not of this machine.
    pub(crate) foreign: &'static str,
}

/// The two families.
pub(crate) const NETS: [Net; 2] = [V4, V6];
pub(crate) const V4: Net = Net {
    name: "IPv4",
    client: "192.0.2.10",
    ours: "203.0.113.1",
    upstream: "198.51.100.1",
    backend: "198.51.100.10",
    other: "203.0.113.2",
    foreign: "203.0.113.3",
};
pub(crate) const V6: Net = Net {
    name: "IPv6",
    client: "2001:db8:1::10",
    ours: "2001:db8:1::1",
    upstream: "2001:db8:2::1",
    backend: "2001:db8:2::10",
    other: "2001:db8:1::2",
    foreign: "2001:db8:1::3",
};

impl Net {
    /// A packet from a port of the client to a port of ours.
    pub(crate) fn packet(self, from: u16, to: u16, payload: &[u8]) -> Udp {
        Udp::new(address(self.client, from), address(self.ours, to), payload)
    }

    /// The same packet when it has been sent on: other addresses, one hop less, from this station to the neighbour.
    pub(crate) fn sent(self, before: &Udp) -> Udp {
        Udp {
            link: (NEIGHBOUR, STATION),
            source: address(self.upstream, 50000),
            destination: address(self.backend, 8443),
            ttl: before.ttl - 1,
            ..before.clone()
        }
    }

    /// Port of the client, hop, interface, and what the entry says besides.
    fn flows(self) -> Vec<(u16, Flow)> {
        let (source, destination) = (socket(address(self.upstream, 50000)), socket(address(self.backend, 8443)));
        let other = if self.name == V4.name { V6 } else { V4 };
        let plain = Flow {
            source,
            destination,
            hop: 5,
            interface: ELSEWHERE,
            ingress: HERE,
            station: STATION,
            ..Flow::default()
        };
        let kind = |kind| Flow { kind, ..plain };
        let known_by = |len: usize| {
            let mut cid = [0; 20];
            cid[..len.min(20)].copy_from_slice(&CID[..len.min(20)]);
            Flow { cid, cid_len: u8::try_from(len).unwrap(), ..plain }
        };
        vec![
            (from::OPEN, plain),
            (from::BACK, Flow { hop: 6, interface: HERE, ..plain }),
            (from::REDIRECTED, Flow { hop: 9, interface: HERE, ..plain }),
            (from::NARROW, Flow { hop: 7, ..plain }),
            (from::LOST, Flow { hop: 8, ..plain }),
            (from::MIXED_SOURCE, Flow { source: socket(address(other.upstream, 50000)), ..plain }),
            (from::MIXED_DESTINATION, Flow { destination: socket(address(other.backend, 8443)), ..plain }),
            (from::ANOTHER_WAY, Flow { ingress: ELSEWHERE, ..plain }),
            (from::NEIGHBOURS, Flow { station: NEIGHBOUR, ..plain }),
            (from::QUIC, kind(kind::NO_QUIC_LONG)),
            (from::WIREGUARD, kind(kind::ONLY_WIREGUARD_TRANSPORT)),
            (from::GENERIC, kind(kind::NO_QUIC_VERSION | kind::NO_WIREGUARD_INITIATION)),
            (from::QUIC_ALONE, kind(kind::NO_QUIC_LONG | kind::NO_OTHER_PROTOCOL)),
            (from::CID_1, known_by(1)),
            (from::CID_8, known_by(8)),
            (from::CID_9, known_by(9)),
            (from::CID_17, known_by(17)),
            (from::CID_20, known_by(20)),
            (from::CID_21, known_by(21)),
        ]
    }

    /// A flow with these bits of [`mod@kind`].
    pub(crate) fn flow_of_kind(self, kind: u8) -> Flow {
        let [(_, plain), ..] = &self.flows()[..] else { panic!("no flows") };
        Flow { kind, ..*plain }
    }

    fn listeners(self) -> Vec<(SocketAddr, u32)> {
        let unspecified = if self.name == V4.name { "0.0.0.0" } else { "::" };
        let mut listeners = vec![
            (address(self.ours, to::OURS), 0),
            (address(unspecified, to::ANY), 0),
            (address(self.ours, to::CLOSED), EVERYTHING),
            (address(self.ours, to::LISTED), 1 << access::SHIFT | access::UNLISTED),
            (address(self.ours, to::DENYING), u32::from(access::MOST) << access::SHIFT),
        ];
        for place in 0..7 {
            listeners.push((address(self.ours, to::ALL_BUT + place), EVERYTHING & !(1 << place)));
            listeners.push((address(self.ours, to::ONLY + place), 1 << place));
        }
        listeners
    }
}

/// What the maps hold.
pub(crate) fn maps() -> Maps {
    let hop = |interface, mtu| Hop { interface, mtu, destination: NEIGHBOUR, source: STATION, ..Hop::default() };
    let mut maps = Maps {
        hops: vec![
            (5, hop(ELSEWHERE, 1500)),
            (6, hop(HERE, 1500)),
            (7, hop(ELSEWHERE, 576)),
            (9, Hop { flags: hop_flag::REDIRECT, ..hop(HERE, 1500) }),
        ],
        listed: [(1, "10.0.0.0", 8, access::ALLOWED), (1, "2001:db8:a::", 48, access::ALLOWED)]
            .into_iter()
            .chain([1, access::MOST].into_iter().flat_map(|list| {
                [(list, "10.1.0.0", 16, access::DENIED), (list, "2001:db8:a:1::", 64, access::DENIED)]
            }))
            .map(|(list, network, len, value)| (list, ip(network), len, value))
            .collect(),
        banned: vec![(ip("198.18.0.0"), 15), (ip("198.20.0.1"), 32), (ip("2001:db8:bad::"), 48), (ip("fd00::1"), 128)],
        ..Maps::default()
    };
    for net in NETS {
        let flows = net.flows().into_iter();
        maps.flows
            .extend(flows.map(|(port, flow)| (key(address(net.client, port), address(net.ours, to::OURS)), flow)));
        maps.listeners.extend(net.listeners().into_iter().map(|(address, bits)| (socket(address), bits)));
        maps.local.extend([ip(net.ours), ip(net.other)]);
    }
    maps
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn address(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}
