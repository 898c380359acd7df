//! What is read of a segment, and what is none.

use super::*;
use crate::bytes::Span;
use crate::map::Family;
use crate::packet::Pass;

/// Bytes that are changed, and what comes of it.
type Row = (&'static str, &'static [(usize, u8)], Result<Family, Pass>);

fn outcome(bytes: &[u8]) -> Result<Family, Pass> {
    let key = &mut FlowKey::default();
    parse(&bytes, Link::Ethernet, key).map(|segment| segment.family)
}

#[test]
fn a_segment_is_read_as_it_was_written() {
    let options = timestamps(7, 8);
    for frame in [Frame::v4(), Frame::v6()] {
        let frame =
            Frame { flags: flag::ACK | flag::FIN, options: options.clone(), payload: b"hello".to_vec(), ..frame };
        let bytes = frame.bytes();
        let at = frame.l4();
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let key = &mut FlowKey::default();
        let segment = parse(&bytes.as_slice(), Link::Ethernet, key).unwrap();
        let v4 = frame.source.family() == 4;
        let expected = Segment {
            family: if v4 { Family::V4 } else { Family::V6 },
            vlan_tags: 0,
            ttl: 64,
            ip_checksum: if v4 { word(24) } else { 0 },
            l3: 14,
            l4: at,
            station: STATION,
            sequence: 1_000,
            acknowledgement: 2_000,
            control: [0x80, 0x11],
            window: 500,
            checksum: word(at + 16),
            options: Span { offset: at + 20, len: 12 },
            payload_len: 5,
            key: &FlowKey { source: frame.source, destination: frame.destination },
        };
        assert_eq!(segment, expected);
        assert_eq!(segment.sequence_len(), 6, "the payload and the FIN");
    }
}

#[test]
fn padding_of_a_short_frame_is_no_payload() {
    let mut bytes = Frame::v4().bytes();
    bytes.resize(60, 0);
    assert_eq!(with_segment(&bytes, |segment| segment.payload_len), 0);
}

#[test]
fn a_frame_that_is_cut_anywhere_is_truncated() {
    for frame in [Frame::v4(), Frame::v6()] {
        let bytes = Frame { options: timestamps(1, 2), payload: b"hello".to_vec(), ..frame }.bytes();
        for len in 0..bytes.len() {
            assert_eq!(outcome(&bytes[..len]), Err(Pass::Truncated), "{len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn lengths_that_disagree_have_their_reason() {
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = Frame { payload: [7; 8].to_vec(), ..Frame::v4() }.bytes();
        for (at, new) in changes {
            bytes[*at] = *new;
        }
        bytes
    };
    let rows: [Row; 9] = [
        ("as it is", &[], Ok(Family::V4)),
        ("header of 16 bytes", &[(46, 0x40)], Err(Pass::TransportLength)),
        ("header of 0 bytes", &[(46, 0)], Err(Pass::TransportLength)),
        ("the payload as options", &[(46, 0x70)], Ok(Family::V4)),
        ("a header beyond the packet", &[(46, 0x80)], Err(Pass::TransportLength)),
        ("IP without room for a header", &[(17, 39)], Err(Pass::IpLength)),
        ("IP with room for the header alone", &[(17, 40)], Ok(Family::V4)),
        ("IP longer than the frame", &[(17, 49)], Err(Pass::Truncated)),
        ("UDP", &[(23, 17)], Err(Pass::OtherTransport)),
    ];
    for (row, changes, expected) in rows {
        assert_eq!(outcome(&with(changes)), expected, "{row}");
    }
}
