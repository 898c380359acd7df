//! First datagrams of every class, at listeners that want them dropped and at listeners that do not.

use rpxy_l4_common::verdict::Counter;

use super::padded;
use crate::fixture::{from, to};
use crate::rows::{Expected, Row, check};

/// Places of the bits of `rpxy_l4_common::map::drop_class`.
const QUIC_LONG: u16 = 0;
const QUIC_OTHER_VERSION: u16 = 1;
const QUIC_SMALL_INITIAL: u16 = 2;
const WIREGUARD_INITIATION: u16 = 3;
const UNKNOWN: u16 = 4;
const QUIC_SHORT: u16 = 5;
const WIREGUARD_OTHER: u16 = 6;

/// Name; start and length of the payload; the bits that drop it, the first one's reason first.
type Datagram = (&'static str, &'static [u8], usize, &'static [(u16, Counter)]);

const LONG: (u16, Counter) = (QUIC_LONG, Counter::DroppedQuicLong);
const SMALL: (u16, Counter) = (QUIC_SMALL_INITIAL, Counter::DroppedQuicSmallInitial);
const OTHER_VERSION: (u16, Counter) = (QUIC_OTHER_VERSION, Counter::DroppedQuicOtherVersion);
const SHORT: (u16, Counter) = (QUIC_SHORT, Counter::DroppedQuicShort);
const INITIATION: (u16, Counter) = (WIREGUARD_INITIATION, Counter::DroppedWireGuardInitiation);
const WIREGUARD: (u16, Counter) = (WIREGUARD_OTHER, Counter::DroppedWireGuardOther);
const NONE: (u16, Counter) = (UNKNOWN, Counter::DroppedUnknown);

const DATAGRAMS: &[Datagram] = &[
    ("QUIC v1 Initial", &[0xc3, 0, 0, 0, 1, 8], 1200, &[LONG]),
    ("QUIC v2 Initial", &[0xd3, 0x6b, 0x33, 0x43, 0xcf, 8], 1200, &[LONG]),
    ("QUIC v1 Initial, a byte short", &[0xc3, 0, 0, 0, 1, 8], 1199, &[SMALL, LONG]),
    ("QUIC v2 Initial, a byte short", &[0xd3, 0x6b, 0x33, 0x43, 0xcf, 8], 1199, &[SMALL, LONG]),
    ("QUIC v1 Initial of 7 bytes", &[0xc3, 0, 0, 0, 1], 7, &[SMALL, LONG]),
    ("QUIC v1 0-RTT, small", &[0xd3, 0, 0, 0, 1, 8], 100, &[LONG]),
    ("QUIC v1 Handshake, small", &[0xe3, 0, 0, 0, 1, 8], 100, &[LONG]),
    ("QUIC v1 Retry, small", &[0xf0, 0, 0, 0, 1, 8], 100, &[LONG]),
    ("QUIC v2 Retry, small, the bits of an Initial in v1", &[0xc3, 0x6b, 0x33, 0x43, 0xcf, 8], 100, &[LONG]),
    ("QUIC v1, the fixed bit clear", &[0x83, 0, 0, 0, 1, 8], 1200, &[LONG]),
    ("QUIC v1, IDs of 20 bytes", &[0xe3, 0, 0, 0, 1, 20], 100, &[LONG]),
    ("QUIC v1, an ID of 21 bytes", &[0xe3, 0, 0, 0, 1, 21], 100, &[NONE]),
    ("QUIC v1, an ID up to the end", &[0xe3, 0, 0, 0, 1, 20], 27, &[LONG]),
    ("QUIC v1, an ID beyond the end", &[0xe3, 0, 0, 0, 1, 20], 26, &[NONE]),
    ("QUIC v1, the other ID beyond the end", &[0xe3, 0, 0, 0, 1, 0, 9], 15, &[NONE]),
    ("QUIC v1, cut", &[0xe3, 0, 0, 0, 1, 0], 6, &[NONE]),
    ("QUIC of a version that nobody has", &[0xc3, 0, 0, 0, 2, 8], 1200, &[NONE]),
    ("QUIC draft 29", &[0xc3, 0xff, 0, 0, 29, 8], 1200, &[OTHER_VERSION]),
    ("QUIC draft 29, the fixed bit clear", &[0x83, 0xff, 0, 0, 29, 8], 1200, &[NONE]),
    ("QUIC draft 29, small, an ID of 21 bytes", &[0xc3, 0xff, 0, 0, 29, 21], 100, &[OTHER_VERSION]),
    ("QUIC draft 29, an ID of 255 bytes", &[0xc3, 0xff, 0, 0, 29, 255], 262, &[OTHER_VERSION]),
    ("RTP", &[0x80, 0x60, 0x12, 0x34, 0x56, 0x78], 172, &[NONE]),
    ("DNS query of a high ID", &[0x8a, 0xbc, 1, 0, 0, 1], 40, &[NONE]),
    ("a version that asks for negotiation", &[0xc3, 0x1a, 0x2a, 0x3a, 0x4a, 8], 1200, &[OTHER_VERSION]),
    ("Version Negotiation", &[0x80, 0, 0, 0, 0, 1, 7, 1, 8, 0, 0, 0, 1], 13, &[OTHER_VERSION]),
    ("QUIC short header", &[0x47], 40, &[SHORT]),
    ("QUIC short header, as short as can be", &[0x40], 21, &[SHORT]),
    ("QUIC short header, a byte shorter", &[0x40], 20, &[NONE]),
    ("QUIC short header, the fixed bit clear", &[0x3f], 40, &[NONE]),
    ("WireGuard initiation", &[1, 0, 0, 0], 148, &[INITIATION]),
    ("WireGuard initiation, a byte short", &[1, 0, 0, 0], 147, &[NONE]),
    ("WireGuard initiation, a byte long", &[1, 0, 0, 0], 149, &[NONE]),
    ("WireGuard initiation, a reserved byte set", &[1, 0, 0, 1], 148, &[NONE]),
    ("WireGuard response", &[2, 0, 0, 0], 92, &[WIREGUARD]),
    ("WireGuard response, a byte short", &[2, 0, 0, 0], 91, &[NONE]),
    ("WireGuard cookie reply", &[3, 0, 0, 0], 64, &[WIREGUARD]),
    ("WireGuard cookie reply, a byte long", &[3, 0, 0, 0], 65, &[NONE]),
    ("WireGuard keepalive", &[4, 0, 0, 0], 32, &[WIREGUARD]),
    ("WireGuard keepalive, a byte short", &[4, 0, 0, 0], 31, &[NONE]),
    ("WireGuard transport", &[4, 0, 0, 0], 1452, &[WIREGUARD]),
    ("WireGuard type 5", &[5, 0, 0, 0], 148, &[NONE]),
    ("a DNS query", &[0x12, 0x34, 1, 0, 0, 1], 19, &[NONE]),
    ("one byte", &[0], 1, &[NONE]),
    ("no payload", &[], 0, &[NONE]),
];

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for &(name, start, len, reasons) in DATAGRAMS {
        let mut row = |wish: &str, port: u16, expected: Expected| {
            rows.extend(Row::both(&format!("{name}, {wish}"), |net| {
                (net.packet(from::STRANGER, port, &padded(start, len)), expected.clone())
            }));
        };
        row("all classes dropped", to::CLOSED, Expected::Drop(reasons[0].1));
        row("nothing dropped", to::OURS, Expected::Pass(Counter::NoFlow));
        for &(place, reason) in reasons {
            row(&format!("only {} dropped", reason.name()), to::ONLY + place, Expected::Drop(reason));
        }
        // With one bit less the next reason holds, if there is one.
        let left = reasons.get(1).map_or(Expected::Pass(Counter::NoFlow), |(_, reason)| Expected::Drop(*reason));
        row("all but its class dropped", to::ALL_BUT + reasons[0].0, left);
    }
    rows
}

#[test]
fn first_datagrams_are_dropped_by_class() {
    check(rows());
}
