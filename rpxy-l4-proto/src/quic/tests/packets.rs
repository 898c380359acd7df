//! Headers, coalesced packets, integers and connection IDs.

use std::{
    collections::{BTreeMap, HashMap},
    iter,
};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    properties,
    quic::{packet_number, varint as varints},
    reader::Reader,
    testing::vec8,
};
use LongType::{Handshake, Initial as InitialType, Retry, ZeroRtt};
use Version::{V1, V2};

/// A packet with a Length field and `len` bytes of protected payload.
fn long(first: u8, version: u32, dcid: &[u8], token: Option<&[u8]>, len: usize) -> Vec<u8> {
    let token = token.map(vec8).unwrap_or_default();
    let length = varint(len.try_into().unwrap());
    [vec![first], version.to_be_bytes().to_vec(), vec8(dcid), vec8(b"scid"), token, length, vec![0x55; len]].concat()
}

fn types(datagram: &[u8]) -> Vec<LongType> {
    packets(datagram).map(|packet| packet.typ).collect()
}

#[test]
fn integers_are_those_of_rfc_9000_appendix_a_1() {
    let rows = [
        ("eight bytes", "c2197c5eff14e88c", Some(151_288_809_941_952_652)),
        ("four bytes", "9d7f3e7d", Some(494_878_333)),
        ("two bytes", "7bbd", Some(15_293)),
        ("one byte", "25", Some(37)),
        ("two bytes, longer than needed", "4025", Some(37)),
        ("eight bytes, longer than needed", "c000000000000025", Some(37)),
        ("the largest", "ffffffffffffffff", Some((1 << 62) - 1)),
        ("empty", "", None),
        ("two bytes, cut", "7b", None),
        ("four bytes, cut", "9d7f3e", None),
        ("eight bytes, cut", "c2197c5eff14e8", None),
    ];
    for (row, bytes, value) in rows {
        assert_eq!(varints::read(&mut Reader::new(&hex(bytes))), value, "{row}");
    }
    for value in [0, 63, 64, 16_383, 16_384, 1_073_741_823, 1_073_741_824, (1 << 62) - 1] {
        assert_eq!(varints::read(&mut Reader::new(&varint(value))), Some(value), "{value}");
    }
}

#[test]
fn packet_numbers_are_reconstructed_against_the_largest_seen() {
    let rows = [
        ("RFC 9000 appendix A.3", Some(0xa82f_30ea), "9b32", 0xa82f_9b32),
        ("RFC 9000 appendix A.2, two bytes", Some(0x00ab_e8b3), "5c02", 0x00ac_5c02),
        ("RFC 9000 appendix A.2, three bytes", Some(0x00ab_e8b3), "ace8fe", 0x00ac_e8fe),
        ("the first one", None, "00", 0),
        ("the first one of a client that starts anywhere", None, "c7", 0xc7),
        ("the first one, four bytes", None, "fffffffe", 0xffff_fffe),
        ("the next one", Some(1), "02", 2),
        ("over the end of a byte", Some(0xff), "00", 0x100),
        ("an older one", Some(0x101), "fe", 0xfe),
        ("half a window ahead", Some(0x0f), "90", 0x90),
        ("more than half a window ahead is behind", Some(0x10f), "91", 0x91),
        ("half a window behind is ahead", Some(0x17f), "00", 0x200),
        ("less than half a window behind", Some(0x17f), "01", 0x101),
        ("near the largest of all", Some((1 << 62) - 2), "ff", (1 << 62) - 1),
        ("never beyond the largest of all", Some((1 << 62) - 1), "00", (1 << 62) - 256),
    ];
    for (row, largest, bytes, number) in rows {
        assert_eq!(packet_number::reconstruct(largest, &hex(bytes)), number, "{row}");
    }
}

#[test]
fn connection_ids_have_up_to_20_bytes_and_are_their_bytes() {
    for len in 0..=20 {
        let bytes = vec![7; len];
        let id = ConnectionId::new(&bytes).unwrap();
        assert_eq!((id.as_bytes(), id.as_ref(), id.len(), id.is_empty()), (&*bytes, &*bytes, len, len == 0));
    }
    assert_eq!(ConnectionId::new(&[7; 21]), None);
    assert_eq!(ConnectionId::new(&[7; 300]), None);
    assert_eq!(format!("{:?}", id("00a1ff")), "00a1ff");
    let mut sorted = [id("02"), id(""), id("0100"), id("01")];
    sorted.sort();
    assert_eq!(sorted, [id(""), id("01"), id("0100"), id("02")]);
    assert_ne!(id("00"), id("0000"));
    let (hashed, ordered) = (HashMap::from([(id("0102"), 1)]), BTreeMap::from([(id("0102"), 1)]));
    assert_eq!((hashed.get(&[1, 2][..]), ordered.get(&[1, 2][..])), (Some(&1), Some(&1)), "asked with a slice");
}

#[test]
fn a_long_header_shows_its_ids_in_any_version() {
    let long_id = [0xdd; 255];
    let header = |first, version, dcid, scid| Some(LongHeader { first, version, dcid, scid });
    let rows: [(&str, Vec<u8>, Option<LongHeader<'_>>); 8] = [
        ("version 1", hex("c3 00000001 02 0102 01 03 00"), header(0xc3, 1, &[1, 2], &[3])),
        ("Version Negotiation", hex("80 00000000 00 00 00000001"), header(0x80, 0, &[], &[])),
        ("GREASE", hex("ff 0a1a2a3a 00 00"), header(0xff, 0x0a1a_2a3a, &[], &[])),
        (
            "IDs of 255 bytes",
            [hex("c0 00000002"), vec8(&long_id), vec8(&long_id)].concat(),
            header(0xc0, 2, &long_id, &long_id),
        ),
        ("a short header", hex("43 00000001 00 00"), None),
        ("nothing", vec![], None),
        ("Destination Connection ID cut", hex("c3 00000001 02 01"), None),
        ("Source Connection ID cut", hex("c3 00000001 00 01"), None),
    ];
    for (row, datagram, expected) in &rows {
        assert_eq!(LongHeader::parse(datagram), *expected, "{row}");
    }
}

#[test]
fn the_type_is_read_by_version_and_the_fixed_bit_does_not_matter() {
    let rows = [
        ("Initial, version 1", 0xc0, V1, InitialType),
        ("0-RTT, version 1", 0xd0, V1, ZeroRtt),
        ("Handshake, version 1", 0xe0, V1, Handshake),
        ("Retry, version 1", 0xf0, V1, Retry),
        ("Retry, version 2", 0xc0, V2, Retry),
        ("Initial, version 2", 0xd0, V2, InitialType),
        ("0-RTT, version 2", 0xe0, V2, ZeroRtt),
        ("Handshake, version 2", 0xf0, V2, Handshake),
    ];
    for (row, first, version, typ) in rows {
        // RFC 9287: the fixed bit, 0x40, may be clear. The low four bits are protected.
        for first in [first, first & !0x40, first | 0x0f] {
            let token = (typ == InitialType).then_some(&b"token"[..]);
            let datagram = long(first, version.wire(), b"12345678", token, 30);
            let packet = packets(&datagram).next().unwrap();
            assert_eq!((packet.version, packet.typ), (version, typ), "{row}");
            assert_eq!((packet.dcid.as_bytes(), packet.scid.as_bytes()), (&b"12345678"[..], &b"scid"[..]), "{row}");
            // Only Initial has a token field, and Retry has nothing but one, and 16 bytes of tag.
            match typ {
                InitialType => assert_eq!(packet.token, b"token", "{row}"),
                Retry => assert_eq!(packet.token.len(), 31 - 16, "{row}"),
                ZeroRtt | Handshake => assert_eq!(packet.token, b"", "{row}"),
            }
        }
    }
}

#[test]
fn coalesced_packets_come_one_by_one() {
    let packet = |first, dcid: &[u8]| long(first, 1, dcid, (first < 0xd0).then_some(&[]), 25);
    let (initial, zero_rtt, handshake) = (packet(0xc1, b"a"), packet(0xd1, b"a"), packet(0xe1, b"a"));
    let other = packet(0xe1, b"b");
    let v2 = long(0xd0, V2.wire(), b"a", Some(&[]), 25);
    let unknown = long(0xc0, 2, b"a", None, 9);
    let negotiation = hex("80 00000000 01 61 00 00000001");
    let cut_retry = hex("f0 00000001 01 61 00");
    let short = [vec![0x41], vec![9; 40]].concat();
    let retry = long(0xf0, 1, b"a", None, 25);
    let mut too_long = zero_rtt.clone();
    too_long.pop();
    let rows = [
        ("one", vec![&*initial], vec![InitialType]),
        ("three types", vec![&initial, &zero_rtt, &handshake], vec![InitialType, ZeroRtt, Handshake]),
        ("two of a type", vec![&initial, &initial], vec![InitialType; 2]),
        ("0-RTT first", vec![&zero_rtt, &initial], vec![ZeroRtt, InitialType]),
        ("another ID in the middle is skipped", vec![&initial, &other, &handshake], vec![InitialType, Handshake]),
        ("another ID first decides", vec![&other, &initial, &handshake], vec![Handshake]),
        ("both versions", vec![&initial, &v2], vec![InitialType; 2]),
        ("a short header ends it", vec![&initial, &short, &initial], vec![InitialType]),
        ("zeros behind", vec![&initial, &[0; 100]], vec![InitialType]),
        ("an unknown version ends it", vec![&initial, &unknown, &initial], vec![InitialType]),
        ("Version Negotiation ends it", vec![&initial, &negotiation], vec![InitialType]),
        ("a length beyond the end", vec![&initial, &too_long], vec![InitialType]),
        ("Retry takes the rest", vec![&retry, &initial], vec![Retry]),
        ("a Retry without room for its tag", vec![&initial, &cut_retry, &[7; 15]], vec![InitialType]),
    ];
    for (row, parts, expected) in rows {
        let datagram = parts.concat();
        assert_eq!(types(&datagram), expected, "{row}");
        for packet in packets(&datagram) {
            assert_eq!(packet.bytes(), &datagram[packet.range()], "{row}");
            assert_eq!(packet.bytes()[0], datagram[packet.range().start], "the first byte of that packet, {row}");
        }
    }
}

#[test]
fn ids_over_20_bytes_are_no_packet_of_a_known_version() {
    for (version, first) in [(V1, 0xc0), (V2, 0xd0)] {
        for (len, count) in [(19, 1), (20, 1), (21, 0), (255, 0)] {
            let ids = [(vec![1; len], vec![]), (vec![], vec![1; len])];
            for (dcid, scid) in ids {
                let start = [vec![first], version.wire().to_be_bytes().to_vec(), vec8(&dcid), vec8(&scid)].concat();
                let datagram = [start, hex("00 05 0000000000")].concat();
                assert_eq!(packets(&datagram).count(), count, "{version:?}, {len}");
            }
        }
    }
}

#[test]
fn a_cut_datagram_has_no_packet_more_than_what_is_whole() {
    let packet = long(0xc3, 1, b"12345678", Some(b"token"), 70);
    let datagram = [packet.clone(), packet.clone()].concat();
    for len in 0..datagram.len() {
        assert_eq!(packets(&datagram[..len]).count(), len / packet.len(), "{len} bytes");
    }
}

#[test]
fn a_length_of_2_to_the_62_allocates_nothing() {
    for field in ["00 ffffffffffffffff", "ffffffffffffffff", "bfffffff", "7fff"] {
        let datagram = [hex("c0 00000001 00 00"), hex(field), vec![0; 40]].concat();
        assert_eq!(packets(&datagram).count(), 0, "{field}");
    }
    assert_eq!(iter::repeat_n(0x80, 1500).collect::<Vec<u8>>().chunks(1500).flat_map(packets).count(), 0);
}

proptest! {
    #[test]
    fn properties_hold_for_any_bytes(mut datagram in vec(any::<u8>(), 0..200), start in 0..5_usize) {
        let starts = ["", "c0 00000001", "d0 6b3343cf 00 00", "e0 00000001 00 00 05 0000000000 d0 00000001", "06 00 20"];
        datagram.splice(..0, hex(starts[start]));
        let _answer = properties::quic_packet(&datagram);
    }
}
