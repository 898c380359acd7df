//! Headers as they come, and every way in which they can be wrong.

use std::{vec, vec::Vec};

use super::*;
use crate::testing::{Frame, STATION};

fn outcome(frame: &[u8]) -> Result<Family, Pass> {
    parse(&frame, Link::Ethernet, &mut FlowKey::default()).map(|packet| packet.family)
}

/// Bytes that are replaced, offsets counted from the IP header.
type Changes = &'static [(usize, &'static [u8])];
type Row = (&'static str, Changes, Result<Family, Pass>);

/// A frame with some bytes replaced.
fn with(frame: &Frame, changes: Changes) -> Vec<u8> {
    let mut bytes = frame.bytes();
    for (at, new) in changes {
        bytes[frame.l3() + at..][..new.len()].copy_from_slice(new);
    }
    bytes
}

#[test]
fn a_datagram_is_found_behind_its_headers() {
    let rows = [
        ("IPv4", Frame::v4(b"payload"), vec![]),
        ("IPv4, nothing in it", Frame::v4(b""), vec![]),
        ("IPv4, one tag", Frame::v4(b"payload"), vec![0x8100]),
        ("IPv4, two tags", Frame::v4(b"payload"), vec![0x88a8, 0x8100]),
        ("IPv4, two customer tags", Frame::v4(b"payload"), vec![0x8100, 0x8100]),
        ("IPv6", Frame::v6(b"payload"), vec![]),
        ("IPv6, nothing in it", Frame::v6(b""), vec![]),
        ("IPv6, one tag", Frame::v6(b"payload"), vec![0x88a8]),
        ("IPv6, two tags", Frame::v6(b"payload"), vec![0x88a8, 0x8100]),
    ];
    for (row, frame, vlan) in rows {
        let frame = Frame { vlan, ..frame };
        for padding in [0, 1, 18] {
            let mut bytes = frame.bytes();
            let len = bytes.len();
            bytes.resize(len + padding, 0);
            let key = &mut FlowKey::default();
            let packet = parse(&bytes.as_slice(), Link::Ethernet, key).expect(row);
            let header = if packet.family == Family::V4 { Ipv4Hdr::LEN } else { Ipv6Hdr::LEN };
            let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let expected = Packet {
                family: if frame.source.family() == 4 { Family::V4 } else { Family::V6 },
                vlan_tags: u8::try_from(frame.vlan.len()).unwrap(),
                ttl: 64,
                ip_checksum: if header == Ipv4Hdr::LEN { word(frame.l3() + 10) } else { 0 },
                udp_checksum: word(frame.l3() + header + 6),
                l3: frame.l3(),
                l4: frame.l3() + header,
                station: STATION,
                payload: Span { offset: len - frame.payload.len(), len: frame.payload.len() },
                ip_len: len - frame.l3(),
                key: &frame.key(),
            };
            assert_eq!(packet, expected, "{row}, {padding} bytes of padding");
        }
    }
}

#[test]
fn without_a_link_header_the_version_tells() {
    for frame in [Frame::v4(b"payload"), Frame::v6(b"payload")] {
        let key = &mut FlowKey::default();
        let packet = parse(&frame.ip().as_slice(), Link::Bare, key).unwrap();
        assert_eq!((packet.l3, packet.vlan_tags, packet.station, packet.key), (0, 0, [0; 6], &frame.key()));
    }
    let empty: &[u8] = &[];
    let key = &mut FlowKey::default();
    assert_eq!(parse(&empty, Link::Bare, key), Err(Pass::Truncated));
    assert_eq!(parse(&[0x50; 60].as_slice(), Link::Bare, key), Err(Pass::NotIp));
}

#[test]
fn a_frame_that_is_cut_anywhere_is_truncated() {
    for vlan in [vec![], vec![0x8100], vec![0x88a8, 0x8100]] {
        for frame in [Frame::v4(b"payload"), Frame::v6(b"payload"), Frame::v4(b""), Frame::v6(b"")] {
            let bytes = Frame { vlan: vlan.clone(), ..frame }.bytes();
            assert!(outcome(&bytes).is_ok());
            for len in 0..bytes.len() {
                assert_eq!(outcome(&bytes[..len]), Err(Pass::Truncated), "{len} of {} bytes", bytes.len());
            }
        }
    }
}

#[test]
fn every_other_link_frame_has_its_reason() {
    let ethertype = |ethertype: u16| {
        let mut bytes = Frame::v4(b"payload").bytes();
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        bytes
    };
    let destination = |first: u8| {
        let mut bytes = Frame::v4(b"payload").bytes();
        bytes[0] = first;
        bytes
    };
    let vlan = |vlan: &[u16]| Frame { vlan: vlan.into(), ..Frame::v4(b"payload") }.bytes();
    let rows = [
        ("ARP", ethertype(0x0806), Err(Pass::NotIp)),
        ("length of IEEE 802.3", ethertype(40), Err(Pass::NotIp)),
        ("another tag", ethertype(0x9100), Err(Pass::NotIp)),
        ("three tags", vlan(&[0x88a8, 0x8100, 0x8100]), Err(Pass::VlanDepth)),
        ("four tags", vlan(&[0x8100; 4]), Err(Pass::VlanDepth)),
        ("broadcast", destination(0xff), Err(Pass::LinkGroup)),
        ("multicast", destination(0x01), Err(Pass::LinkGroup)),
        ("a station", destination(0x02), Ok(Family::V4)),
        ("IPv4 announced as IPv6", ethertype(0x86dd), Err(Pass::Truncated)),
    ];
    for (row, bytes, expected) in rows {
        assert_eq!(outcome(&bytes), expected, "{row}");
    }
}

#[test]
fn every_other_ipv4_packet_has_its_reason() {
    let frame = Frame::v4(&[7; 40]);
    let rows: [Row; 29] = [
        ("as it is", &[], Ok(Family::V4)),
        ("version 6", &[(0, &[0x65])], Err(Pass::IpVersion)),
        ("version 0", &[(0, &[0x05])], Err(Pass::IpVersion)),
        ("header of 24 bytes", &[(0, &[0x46])], Err(Pass::IpOptions)),
        ("header of 60 bytes", &[(0, &[0x4f])], Err(Pass::IpOptions)),
        ("header of 16 bytes", &[(0, &[0x44])], Err(Pass::IpHeaderLength)),
        ("header of 0 bytes", &[(0, &[0x40])], Err(Pass::IpHeaderLength)),
        ("ICMP", &[(9, &[1])], Err(Pass::Icmp)),
        ("TCP", &[(9, &[6])], Err(Pass::OtherTransport)),
        ("UDP-Lite", &[(9, &[136])], Err(Pass::OtherTransport)),
        ("ICMPv6", &[(9, &[58])], Err(Pass::OtherTransport)),
        ("TCP with options", &[(0, &[0x46]), (9, &[6])], Err(Pass::OtherTransport)),
        ("do not fragment", &[(6, &[0x40, 0])], Ok(Family::V4)),
        ("may be fragmented", &[(6, &[0, 0])], Ok(Family::V4)),
        ("reserved flag", &[(6, &[0x80, 0])], Ok(Family::V4)),
        ("first fragment", &[(6, &[0x20, 0])], Err(Pass::Fragment)),
        ("middle fragment", &[(6, &[0x20, 1])], Err(Pass::Fragment)),
        ("last fragment", &[(6, &[0, 1])], Err(Pass::Fragment)),
        ("last fragment, far behind", &[(6, &[0x1f, 0])], Err(Pass::Fragment)),
        ("total length 0", &[(2, &[0, 0])], Err(Pass::IpLength)),
        ("total length of the header", &[(2, &[0, 20])], Err(Pass::IpLength)),
        ("UDP header not whole", &[(2, &[0, 27])], Err(Pass::IpLength)),
        ("UDP header alone", &[(2, &[0, 28]), (24, &[0, 8])], Ok(Family::V4)),
        ("total length a byte short", &[(2, &[0, 67])], Err(Pass::TransportLength)),
        ("total length a byte long", &[(2, &[0, 69])], Err(Pass::Truncated)),
        ("UDP length a byte short", &[(24, &[0, 47])], Err(Pass::TransportLength)),
        ("UDP length a byte long", &[(24, &[0, 49])], Err(Pass::TransportLength)),
        ("UDP length 0", &[(24, &[0, 0])], Err(Pass::TransportLength)),
        ("no UDP checksum", &[(26, &[0, 0])], Ok(Family::V4)),
    ];
    for (row, changes, expected) in rows {
        assert_eq!(outcome(&with(&frame, changes)), expected, "{row}");
    }
}

#[test]
fn every_other_ipv6_packet_has_its_reason() {
    let frame = Frame::v6(&[7; 40]);
    let rows: [Row; 24] = [
        ("as it is", &[], Ok(Family::V6)),
        ("version 4", &[(0, &[0x45])], Err(Pass::IpVersion)),
        ("ICMPv6", &[(6, &[58])], Err(Pass::Icmp)),
        ("TCP", &[(6, &[6])], Err(Pass::OtherTransport)),
        ("ICMP of IPv4", &[(6, &[1])], Err(Pass::OtherTransport)),
        ("encrypted", &[(6, &[50])], Err(Pass::OtherTransport)),
        ("no next header", &[(6, &[59])], Err(Pass::OtherTransport)),
        ("fragment", &[(6, &[44])], Err(Pass::Fragment)),
        ("payload length 0", &[(4, &[0, 0])], Err(Pass::IpLength)),
        ("UDP header not whole", &[(4, &[0, 7])], Err(Pass::IpLength)),
        ("UDP header alone", &[(4, &[0, 8]), (44, &[0, 8])], Ok(Family::V6)),
        ("payload length a byte short", &[(4, &[0, 47])], Err(Pass::TransportLength)),
        ("payload length a byte long", &[(4, &[0, 49])], Err(Pass::Truncated)),
        ("UDP length a byte short", &[(44, &[0, 47])], Err(Pass::TransportLength)),
        ("UDP length a byte long", &[(44, &[0, 49])], Err(Pass::TransportLength)),
        ("UDP length 0", &[(44, &[0, 0])], Err(Pass::TransportLength)),
        ("no UDP checksum", &[(46, &[0, 0])], Err(Pass::NoChecksum)),
        ("hop-by-hop options", &[(6, &[0])], Err(Pass::ExtensionHeader)),
        ("routing", &[(6, &[43])], Err(Pass::ExtensionHeader)),
        ("authentication", &[(6, &[51])], Err(Pass::ExtensionHeader)),
        ("destination options", &[(6, &[60])], Err(Pass::ExtensionHeader)),
        ("mobility", &[(6, &[135])], Err(Pass::ExtensionHeader)),
        ("HIP", &[(6, &[139])], Err(Pass::ExtensionHeader)),
        ("Shim6", &[(6, &[140])], Err(Pass::ExtensionHeader)),
    ];
    for (row, changes, expected) in rows {
        assert_eq!(outcome(&with(&frame, changes)), expected, "{row}");
    }
}
