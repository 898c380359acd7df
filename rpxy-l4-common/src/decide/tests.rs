//! Whole decisions, over maps of the host.

use std::{collections::HashMap, collections::HashSet, vec, vec::Vec};

use super::*;
use crate::bytes::Span;
use crate::map::{Family, Flow, Hop, HopKey, Listener, drop_class, kind};
use crate::packet::Link;
use crate::testing::{Frame, STATION, flow, socket};

#[derive(Default)]
struct Tables {
    flows: HashMap<FlowKey, Flow>,
    hops: HashMap<HopKey, Hop>,
    listeners: HashMap<Socket, Listener>,
    local: HashSet<[u8; 16]>,
    banned: Vec<Prefix>,
    listed: Vec<(Listed, u8)>,
    /// All initiations fit no key; all networks are over their limit.
    guards: [bool; 2],
}

impl<'a> Maps for &'a Tables {
    type Flow = &'a Flow;
    type Hop = &'a Hop;

    fn flow(&self, key: &FlowKey) -> Option<&'a Flow> {
        self.flows.get(key)
    }

    fn hop(&self, key: HopKey) -> Option<&'a Hop> {
        self.hops.get(&key)
    }

    fn listener(&self, socket: &Socket) -> Option<Listener> {
        self.listeners.get(socket).copied()
    }

    fn is_local(&self, address: &[u8; 16]) -> bool {
        self.local.contains(address)
    }

    fn fits_mac1<B: Bytes>(&self, _: &B, _: Span) -> bool {
        !self.guards[0]
    }

    fn admits(&self, _: &Socket, _: u32) -> bool {
        !self.guards[1]
    }

    fn listed(&self, key: &Listed) -> Option<u8> {
        let bits = |listed: &Listed| u128::from_be_bytes(zerocopy::transmute!(listed.address));
        let contains = |entry: &Listed| {
            let ignored = 128 + 32 - entry.bits;
            entry.bits <= key.bits
                && entry.list == key.list
                && (ignored == 128 || bits(entry) >> ignored == bits(key) >> ignored)
        };
        let around = self.listed.iter().filter(|(entry, _)| contains(entry));
        around.max_by_key(|(entry, _)| entry.bits).map(|(_, value)| *value)
    }

    /// The longest prefix match of the kernel: an entry counts as far as it is long, and the key must be as long.
    fn is_banned(&self, source: &Prefix) -> bool {
        let bits = |prefix: &Prefix| u128::from_be_bytes(prefix.address);
        self.banned.iter().any(|entry| {
            let ignored = 128 + 8 - entry.bits;
            entry.bits <= source.bits
                && entry.family == source.family
                && (ignored == 128 || bits(entry) >> ignored == bits(source) >> ignored)
        })
    }
}

/// A network in a list, as the daemon writes it.
fn listed(list: u16, source: &Socket, len: u32) -> Listed {
    Listed::new(list, len, source)
}

const XDP: Arrival =
    Arrival { link: Link::Ethernet, interface: 2, keeps_tags: true, segment: 0, needs_hop: true, vlan_aside: false };
const TC: Arrival = Arrival { keeps_tags: false, needs_hop: false, ..XDP };

/// A flow of kind QUIC for both families from interface 2, next hop 7 behind interface 3 with an MTU of 1280.
fn steering() -> Tables {
    let mut tables = Tables::default();
    let entry =
        |flow: Flow| Flow { hop: 7, interface: 3, ingress: 2, station: STATION, kind: kind::NO_QUIC_LONG, ..flow };
    tables.flows.insert(Frame::v4(&[]).key(), entry(flow("203.0.113.9:50001", "10.0.0.5:8443")));
    tables.flows.insert(Frame::v6(&[]).key(), entry(flow("[2001:db8:9::9]:50001", "[fd00::5]:8443")));
    tables.hops.insert(7, Hop { interface: 3, mtu: 1280, ..Hop::default() });
    tables
}

/// Datagrams in the packet when it is steered, the reason when it is passed or dropped.
fn outcome(tables: &Tables, bytes: &[u8], arrival: Arrival) -> Result<usize, Counter> {
    match decide(&tables, &bytes, arrival, &mut FlowKey::default()) {
        Verdict::Steer(steer) => Ok(steer.datagrams),
        Verdict::Pass(reason) => {
            assert_eq!(reason.action(), crate::verdict::Action::Pass);
            Err(reason)
        }
        Verdict::Drop(reason) => {
            assert_eq!(reason.action(), crate::verdict::Action::Drop);
            Err(reason)
        }
    }
}

fn short(len: usize) -> Vec<u8> {
    vec![0x41; len]
}

#[test]
fn a_packet_of_a_flow_is_steered_unless_something_stands_against_it() {
    let frames: [fn(&[u8]) -> Frame; 2] = [Frame::v4, Frame::v6];
    for frame in frames {
        let headers = if frame(&[]).source.family() == 4 { 28 } else { 48 };
        let ttl = |ttl| Frame { ttl, ..frame(&short(40)) };
        let rows = [
            ("short header", frame(&short(40)), XDP, Ok(1)),
            ("long header", frame(&[0xc1; 40]), XDP, Err(Counter::QuicLong)),
            ("empty", frame(&[]), XDP, Err(Counter::Short)),
            ("TTL 0", ttl(0), XDP, Err(Counter::Ttl)),
            ("TTL 1", ttl(1), XDP, Err(Counter::Ttl)),
            ("TTL 2", ttl(2), XDP, Ok(1)),
            ("as large as the MTU", frame(&short(1280 - headers)), XDP, Ok(1)),
            ("larger than the MTU", frame(&short(1281 - headers)), XDP, Err(Counter::Mtu)),
            ("larger than the MTU, TC", frame(&short(1281 - headers)), TC, Err(Counter::Mtu)),
            ("the gate comes first", Frame { ttl: 1, ..frame(&[0xc1; 40]) }, XDP, Err(Counter::QuicLong)),
            ("TTL before MTU", Frame { ttl: 1, ..frame(&short(1400)) }, XDP, Err(Counter::Ttl)),
            ("no UDP", Frame { vlan: vec![0x0806], ..frame(&short(40)) }, XDP, Err(Counter::NotIp)),
        ];
        for (row, frame, arrival, expected) in rows {
            assert_eq!(outcome(&steering(), &frame.bytes(), arrival), expected, "{row}, {headers}");
        }
    }
}

#[test]
fn what_is_steered_comes_with_its_entries() {
    let tables = steering();
    let frame = Frame::v6(&short(40));
    match decide(&&tables, &frame.bytes().as_slice(), XDP, &mut FlowKey::default()) {
        Verdict::Steer(steer) => {
            assert_eq!(steer.packet.key, &frame.key());
            assert_eq!(steer.flow.destination, socket("[fd00::5]:8443"));
            assert_eq!(steer.hop.map(|hop| hop.interface), Some(3));
        }
        verdict @ (Verdict::Pass(_) | Verdict::Drop(_)) => panic!("{verdict:?}"),
    }
}

#[test]
fn without_a_next_hop_only_tc_goes_on() {
    let tables = Tables { hops: HashMap::new(), ..steering() };
    let bytes = Frame::v4(&short(1400)).bytes();
    assert_eq!(outcome(&tables, &bytes, XDP), Err(Counter::NoHop));
    assert_eq!(outcome(&tables, &bytes, TC), Ok(1));
}

#[test]
fn tagged_packets_are_steered_out_of_the_same_interface_only() {
    let tagged = Frame { vlan: vec![0x8100], ..Frame::v4(&short(40)) }.bytes();
    let plain = Frame::v4(&short(40)).bytes();
    let rows = [
        ("tag, another interface", &tagged, XDP, Err(Counter::VlanTagged)),
        ("tag, the same interface", &tagged, Arrival { interface: 3, ..XDP }, Ok(1)),
        ("tag, the same interface, TC", &tagged, Arrival { interface: 3, ..TC }, Err(Counter::VlanTagged)),
        ("tag kept aside", &plain, Arrival { vlan_aside: true, interface: 3, ..TC }, Err(Counter::VlanTagged)),
        ("no tag", &plain, XDP, Ok(1)),
    ];
    for (row, bytes, arrival, expected) in rows {
        let mut tables = steering();
        tables.flows.values_mut().for_each(|flow| flow.ingress = arrival.interface);
        assert_eq!(outcome(&tables, bytes, arrival), expected, "{row}");
    }
}

#[test]
fn what_comes_another_way_is_left_to_the_host() {
    let frames: [fn(&[u8]) -> Frame; 2] = [Frame::v4, Frame::v6];
    for (frame, arrival) in frames.into_iter().flat_map(|frame| [(frame, XDP), (frame, TC)]) {
        let to = |station: [u8; 6]| [&station[..], &frame(&short(40)).bytes()[6..]].concat();
        let by = |interface| Arrival { interface, ..arrival };
        let rows = [
            ("as it should", to(STATION), by(2), Ok(1)),
            ("by the interface that it leaves by", to(STATION), by(3), Err(Counter::OtherInterface)),
            ("by no interface", to(STATION), by(0), Err(Counter::OtherInterface)),
            ("for a neighbour", to([2, 0, 0, 0, 0, 3]), by(2), Err(Counter::OtherStation)),
            ("for another maker's card", to([6, 0, 0, 0, 0, 1]), by(2), Err(Counter::OtherStation)),
            ("neither", to([2, 0, 0, 0, 0, 3]), by(3), Err(Counter::OtherInterface)),
        ];
        for (row, bytes, arrival, expected) in rows {
            assert_eq!(outcome(&steering(), &bytes, arrival), expected, "{row}");
        }
        // What is passed may be anything: it is asked about first.
        let initial = [&to(STATION)[..14], &frame(&[0xc1; 40]).bytes()[14..]].concat();
        assert_eq!(outcome(&steering(), &initial, by(3)), Err(Counter::OtherInterface));
    }
}

#[test]
fn an_entry_of_another_family_steers_nothing() {
    let mut tables = steering();
    for flow in tables.flows.values_mut() {
        flow.source.end = u32::from_ne_bytes([1, 187, 0, 0]);
    }
    assert_eq!(outcome(&tables, &Frame::v4(&short(40)).bytes(), XDP), Err(Counter::FlowFamily));
    assert_eq!(outcome(&tables, &Frame::v6(&short(40)).bytes(), XDP), Err(Counter::FlowFamily));
}

#[test]
fn every_datagram_in_a_buffer_is_looked_at() {
    let of = |segment| Arrival { segment, ..TC };
    let with_long = |at: usize, len| {
        let mut payload = short(len);
        payload[at] = 0xc1;
        payload
    };
    let rows = [
        ("three and a rest", short(3500), of(1000), Ok(4)),
        ("three", short(3000), of(1000), Ok(3)),
        ("one, shorter than it says", short(900), of(1000), Ok(1)),
        ("a long header first", with_long(0, 3000), of(1000), Err(Counter::QuicLong)),
        ("a long header second", with_long(1000, 3000), of(1000), Err(Counter::QuicLong)),
        ("a long header last", with_long(3000, 3001), of(1000), Err(Counter::QuicLong)),
        ("the same byte within one", with_long(1001, 3000), of(1000), Ok(3)),
        ("each as large as the MTU", short(3000), of(1252), Ok(3)),
        ("each larger than the MTU", short(3000), of(1253), Err(Counter::Mtu)),
        ("as many as there may be", short(128 * 30), of(30), Ok(128)),
        ("more than are looked at", short(128 * 30 + 1), of(30), Err(Counter::Segments)),
    ];
    for (row, payload, arrival, expected) in rows {
        assert_eq!(outcome(&steering(), &Frame::v4(&payload).bytes(), arrival), expected, "{row}");
    }
}

fn banned(socket: &Socket, bits: u32) -> Prefix {
    Prefix { bits: 8 + bits, ..Prefix::of(socket) }
}

#[test]
fn a_packet_of_no_flow_is_dropped_for_listeners_of_ours_only() {
    let frames: [fn(&[u8]) -> Frame; 2] = [Frame::v4, Frame::v6];
    for frame in frames {
        let Frame { source, destination, .. } = frame(&[]);
        let network = if source.family() == 4 { 24 } else { 56 };
        let any = Socket { address: [0; 16], ..destination };
        let other_port = destination.with_port([0, 80]);
        let other = if any.family() == 4 { Family::V6 } else { Family::V4 };
        let other_family = Socket::new(any.address, any.port(), other);
        let tables = |listener: Option<Socket>, drop: u32, local: bool, ban: bool| Tables {
            listeners: listener.map(|socket| (socket, Listener { drop })).into_iter().collect(),
            local: local.then_some(destination.address).into_iter().collect(),
            banned: ban.then(|| banned(&source, network)).into_iter().collect(),
            ..Tables::default()
        };
        let rows = [
            ("foreign", tables(None, 0, true, false), Counter::Foreign),
            ("foreign and banned", tables(None, 0, true, true), Counter::Foreign),
            ("another port", tables(Some(other_port), u32::MAX, true, true), Counter::Foreign),
            ("wildcard of the other family", tables(Some(other_family), u32::MAX, true, true), Counter::Foreign),
            ("wildcard, not our address", tables(Some(any), u32::MAX, false, true), Counter::Foreign),
            ("wildcard", tables(Some(any), 0, true, false), Counter::NoFlow),
            ("wildcard, banned", tables(Some(any), 0, true, true), Counter::Banned),
            ("wildcard, class", tables(Some(any), drop_class::QUIC_SHORT, true, false), Counter::DroppedQuicShort),
            ("exact", tables(Some(destination), 0, false, false), Counter::NoFlow),
            ("exact, banned", tables(Some(destination), u32::MAX, false, true), Counter::Banned),
            (
                "exact, class",
                tables(Some(destination), drop_class::QUIC_SHORT, false, false),
                Counter::DroppedQuicShort,
            ),
            (
                "exact, other classes",
                tables(Some(destination), drop_class::ALL & !drop_class::QUIC_SHORT, false, false),
                Counter::NoFlow,
            ),
        ];
        for (row, tables, expected) in rows {
            assert_eq!(outcome(&tables, &frame(&short(40)).bytes(), XDP), Err(expected), "{row}, {network}");
        }
    }
}

#[test]
fn the_access_list_of_a_listener_decides_by_the_smallest_network() {
    use access::{ALLOWED, DENIED, SHIFT, UNLISTED};
    for frame in [Frame::v4(&short(40)), Frame::v6(&short(40))] {
        let Frame { source, destination, .. } = frame;
        let full = if source.family() == 4 { 32 } else { 128 };
        let of = |list: u16, len, value| (listed(list, &source, len), value);
        let open = 7 << SHIFT;
        for (row, bits, list, expected) in [
            ("named nowhere", open, vec![], Counter::NoFlow),
            ("named nowhere where only the named are taken", open | UNLISTED, vec![], Counter::Denied),
            ("denied", open, vec![of(7, full, DENIED)], Counter::Denied),
            ("allowed", open | UNLISTED, vec![of(7, 16, ALLOWED)], Counter::NoFlow),
            (
                "denied within what is allowed",
                open | UNLISTED,
                vec![of(7, 16, ALLOWED), of(7, 24, DENIED)],
                Counter::Denied,
            ),
            ("in another list", open, vec![of(8, full, DENIED)], Counter::NoFlow),
            ("without a list", UNLISTED, vec![of(0, full, DENIED)], Counter::NoFlow),
            ("the largest number", u32::MAX << SHIFT, vec![of(access::MOST, 1, DENIED)], Counter::Denied),
            (
                "allowed, and of a class that is dropped",
                open | UNLISTED | drop_class::QUIC_SHORT,
                vec![of(7, full, ALLOWED)],
                Counter::DroppedQuicShort,
            ),
        ] {
            let tables = Tables {
                listeners: [(destination, Listener { drop: bits })].into_iter().collect(),
                listed: list,
                ..Tables::default()
            };
            assert_eq!(outcome(&tables, &frame.bytes(), XDP), Err(expected), "{row}, {full}");
        }
    }
}

#[test]
fn a_ban_does_not_touch_a_flow() {
    let frame = Frame::v4(&short(40));
    let mut tables = steering();
    tables.listeners.insert(frame.destination, Listener { drop: u32::MAX });
    tables.banned.push(banned(&frame.source, 32));
    assert_eq!(outcome(&tables, &frame.bytes(), XDP), Ok(1));
}

#[test]
fn a_buffer_is_dropped_when_all_of_its_datagrams_are() {
    let destination = Frame::v4(&[]).destination;
    let listeners = HashMap::from([(destination, Listener { drop: drop_class::QUIC_SHORT | drop_class::UNKNOWN })]);
    let tables = Tables { listeners, ..Tables::default() };
    let rows = [
        ("all alike", [0x41, 0x41, 0x41], Counter::DroppedQuicShort),
        ("two classes", [0x01, 0x41, 0x41], Counter::DroppedUnknown),
        ("the last is wanted", [0x41, 0x41, 0x80], Counter::NoFlow),
    ];
    for (row, starts, expected) in rows {
        // 0x80: a long header of version 0 with empty connection IDs.
        let payload = starts.map(|first| [&[first][..], &[0; 29]].concat()).concat();
        let bytes = Frame::v4(&payload).bytes();
        assert_eq!(outcome(&tables, &bytes, Arrival { segment: 30, ..TC }), Err(expected), "{row}");
    }
}

#[test]
fn handshakes_are_judged_by_key_and_by_network() {
    let initiation = [&[1, 0, 0, 0][..], &[0; 144]].concat();
    let initial = [&[0xc0, 0, 0, 0, 1, 0, 0][..], &[0; 141]].concat();
    let [twice, mixed] = [[&initiation[..], &initiation].concat(), [&initial[..], &short(148)].concat()];
    let (mac1, limit) = (drop_class::WIREGUARD_MAC1, drop_class::SOURCE_LIMIT);
    let (wrong, over) = (Counter::DroppedWireGuardMac1, Counter::DroppedSourceLimited);
    let rows = [
        ("fits no key", &initiation, mac1 | limit, [true, true], wrong),
        ("over the limit", &initiation, mac1 | limit, [false, true], over),
        ("neither", &initiation, mac1 | limit, [false, false], Counter::NoFlow),
        ("nothing is asked for", &initiation, drop_class::UNKNOWN, [true, true], Counter::NoFlow),
        (
            "no destination comes first",
            &initiation,
            drop_class::WIREGUARD_INITIATION | limit,
            [true, true],
            Counter::DroppedWireGuardInitiation,
        ),
        ("an Initial has no mac1", &initial, mac1, [true, true], Counter::NoFlow),
        ("an Initial over the limit", &initial, limit, [true, true], over),
        ("two in a buffer", &twice, mac1, [true, true], Counter::NoFlow),
        ("two in a buffer, over the limit", &twice, limit, [true, true], over),
        ("one of them may be under way", &mixed, limit, [true, true], Counter::NoFlow),
        ("one of them has no destination", &mixed, limit | drop_class::QUIC_SHORT, [true, true], over),
        ("a short header", &short(148), limit | mac1, [true, true], Counter::NoFlow),
    ];
    for (row, payload, drop, guards, expected) in rows {
        for frame in [Frame::v4(payload), Frame::v6(payload)] {
            let listeners = HashMap::from([(frame.destination, Listener { drop })]);
            let tables = Tables { listeners, guards, ..Tables::default() };
            let segment = if payload.len() > 148 { 148 } else { 0 };
            assert_eq!(outcome(&tables, &frame.bytes(), Arrival { segment, ..TC }), Err(expected), "{row}");
        }
    }
}
