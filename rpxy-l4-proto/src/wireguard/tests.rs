//! Messages by type and length.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    properties,
    testing::{INITIATION, hex},
};
use Message::{CookieReply, Initiation, Response, Transport};

/// The first twelve bytes, then zeros up to a length.
fn padded(start: &str, len: usize) -> Vec<u8> {
    let mut datagram = hex(start);
    datagram.resize(len, 0);
    datagram
}

#[test]
fn a_message_is_told_by_type_and_length() {
    let (sender, receiver) = (0x0403_0201, 0x0807_0605);
    let rows = [
        (1, 147, None),
        (1, 148, Some(Initiation { sender })),
        (1, 149, None),
        (2, 91, None),
        (2, 92, Some(Response { sender, receiver })),
        (2, 93, None),
        (3, 63, None),
        (3, 64, Some(CookieReply { receiver: sender })),
        (3, 65, None),
        (4, 31, None),
        (4, 32, Some(Transport { receiver: sender })),
        (4, 33, Some(Transport { receiver: sender })),
        (4, 116, Some(Transport { receiver: sender })),
        (4, 65_507, Some(Transport { receiver: sender })),
        (0, 148, None),
        (5, 148, None),
        (0xff, 148, None),
    ];
    for (typ, len, expected) in rows {
        let mut datagram = padded("00 000000 01020304 05060708", len);
        datagram[0] = typ;
        assert_eq!(parse(&datagram, Reserved::Zero), expected, "type {typ}, {len} bytes");
        assert_eq!(parse(&datagram, Reserved::Any), expected, "type {typ}, {len} bytes, any reserved bytes");
    }
    for len in 0..12 {
        assert_eq!(parse(&padded("04", 12)[..len], Reserved::Any), None, "{len} bytes");
    }
}

#[test]
fn reserved_bytes_are_zero_unless_told_otherwise() {
    let rows = [("the first one", "04 010000"), ("the second one", "04 000100"), ("the third one", "04 000001")];
    for (row, start) in rows {
        let datagram = padded(start, 32);
        assert_eq!(parse(&datagram, Reserved::Zero), None, "{row}");
        assert_eq!(parse(&datagram, Reserved::Any), Some(Transport { receiver: 0 }), "{row}");
    }
}

#[test]
fn an_initiation_of_a_real_client() {
    assert_eq!(parse(INITIATION, Reserved::Zero), Some(Initiation { sender: 0xb4b3_7501 }));
}

proptest! {
    #[test]
    fn properties_hold_near_messages(
        typ in 0..6_u8,
        reserved in prop_oneof![Just([0; 3]), any::<[u8; 3]>()],
        rest in prop_oneof![vec(any::<u8>(), 144), vec(any::<u8>(), 88), vec(any::<u8>(), 60), vec(any::<u8>(), 0..150)],
    ) {
        let _answer = properties::wireguard(&[&[typ], &reserved[..], &rest].concat());
    }
}
