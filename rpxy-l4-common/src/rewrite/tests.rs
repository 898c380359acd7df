//! Rewritten packets against packets built anew, and what the kernel's helpers make of the changes.

use std::vec::Vec;

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::map::FlowKey;
use crate::packet::{Link, parse};
use crate::properties::checksums;
use crate::testing::{Frame, flow, internet_checksum};

/// The frame as it leaves, by the code under test; and its entry.
fn rewritten(frame: &Frame, flow: &Flow) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let key = &mut FlowKey::default();
    let packet = parse(&bytes.as_slice(), Link::Ethernet, key).unwrap();
    Rewrite::new(&packet, flow).apply(&mut bytes).unwrap();
    bytes
}

/// The frame as it leaves, built from nothing.
fn built(frame: &Frame, flow: &Flow) -> Vec<u8> {
    Frame { source: flow.source, destination: flow.destination, ttl: frame.ttl - 1, ..frame.clone() }.bytes()
}

#[test]
fn a_rewritten_packet_is_the_one_that_would_have_been_built() {
    let v4 = flow("203.0.113.9:50001", "10.0.0.5:8443");
    let v6 = flow("[2001:db8:9::9]:50001", "[fd00::5]:8443");
    let rows = [
        ("IPv4", Frame::v4(b"payload"), v4),
        ("IPv4, even length", Frame::v4(b"payloads"), v4),
        ("IPv4, empty", Frame::v4(b""), v4),
        ("IPv4, without checksum", Frame { checksum: false, ..Frame::v4(b"payload") }, v4),
        ("IPv4, TTL 2", Frame { ttl: 2, ..Frame::v4(b"payload") }, v4),
        ("IPv4, TTL 255", Frame { ttl: 255, ..Frame::v4(b"payload") }, v4),
        ("IPv4, tagged", Frame { vlan: [0x88a8, 0x8100].into(), ..Frame::v4(b"payload") }, v4),
        ("IPv4, to where it came from", Frame::v4(b"payload"), flow("198.51.100.7:443", "192.0.2.1:40000")),
        ("IPv6", Frame::v6(b"payload"), v6),
        ("IPv6, empty", Frame::v6(b""), v6),
        ("IPv6, hop limit 2", Frame { ttl: 2, ..Frame::v6(b"payload") }, v6),
        ("IPv6, tagged", Frame { vlan: [0x8100].into(), ..Frame::v6(b"payload") }, v6),
    ];
    for (row, frame, flow) in rows {
        assert_eq!(rewritten(&frame, &flow), built(&frame, &flow), "{row}");
    }
}

#[test]
fn a_checksum_of_zero_is_sent_as_its_complement() {
    let v4 = flow("203.0.113.9:50001", "10.0.0.5:8443");
    let v6 = flow("[2001:db8:9::9]:50001", "[fd00::5]:8443");
    for (frame, flow) in [(Frame::v4(&[0; 2]), v4), (Frame::v6(&[0; 2]), v6)] {
        // The word of the payload that makes the sum of the packet as it leaves 0xffff, and its checksum 0.
        let at = frame.l3() + if frame.source.family() == 4 { 20 } else { 40 };
        let sum = built(&frame, &flow)[at + 6..at + 8].to_vec();
        let frame = Frame { payload: sum, ..frame };
        let bytes = rewritten(&frame, &flow);
        assert_eq!(bytes[at + 6..at + 8], [0xff, 0xff]);
        assert_eq!(bytes, built(&frame, &flow));
    }
}

#[test]
fn nothing_is_written_into_a_packet_that_is_cut() {
    for (frame, flow) in [
        (Frame::v4(b""), flow("203.0.113.9:50001", "10.0.0.5:8443")),
        (Frame::v6(b""), flow("[2001:db8:9::9]:50001", "[fd00::5]:8443")),
    ] {
        let bytes = frame.bytes();
        let key = &mut FlowKey::default();
        let packet = parse(&bytes.as_slice(), Link::Ethernet, key).unwrap();
        let rewrite = Rewrite::new(&packet, &flow);
        for len in 0..bytes.len() {
            let mut cut = bytes[..len].to_vec();
            assert_eq!(rewrite.apply(&mut cut), None);
            assert_eq!(cut, bytes[..len]);
        }
    }
}

/// `csum_fold` and `csum_add` of the kernel.
fn csum_fold(sum: u32) -> u16 {
    !checksum::fold(sum)
}

fn csum_add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
}

/// `bpf_l4_csum_replace` with a size of 0 and `BPF_F_MARK_MANGLED_0`; `partial` for `CHECKSUM_PARTIAL`. The field as it
/// stands in memory (net/core/utils.c, inet_proto_csum_replace_by_diff).
fn l4_csum_replace(field: u16, diff: u32, pseudo: bool, partial: bool) -> u16 {
    if field == 0 {
        return 0;
    }
    let field = match (partial, pseudo) {
        (false, _) => csum_fold(csum_add(diff, !u32::from(field))),
        (true, true) => !csum_fold(csum_add(diff, u32::from(field))),
        (true, false) => field,
    };
    if field == 0 { 0xffff } else { field }
}

/// The checksum field after TC's two calls.
fn by_helpers(bytes: &[u8], packet: &Packet<'_>, rewrite: &Rewrite<'_>, partial: bool) -> u16 {
    let at = packet.l4 + offset_of!(UdpHdr, check);
    let field = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let field = l4_csum_replace(field, rewrite.address_change, true, partial);
    u16::from_be(l4_csum_replace(field, rewrite.port_change, false, partial))
}

/// The sum of the pseudo-header, not complemented: what CHECKSUM_PARTIAL leaves in the field.
fn pseudo_sum(frame: &Frame) -> u16 {
    let len = if frame.source.family() == 4 { 4 } else { 16 };
    let udp_len = u16::try_from(UdpHdr::LEN + frame.payload.len()).unwrap().to_be_bytes();
    !internet_checksum(
        &[&frame.source.address[..len], &frame.destination.address[..len], &[0, 17], &udp_len[..]].concat(),
    )
}

fn socket(family: Family) -> impl Strategy<Value = Socket> {
    let byte = prop_oneof![Just(0), Just(0xff), any::<u8>()];
    (vec(byte.clone(), 16), vec(byte, 2)).prop_map(move |(mut address, port)| {
        address[if family == Family::V4 { 4 } else { 16 }..].fill(0);
        Socket::new(address.try_into().unwrap(), port.try_into().unwrap(), family)
    })
}

fn frame_and_flow() -> impl Strategy<Value = (Frame, Flow)> {
    select(std::vec![Family::V4, Family::V6]).prop_flat_map(|family| {
        let sockets = (socket(family), socket(family), socket(family), socket(family));
        let rest = (2..=255_u8, any::<u8>(), vec(any::<u8>(), 0..64), any::<bool>(), 0..=2_usize);
        (sockets, rest).prop_map(move |((source, destination, new_source, new_destination), rest)| {
            let (ttl, traffic_class, payload, checksum, tags) = rest;
            let vlan = [0x88a8, 0x8100][..tags].into();
            let checksum = checksum || family == Family::V6;
            let frame = Frame { vlan, source, destination, ttl, traffic_class, checksum, payload };
            (frame, Flow { source: new_source, destination: new_destination, ..Flow::default() })
        })
    })
}

proptest! {
    #[test]
    fn any_packet_leaves_as_if_built_anew((frame, flow) in frame_and_flow()) {
        prop_assert_eq!(rewritten(&frame, &flow), built(&frame, &flow));
    }

    #[test]
    fn helpers_of_the_kernel_come_to_the_same_checksum((frame, flow) in frame_and_flow()) {
        let bytes = frame.bytes();
        let key = &mut FlowKey::default();
        let packet = parse(&bytes.as_slice(), Link::Ethernet, key).unwrap();
        let rewrite = Rewrite::new(&packet, &flow);
        prop_assert_eq!(by_helpers(&bytes, &packet, &rewrite, false), rewrite.udp_checksum);
    }

    #[test]
    fn helpers_of_the_kernel_mend_the_sum_of_the_pseudo_header((frame, flow) in frame_and_flow()) {
        let mut bytes = frame.bytes();
        let key = &mut FlowKey::default();
        let packet = parse(&bytes.as_slice(), Link::Ethernet, key).unwrap();
        let partial = pseudo_sum(&frame);
        bytes[packet.l4 + offset_of!(UdpHdr, check)..][..2].copy_from_slice(&partial.to_be_bytes());
        let rewrite = Rewrite::new(&packet, &flow);
        let leaves = Frame { source: flow.source, destination: flow.destination, ..frame };
        prop_assert_eq!(by_helpers(&bytes, &packet, &rewrite, true), pseudo_sum(&leaves));
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(
        (frame, flow) in frame_and_flow(),
        ip_by in 1..0xffff_u16,
        udp_by in 1..0xffff_u16,
    ) {
        let mut bytes = frame.bytes();
        let key = &mut FlowKey::default();
        let packet = parse(&bytes.as_slice(), Link::Ethernet, key).unwrap();
        let mut put = |at: usize, wrong: u16, by: u16| {
            bytes[at..at + 2].copy_from_slice(&update(wrong, by).to_be_bytes());
        };
        if packet.family == Family::V4 {
            put(packet.l3 + offset_of!(Ipv4Hdr, check), packet.ip_checksum, ip_by);
        }
        put(packet.l4 + offset_of!(UdpHdr, check), packet.udp_checksum, udp_by);
        let key = &mut FlowKey::default();
        let Ok(before) = parse(&bytes.as_slice(), Link::Ethernet, key) else { return Ok(()) };
        let expected = checksums(&bytes, &before);
        prop_assert!(before.udp_checksum == 0 || !expected.1);
        Rewrite::new(&before, &flow).apply(&mut bytes).unwrap();
        let key = &mut FlowKey::default();
        let after = parse(&bytes.as_slice(), Link::Ethernet, key).unwrap();
        prop_assert_eq!(checksums(&bytes, &after), expected);
    }

    #[test]
    fn an_update_is_a_sum_over_everything_again(
        mut words in vec(any::<u16>(), 3..40),
        new in any::<u16>(),
        at in 0..40_usize,
    ) {
        let sum = |words: &[u16]| internet_checksum(&words.iter().copied().flat_map(u16::to_be_bytes).collect::<Vec<_>>());
        // A header is never all zeros: its sum has one way to be written only.
        words.push(0x4500);
        let before = sum(&words);
        let at = at % (words.len() - 1);
        let old = std::mem::replace(&mut words[at], new);
        prop_assert_eq!(update(before, difference(old.into(), new.into())), sum(&words));
    }

    #[test]
    fn no_frame_breaks_a_property(bytes in vec(any::<u8>(), 0..128)) {
        let _answer = crate::properties::packet(&bytes);
    }

    #[test]
    fn no_change_of_a_good_frame_breaks_a_property(
        (frame, _flow) in frame_and_flow(),
        at in any::<prop::sample::Index>(),
        new in any::<u8>(),
    ) {
        let mut bytes = frame.bytes();
        bytes[at.index(frame.bytes().len())] = new;
        let _answer = crate::properties::packet(&bytes);
    }
}
