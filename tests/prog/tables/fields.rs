//! Every field of a packet that is sent on: addresses, ports, TTL, both checksums and the Ethernet addresses change, all
//! else stays. What is expected is built anew, its checksums summed up from nothing.

use crate::fixture::{NETS, V4, V6, from, to};
use crate::packet::Udp;
use crate::rows::{Expected, Row, check};

/// Written out byte by byte: what the other rows build is right.
fn by_hand() -> [Row; 2] {
    let v4_in = [
        // Ethernet: to this station, from the router, IPv4.
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00][..],
        // Traffic class 0xb9, 32 bytes, identification 0x1234, "don't fragment", TTL 64, UDP, checksum.
        &[0x45, 0xb9, 0, 32, 0x12, 0x34, 0x40, 0, 64, 17, 0x29, 0xd4],
        // 192.0.2.10 port 4000 to 203.0.113.1 port 443, 12 bytes, checksum.
        &[192, 0, 2, 10, 203, 0, 113, 1, 0x0f, 0xa0, 0x01, 0xbb, 0, 12, 0x11, 0x9e],
        b"ping",
    ]
    .concat();
    let v4_out = [
        // To the neighbour, from this station.
        &[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x08, 0x00][..],
        &[0x45, 0xb9, 0, 32, 0x12, 0x34, 0x40, 0, 63, 17, 0xd4, 0x6d],
        // 198.51.100.1 port 50000 to 198.51.100.10 port 8443.
        &[198, 51, 100, 1, 198, 51, 100, 10, 0xc3, 0x50, 0x20, 0xfb, 0, 12, 0xe8, 0x46],
        b"ping",
    ]
    .concat();
    let v6_in = [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd][..],
        // Traffic class 0xb9, flow label 0x0abcd, 12 bytes, UDP, hop limit 64.
        &[0x6b, 0x90, 0xab, 0xcd, 0, 12, 17, 64],
        &[0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
        &[0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x0f, 0xa0, 0x01, 0xbb, 0, 12, 0xb4, 0x25],
        b"ping",
    ]
    .concat();
    let v6_out = [
        &[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x86, 0xdd][..],
        &[0x6b, 0x90, 0xab, 0xcd, 0, 12, 17, 63],
        &[0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
        &[0xc3, 0x50, 0x20, 0xfb, 0, 12, 0xe1, 0x32],
        b"ping",
    ]
    .concat();
    [
        Row::new("IPv4: written out", v4_in, Expected::Steer(v4_out)),
        Row::new("IPv6: written out", v6_in, Expected::Steer(v6_out)),
    ]
}

type Change = fn(Udp) -> Udp;

/// What varies in packets that are sent on, and must not matter.
const VARIATIONS: &[(&str, Change)] = &[
    ("a plain packet", |udp| udp),
    ("no payload", |udp| Udp { payload: vec![], ..udp }),
    ("one byte", |udp| Udp { payload: vec![0xaa], ..udp }),
    ("an odd number of bytes", |udp| Udp { payload: vec![0xa5; 333], ..udp }),
    ("zeros", |udp| Udp { payload: vec![0; 64], ..udp }),
    ("ones", |udp| Udp { payload: vec![0xff; 64], ..udp }),
    ("the largest packet of an Ethernet", |udp| {
        let len = 1500 - 8 - udp.header_len();
        Udp { payload: vec![0x5a; len], ..udp }
    }),
    ("the highest TTL", |udp| Udp { ttl: 255, ..udp }),
    ("the lowest TTL that is sent on", |udp| Udp { ttl: 2, ..udp }),
    ("a TTL that borrows in the header checksum", |udp| Udp { ttl: 128, ..udp }),
    ("no ECN, no DSCP", |udp| Udp { traffic_class: 0, ..udp }),
    ("ECT(0)", |udp| Udp { traffic_class: 2, ..udp }),
    ("ECT(1)", |udp| Udp { traffic_class: 1, ..udp }),
    ("congestion experienced", |udp| Udp { traffic_class: 3, ..udp }),
    ("all bits of DSCP and ECN", |udp| Udp { traffic_class: 0xff, ..udp }),
    ("a checksum that arrives as 0xffff", |udp| udp.summing_up_to_nothing()),
];

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = by_hand().into();
    for (name, change) in VARIATIONS {
        rows.extend(Row::both(&format!("{name}, to another interface"), |net| {
            let udp = change(net.packet(from::OPEN, to::OURS, b"datagram"));
            let sent = net.sent(&udp).bytes();
            (udp, Expected::Steer(sent))
        }));
        rows.extend(Row::both(&format!("{name}, turning round"), |net| {
            let udp = change(net.packet(from::BACK, to::OURS, b"datagram"));
            let sent = net.sent(&udp).bytes();
            (udp, Expected::Back(sent))
        }));
    }
    // RFC 768: a sum of 0 is sent as its complement, since 0 says that there is none.
    rows.extend(Row::both("a checksum that leaves as 0xffff, never as 0", |net| {
        let before = net.packet(from::OPEN, to::OURS, b"datagram");
        let payload = net.sent(&before).summing_up_to_nothing().payload;
        let udp = Udp { payload, ..before };
        let sent = net.sent(&udp).bytes();
        assert_eq!(sent[14 + udp.header_len() + 6..][..2], [0xff, 0xff]);
        (udp, Expected::Steer(sent))
    }));
    for (name, port) in [("to another interface", from::OPEN), ("turning round", from::BACK)] {
        let udp = Udp { checksum: false, ..V4.packet(port, to::OURS, b"datagram") };
        let sent = V4.sent(&udp).bytes();
        assert_eq!(sent[14 + 20 + 6..][..2], [0, 0]);
        let expected = if port == from::OPEN { Expected::Steer(sent) } else { Expected::Back(sent) };
        rows.push(Row::new(format!("IPv4: no checksum stays none, {name}"), udp.bytes(), expected));
    }
    for net in NETS {
        // Wrong before, wrong by as much afterwards: the receiver finds out, as it would have without us.
        let udp = net.packet(from::OPEN, to::OURS, b"datagram");
        let wrong = |mut frame: Vec<u8>| {
            let last = frame.len() - 1;
            frame[last] ^= 0x10;
            frame
        };
        let name = format!("{}: a payload that is not the one summed up", net.name);
        rows.push(Row::new(name, wrong(udp.bytes()), Expected::Steer(wrong(net.sent(&udp).bytes()))));
    }
    let fragment_bits = |frame: Vec<u8>, at: usize, new: u8| {
        let mut frame = frame;
        frame[14 + at] = new;
        frame
    };
    // The flow label is nobody's business.
    let udp = V6.packet(from::OPEN, to::OURS, b"datagram");
    let sent = V6.sent(&udp).bytes();
    rows.push(Row::new(
        "IPv6: another flow label",
        fragment_bits(udp.bytes(), 3, 0x11),
        Expected::Steer(fragment_bits(sent, 3, 0x11)),
    ));
    rows
}

#[test]
fn a_packet_of_a_flow_is_rewritten_and_sent_on() {
    check(rows());
}
