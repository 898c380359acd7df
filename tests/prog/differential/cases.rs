//! Packets that are made up: most are nearly valid and belong to something that the maps know; some are any bytes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rpxy_l4_common::map::{Flow, FlowKey};
use rpxy_l4_common::properties::PACKET_SEEDS;

use crate::fixture::{CID, ELSEWHERE, HERE, NEIGHBOUR, NETS, Net, V4, address, from, to};
use crate::maps::{key, socket};
use crate::packet::{STATION, Udp};

/// The shortest frame that a test run takes, in bytes.
pub(super) const SHORTEST: usize = 15;
/// The longest frame that fits a page with what XDP keeps around it, in bytes.
pub(super) const LONGEST: usize = 3000;

/// A packet, and what the maps hold about it.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) packet: Vec<u8>,
    /// What the packet would be looked up by, had nothing been changed in it.
    pub(super) key: Option<FlowKey>,
    /// An entry for this key.
    pub(super) flow: Option<Flow>,
    /// What a listener for its destination drops.
    pub(super) bits: Option<u32>,
    /// Payload bytes of one datagram where TC gets several in one buffer, otherwise 0.
    pub(super) segment: u16,
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    prop_oneof![
        9 => near_valid(),
        2 => seeds(),
        1 => vec(any::<u8>(), SHORTEST..300).prop_map(bytes),
        1 => (select(&[[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00]][..]), vec(any::<u8>(), 1..300)).prop_map(
            |(ethertype, rest)| bytes([&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &ethertype[..], &rest].concat())
        ),
    ]
}

fn bytes(packet: Vec<u8>) -> Case {
    Case { packet, key: None, flow: None, bits: None, segment: 0 }
}

fn near_valid() -> impl Strategy<Value = Case> {
    let plan = (select(&NETS[..]), ports(), payloads());
    plan.prop_flat_map(|(net, (from, to), payload)| {
        let len = payload.len();
        (
            (headers(net, from, to, payload), damage()),
            option::weighted(0.4, flows(net)),
            option::weighted(0.4, prop_oneof![any::<u32>(), 0..128_u32]),
            prop_oneof![4 => Just(0), 1 => 1..100_u16, 1 => segments(len)],
        )
    })
    .prop_map(|((udp, damage), flow, bits, segment)| {
        let key = Some(key(udp.source, udp.destination));
        Case { packet: damaged(udp.bytes(), &damage), key, flow, bits, segment }
    })
}

fn seeds() -> impl Strategy<Value = Case> {
    (select(PACKET_SEEDS), damage()).prop_map(|(seed, damage)| {
        let mut frame = seed.start.to_vec();
        frame.resize(seed.len, 0);
        bytes(damaged(frame, &damage))
    })
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    let clients = vec![
        from::OPEN,
        from::BACK,
        from::REDIRECTED,
        from::NARROW,
        from::LOST,
        from::MIXED_SOURCE,
        from::MIXED_DESTINATION,
        from::ANOTHER_WAY,
        from::NEIGHBOURS,
        from::QUIC,
        from::WIREGUARD,
        from::GENERIC,
        from::QUIC_ALONE,
        from::CID_1,
        from::CID_8,
        from::CID_9,
        from::CID_17,
        from::CID_20,
        from::CID_21,
        from::STRANGER,
    ];
    let ours = vec![to::ANY, to::CLOSED, to::FOREIGN, to::ALL_BUT + 2, to::ONLY + 4, to::ONLY + 5];
    let ours = prop_oneof![3 => Just(to::OURS), 2 => select(ours)];
    (prop_oneof![6 => select(clients), 1 => any::<u16>()], ours)
}

/// What each class begins with, lengths around those that matter, and the connection ID of the flows.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let starts: &[&[u8]] = &[
        &[0xc3, 0, 0, 0, 1],
        &[0xd3, 0x6b, 0x33, 0x43, 0xcf],
        &[0xc3, 0, 0, 0, 2],
        &[0x80, 0, 0, 0, 0],
        &[0xc3, 0x1a, 0x2a, 0x3a, 0x4a],
        &[0x80, 0x60, 0x12, 0x34],
        &[0x8a, 0xbc, 1, 0, 0, 1],
        &[0x47],
        &[1, 0, 0, 0],
        &[2, 0, 0, 0],
        &[3, 0, 0, 0],
        &[4, 0, 0, 0],
        &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42],
        &[2, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42],
        &[22, 0xfe, 0xfd],
        &[],
    ];
    let lens = vec![
        0, 1, 6, 7, 12, 13, 19, 20, 21, 22, 31, 32, 64, 91, 92, 93, 147, 148, 149, 548, 549, 1199, 1200, 1452, 1473,
    ];
    let any_start = (select(starts), vec(any::<u8>(), 0..30)).prop_map(|(start, more)| [start, &more].concat());
    let known = (0..=20_usize).prop_map(|right| {
        let mut start = [&[0x47], &CID[..]].concat();
        start[1 + right..].iter_mut().for_each(|byte| *byte ^= 1);
        start
    });
    let lens = prop_oneof![2 => select(lens), 1 => 0..200_usize];
    (prop_oneof![4 => any_start, 1 => known], lens).prop_map(|(mut start, len)| {
        start.resize(len, 0x5a);
        start
    })
}

fn headers(net: Net, from: u16, to: u16, payload: Vec<u8>) -> impl Strategy<Value = Udp> {
    let (banned, sources) =
        if net.name == V4.name { ("198.18.3.4", net.client) } else { ("2001:db8:bad::7", net.client) };
    let sources = prop_oneof![8 => Just(sources), 1 => Just(banned), 1 => Just(net.other)];
    let destinations = prop_oneof![8 => Just(net.ours), 1 => Just(net.other), 1 => Just(net.foreign)];
    let ttl = prop_oneof![3 => Just(64), 1 => 0..4_u8, 1 => any::<u8>()];
    let tag = (select(&[0x8100, 0x88a8, 0x9100][..]), any::<u16>());
    let vlan = prop_oneof![5 => Just(Vec::new()), 1 => vec(tag, 0..4)];
    (sources, destinations, ttl, any::<u8>(), vlan, proptest::bool::weighted(0.9)).prop_map(
        move |(source, destination, ttl, traffic_class, vlan, checksum)| Udp {
            ttl,
            traffic_class,
            vlan,
            checksum,
            ..Udp::new(address(source, from), address(destination, to), &payload)
        },
    )
}

/// Entries as the daemon writes them, and others.
fn flows(net: Net) -> impl Strategy<Value = Flow> {
    let sockets = || {
        (any::<[u8; 16]>(), any::<u16>()).prop_map(move |(bytes, port)| {
            let ip = if net.name == V4.name {
                std::net::Ipv4Addr::from([bytes[0], bytes[1], bytes[2], bytes[3]]).into()
            } else {
                std::net::Ipv6Addr::from(bytes).into()
            };
            socket(std::net::SocketAddr::new(ip, port))
        })
    };
    let cid_len = prop_oneof![3 => Just(0), 2 => 0..=20_u8, 1 => any::<u8>()];
    let kind = prop_oneof![2 => Just(0), 2 => 0..32_u8, 1 => any::<u8>()];
    let ways = prop_oneof![
        6 => Just((HERE, STATION)),
        1 => (select(&[HERE, ELSEWHERE][..]), select(&[STATION, NEIGHBOUR][..])),
    ];
    (sockets(), sockets(), 5..10_u16, select(&[HERE, ELSEWHERE][..]), ways, kind, cid_len).prop_map(
        |(source, destination, hop, interface, (ingress, station), kind, cid_len)| Flow {
            source,
            destination,
            hop,
            interface,
            ingress,
            station,
            kind,
            cid_len,
            cid: CID,
            ..Flow::default()
        },
    )
}

/// About as long as the payload, or a part of it.
fn segments(len: usize) -> impl Strategy<Value = u16> {
    let len = u16::try_from(len).unwrap();
    (1..7_u16, 0..3_u16).prop_map(move |(parts, more)| len / parts + more)
}

/// What is done to a frame that was right: bytes replaced, the end cut off, something put behind.
type Damage = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>, usize);

fn damage() -> impl Strategy<Value = Damage> {
    let replaced = prop_oneof![4 => Just(Vec::new()), 3 => vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)];
    (replaced, option::weighted(0.1, any::<prop::sample::Index>()), prop_oneof![4 => Just(0), 1 => 1..50_usize])
}

/// Most bytes that are replaced lie in the headers.
fn damaged(mut frame: Vec<u8>, (replaced, cut, behind): &Damage) -> Vec<u8> {
    for (place, value) in replaced {
        let headers = frame.len().min(70);
        let at = place.index(headers);
        frame[at] = *value;
    }
    if let Some(cut) = cut {
        frame.truncate(SHORTEST + cut.index(frame.len() - SHORTEST));
    }
    frame.resize(frame.len() + behind, 0xee);
    frame
}
