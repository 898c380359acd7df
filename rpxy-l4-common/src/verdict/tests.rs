//! Numbers and names, what the gate lets through, which classes have which bit.

use std::{vec, vec::Vec};

use super::*;
use crate::bytes::Span;
use crate::map::{Flow, kind};

#[test]
fn one_outcome_steers() {
    assert_eq!(Counter::ALL.iter().filter(|counter| counter.action() == Action::Steer).count(), 1);
}

/// A payload of this length with these first bytes.
fn payload(start: &[u8], len: usize) -> Vec<u8> {
    let mut payload = start.to_vec();
    payload.resize(len, 0);
    payload
}

fn gate_of(flow: &Flow, payload: &[u8]) -> Result<(), Counter> {
    // Behind something and in front of something, so that the gate has to keep within the payload.
    let packet = [&[0xff; 3], payload, &[1; 40]].concat();
    gate(flow, &packet.as_slice(), Span { offset: 3, len: payload.len() })
}

#[test]
fn the_gate_lets_through_what_the_kind_allows() {
    use kind::{NO_OTHER_PROTOCOL, NO_QUIC_LONG, NO_QUIC_VERSION, NO_WIREGUARD_INITIATION, ONLY_WIREGUARD_TRANSPORT};
    let alone = NO_QUIC_LONG | NO_OTHER_PROTOCOL;
    let stun = [0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    let both = NO_QUIC_VERSION | NO_WIREGUARD_INITIATION;
    let rows = [
        ("anything", 0, payload(&[0xc0], 100), Ok(())),
        ("anything, empty", 0, vec![], Ok(())),
        ("QUIC, short header", NO_QUIC_LONG, payload(&[0x40], 30), Ok(())),
        ("QUIC, fixed bit clear", NO_QUIC_LONG, payload(&[0x00], 30), Ok(())),
        ("QUIC, one byte", NO_QUIC_LONG, vec![0x40], Ok(())),
        ("QUIC, long header", NO_QUIC_LONG, payload(&[0xc0], 1200), Err(Counter::QuicLong)),
        ("QUIC, form bit alone", NO_QUIC_LONG, vec![0x80], Err(Counter::QuicLong)),
        ("QUIC, empty", NO_QUIC_LONG, vec![], Err(Counter::Short)),
        (
            "no initiations, initiation",
            NO_WIREGUARD_INITIATION,
            payload(&[1, 0, 0, 0], 148),
            Err(Counter::WireGuardInitiation),
        ),
        (
            "no initiations, reserved bytes",
            NO_WIREGUARD_INITIATION,
            payload(&[1, 2, 3, 4], 148),
            Err(Counter::WireGuardInitiation),
        ),
        ("no initiations, a byte short", NO_WIREGUARD_INITIATION, payload(&[1, 0, 0, 0], 147), Ok(())),
        ("no initiations, a byte long", NO_WIREGUARD_INITIATION, payload(&[1, 0, 0, 0], 149), Ok(())),
        ("no initiations, response", NO_WIREGUARD_INITIATION, payload(&[2, 0, 0, 0], 92), Ok(())),
        ("no initiations, QUIC long header", NO_WIREGUARD_INITIATION, payload(&[0xc0], 100), Ok(())),
        ("no versions, version 1", NO_QUIC_VERSION, payload(&[0xc0, 0, 0, 0, 1], 1200), Err(Counter::QuicLong)),
        ("no versions, negotiation", NO_QUIC_VERSION, payload(&[0x80], 7), Err(Counter::QuicLong)),
        ("no versions, too short for one", NO_QUIC_VERSION, payload(&[0x80], 6), Ok(())),
        ("no versions, RTP", NO_QUIC_VERSION, payload(&[0x80, 0x60, 1, 2, 3, 4], 172), Ok(())),
        ("no versions, DNS", NO_QUIC_VERSION, payload(&[0xc1, 0x23, 1, 0, 0, 1], 40), Ok(())),
        ("no versions, short header", NO_QUIC_VERSION, payload(&[0x47], 40), Ok(())),
        ("no versions, empty", NO_QUIC_VERSION, vec![], Err(Counter::Short)),
        ("QUIC, RTP", NO_QUIC_LONG | NO_QUIC_VERSION, payload(&[0x80, 0x60, 1, 2, 3], 172), Err(Counter::QuicLong)),
        ("no others, short header", alone, payload(&[0x47], 40), Ok(())),
        ("no others, fixed bit clear", alone, payload(&[0x00, 9], 40), Ok(())),
        ("no others, one byte", alone, vec![0x00], Ok(())),
        ("no others, STUN", alone, payload(&stun, 20), Err(Counter::OtherProtocol)),
        ("no others, STUN, too short to tell", alone, payload(&stun, 7), Ok(())),
        ("no others, another cookie", alone, payload(&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x43], 40), Ok(())),
        ("no others, a cookie behind the fixed bit", alone, [&[0x40][..], &stun[1..], &[0; 40]].concat(), Ok(())),
        ("no others, DTLS", alone, payload(&[22, 0xfe, 0xfd], 13), Err(Counter::OtherProtocol)),
        ("no others, WireGuard response", alone, payload(&[2, 0, 0, 0], 92), Err(Counter::OtherProtocol)),
        ("no others, WireGuard keepalive", alone, payload(&[4, 0, 0, 0], 32), Err(Counter::OtherProtocol)),
        ("no others, reserved bytes", alone, payload(&[4, 0, 0, 1], 32), Ok(())),
        ("no others, QUIC long header", alone, payload(&[0xc0], 1200), Err(Counter::QuicLong)),
        ("others, STUN", NO_QUIC_LONG, payload(&stun, 20), Ok(())),
        ("both, QUIC long header", both, payload(&[0xc0, 0, 0, 0, 1], 100), Err(Counter::QuicLong)),
        ("both, initiation", both, payload(&[1], 148), Err(Counter::WireGuardInitiation)),
        ("both, something else", both, payload(&[0x12, 0x34], 40), Ok(())),
        ("WireGuard, transport", ONLY_WIREGUARD_TRANSPORT, payload(&[4, 0, 0, 0], 32), Ok(())),
        ("WireGuard, reserved bytes", ONLY_WIREGUARD_TRANSPORT, payload(&[4, 1, 2, 3], 116), Ok(())),
        (
            "WireGuard, a byte short",
            ONLY_WIREGUARD_TRANSPORT,
            payload(&[4, 0, 0, 0], 31),
            Err(Counter::NotWireGuardTransport),
        ),
        (
            "WireGuard, initiation",
            ONLY_WIREGUARD_TRANSPORT,
            payload(&[1, 0, 0, 0], 148),
            Err(Counter::NotWireGuardTransport),
        ),
        (
            "WireGuard, response",
            ONLY_WIREGUARD_TRANSPORT,
            payload(&[2, 0, 0, 0], 92),
            Err(Counter::NotWireGuardTransport),
        ),
        (
            "WireGuard, cookie",
            ONLY_WIREGUARD_TRANSPORT,
            payload(&[3, 0, 0, 0], 64),
            Err(Counter::NotWireGuardTransport),
        ),
        ("WireGuard, empty", ONLY_WIREGUARD_TRANSPORT, vec![], Err(Counter::Short)),
    ];
    for (row, kind, payload, expected) in rows {
        assert_eq!(gate_of(&Flow { kind, ..Flow::default() }, &payload), expected, "{row}");
    }
}

#[test]
fn a_connection_id_counts_up_to_its_last_byte() {
    let cid: [u8; 20] = core::array::from_fn(|index| 0xa0 + u8::try_from(index).unwrap());
    let carried = [&[0x41][..], &cid, &[9; 9]].concat();
    for len in 1..=20 {
        let mut flow = Flow { kind: kind::NO_QUIC_LONG, cid_len: len, ..Flow::default() };
        let len = usize::from(len);
        flow.cid[..len].copy_from_slice(&cid[..len]);
        assert_eq!(gate_of(&flow, &carried), Ok(()), "{len} bytes");
        for index in 0..20 {
            let mut other = carried.clone();
            other[1 + index] ^= 0x10;
            let expected = if index < len { Err(Counter::ConnectionId) } else { Ok(()) };
            assert_eq!(gate_of(&flow, &other), expected, "{len} bytes, byte {index} differs");
        }
        assert_eq!(gate_of(&flow, &carried[..21]), Ok(()), "{len} bytes, the shortest datagram");
        assert_eq!(gate_of(&flow, &carried[..20]), Err(Counter::Short), "{len} bytes, a byte too short");
        let long = [&[0xc1], &carried[1..]].concat();
        assert_eq!(gate_of(&flow, &long), Err(Counter::QuicLong), "{len} bytes");
        flow.kind = 0;
        assert_eq!(gate_of(&flow, &long), Err(Counter::QuicLong), "{len} bytes, kind 0");
    }
    let impossible = Flow { cid_len: 21, cid, ..Flow::default() };
    assert_eq!(gate_of(&impossible, &carried), Err(Counter::ConnectionId));
}

#[test]
fn a_wireguard_index_counts_whole() {
    let mut cid = [0; 20];
    cid[..4].copy_from_slice(&[0x11, 0x22, 0x33, 0x44]);
    let flow = Flow { kind: kind::ONLY_WIREGUARD_TRANSPORT, cid_len: 4, cid, ..Flow::default() };
    let carried = payload(&[4, 0, 0, 0, 0x11, 0x22, 0x33, 0x44], 32);
    assert_eq!(gate_of(&flow, &carried), Ok(()));
    for index in 0..32 {
        let mut other = carried.clone();
        other[index] ^= 0x80;
        let expected = match index {
            0 => Err(Counter::NotWireGuardTransport),
            4..8 => Err(Counter::ConnectionId),
            _ => Ok(()),
        };
        assert_eq!(gate_of(&flow, &other), expected, "byte {index} differs");
    }
}

#[test]
fn a_payload_that_cannot_be_read_passes_no_gate() {
    let span = Span { offset: 0, len: 100 };
    let flow = Flow { kind: kind::NO_QUIC_LONG, cid_len: 8, ..Flow::default() };
    let nothing: &[u8] = &[];
    assert_eq!(gate(&flow, &nothing, span), Err(Counter::Truncated));
    assert_eq!(gate(&flow, &[0x40; 20].as_slice(), span), Err(Counter::Truncated));
}

#[test]
fn a_class_is_dropped_by_its_bit_alone() {
    let quic = |version, small_initial| Datagram {
        class: DatagramClass::QuicLong { version },
        small_initial,
        opens: small_initial,
    };
    let rows = [
        ("version 1", quic(QUIC_V1, false), drop_class::QUIC_LONG, Counter::DroppedQuicLong),
        ("version 2", quic(QUIC_V2, false), drop_class::QUIC_LONG, Counter::DroppedQuicLong),
        ("version negotiation", quic(0, false), drop_class::QUIC_OTHER_VERSION, Counter::DroppedQuicOtherVersion),
        ("grease", quic(0x1a2a_3a4a, false), drop_class::QUIC_OTHER_VERSION, Counter::DroppedQuicOtherVersion),
        ("short header", DatagramClass::QuicShort.into(), drop_class::QUIC_SHORT, Counter::DroppedQuicShort),
        (
            "initiation",
            DatagramClass::WireGuardInitiation.into(),
            drop_class::WIREGUARD_INITIATION,
            Counter::DroppedWireGuardInitiation,
        ),
        (
            "response",
            DatagramClass::WireGuardResponse.into(),
            drop_class::WIREGUARD_OTHER,
            Counter::DroppedWireGuardOther,
        ),
        ("cookie", DatagramClass::WireGuardCookie.into(), drop_class::WIREGUARD_OTHER, Counter::DroppedWireGuardOther),
        (
            "transport",
            DatagramClass::WireGuardTransport.into(),
            drop_class::WIREGUARD_OTHER,
            Counter::DroppedWireGuardOther,
        ),
        ("unknown", DatagramClass::Unknown.into(), drop_class::UNKNOWN, Counter::DroppedUnknown),
    ];
    for (row, datagram, bit, counter) in rows {
        assert_eq!(dropped(bit, datagram), Some(counter), "{row}");
        assert_eq!(dropped(u32::MAX, datagram), Some(counter), "{row}, all bits");
        assert_eq!(dropped(!bit, datagram), None, "{row}, all bits but its own");
        assert_eq!(counter.action(), Action::Drop, "{row}");
    }
    let small = quic(QUIC_V1, true);
    assert_eq!(dropped(drop_class::QUIC_SMALL_INITIAL, small), Some(Counter::DroppedQuicSmallInitial));
    assert_eq!(dropped(drop_class::QUIC_LONG, small), Some(Counter::DroppedQuicLong), "one that is small is still one");
    assert_eq!(dropped(!(drop_class::QUIC_LONG | drop_class::QUIC_SMALL_INITIAL), small), None);
}
