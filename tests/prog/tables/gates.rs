//! Which datagrams of a flow are steered, by what the flow is: handshakes always reach the daemon.

use rpxy_l4_common::verdict::Counter::{
    self, ConnectionId, NotWireGuardTransport, OtherProtocol, QuicLong, Short, Steered, WireGuardInitiation,
};

use super::padded;
use crate::fixture::{CID, from, to};
use crate::rows::{Expected, Row, check};

/// The start of a message of STUN.
const STUN: &[u8] = &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];

/// Name; the client's port; start and length of the payload; what becomes of it.
type Gate = (&'static str, u16, &'static [u8], usize, Counter);

const GATES: &[Gate] = &[
    ("open flow, QUIC long header", from::OPEN, &[0xc3, 0, 0, 0, 1, 8], 1200, Steered),
    ("open flow, WireGuard initiation", from::OPEN, &[1, 0, 0, 0], 148, Steered),
    ("QUIC flow, short header", from::QUIC, &[0x47], 40, Steered),
    ("QUIC flow, short header with the fixed bit clear", from::QUIC, &[0x07], 40, Steered),
    ("QUIC flow, one byte", from::QUIC, &[0x47], 1, Steered),
    ("QUIC flow, Initial", from::QUIC, &[0xc3, 0, 0, 0, 1, 8], 1200, QuicLong),
    ("QUIC flow, Handshake", from::QUIC, &[0xe3, 0, 0, 0, 1, 8], 100, QuicLong),
    ("QUIC flow, Initial of v2", from::QUIC, &[0xd3, 0x6b, 0x33, 0x43, 0xcf], 1200, QuicLong),
    ("QUIC flow, another version", from::QUIC, &[0xc3, 0, 0, 0, 2], 1200, QuicLong),
    ("QUIC flow, Version Negotiation", from::QUIC, &[0x80], 13, QuicLong),
    ("QUIC flow, the form bit alone", from::QUIC, &[0x80], 1, QuicLong),
    ("QUIC flow, no payload", from::QUIC, &[], 0, Short),
    ("QUIC flow, STUN", from::QUIC, STUN, 20, Steered),
    ("QUIC without ID, short header", from::QUIC_ALONE, &[0x47], 40, Steered),
    ("QUIC without ID, short header with the fixed bit clear", from::QUIC_ALONE, &[0x01, 9], 40, Steered),
    ("QUIC without ID, one byte", from::QUIC_ALONE, &[0x01], 1, Steered),
    ("QUIC without ID, Initial", from::QUIC_ALONE, &[0xc3, 0, 0, 0, 1, 8], 1200, QuicLong),
    ("QUIC without ID, STUN", from::QUIC_ALONE, STUN, 20, OtherProtocol),
    ("QUIC without ID, STUN, too short to tell", from::QUIC_ALONE, STUN, 7, Steered),
    ("QUIC without ID, another cookie", from::QUIC_ALONE, &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x43], 40, Steered),
    ("QUIC without ID, DTLS 1.2", from::QUIC_ALONE, &[22, 0xfe, 0xfd], 13, OtherProtocol),
    ("QUIC without ID, TLS", from::QUIC_ALONE, &[22, 3, 3], 100, Steered),
    ("QUIC without ID, WireGuard response", from::QUIC_ALONE, &[2, 0, 0, 0], 92, OtherProtocol),
    ("QUIC without ID, WireGuard keepalive", from::QUIC_ALONE, &[4, 0, 0, 0], 32, OtherProtocol),
    ("QUIC without ID, no payload", from::QUIC_ALONE, &[], 0, Short),
    ("WireGuard flow, transport", from::WIREGUARD, &[4, 0, 0, 0], 1000, Steered),
    ("WireGuard flow, keepalive", from::WIREGUARD, &[4, 0, 0, 0], 32, Steered),
    ("WireGuard flow, transport with reserved bytes", from::WIREGUARD, &[4, 1, 2, 3], 32, Steered),
    ("WireGuard flow, a byte shorter than a keepalive", from::WIREGUARD, &[4, 0, 0, 0], 31, NotWireGuardTransport),
    ("WireGuard flow, initiation", from::WIREGUARD, &[1, 0, 0, 0], 148, NotWireGuardTransport),
    ("WireGuard flow, response", from::WIREGUARD, &[2, 0, 0, 0], 92, NotWireGuardTransport),
    ("WireGuard flow, cookie reply", from::WIREGUARD, &[3, 0, 0, 0], 64, NotWireGuardTransport),
    ("WireGuard flow, QUIC Initial", from::WIREGUARD, &[0xc3, 0, 0, 0, 1, 8], 1200, NotWireGuardTransport),
    ("WireGuard flow, QUIC short header", from::WIREGUARD, &[0x47], 40, NotWireGuardTransport),
    ("WireGuard flow, no payload", from::WIREGUARD, &[], 0, Short),
    ("generic flow, anything", from::GENERIC, b"anything", 8, Steered),
    ("generic flow, WireGuard transport", from::GENERIC, &[4, 0, 0, 0], 32, Steered),
    ("generic flow, WireGuard response", from::GENERIC, &[2, 0, 0, 0], 92, Steered),
    ("generic flow, WireGuard initiation", from::GENERIC, &[1, 0, 0, 0], 148, WireGuardInitiation),
    ("generic flow, initiation with reserved bytes", from::GENERIC, &[1, 9, 9, 9], 148, WireGuardInitiation),
    ("generic flow, a byte short of an initiation", from::GENERIC, &[1, 0, 0, 0], 147, Steered),
    ("generic flow, a byte more than an initiation", from::GENERIC, &[1, 0, 0, 0], 149, Steered),
    ("generic flow, QUIC long header", from::GENERIC, &[0xc3, 0, 0, 0, 1, 8], 1200, QuicLong),
    ("generic flow, QUIC long header, the fixed bit clear", from::GENERIC, &[0x83, 0, 0, 0, 1, 8], 1200, QuicLong),
    ("generic flow, QUIC v2", from::GENERIC, &[0xd3, 0x6b, 0x33, 0x43, 0xcf], 1200, QuicLong),
    (
        "generic flow, a version that asks for negotiation",
        from::GENERIC,
        &[0xc3, 0x1a, 0x2a, 0x3a, 0x4a],
        1200,
        QuicLong,
    ),
    ("generic flow, Version Negotiation", from::GENERIC, &[0x80, 0, 0, 0, 0], 40, QuicLong),
    ("generic flow, a version that nobody has", from::GENERIC, &[0xc3, 0, 0, 0, 9], 1200, Steered),
    ("generic flow, form bit, shorter than a version", from::GENERIC, &[0x80, 0, 0, 0, 1], 6, Steered),
    ("generic flow, RTP", from::GENERIC, &[0x80, 0x60, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc], 172, Steered),
    (
        "generic flow, RTP with its marker",
        from::GENERIC,
        &[0x80, 0xe0, 0x12, 0x35, 0x56, 0x78, 0x9a, 0xbc],
        172,
        Steered,
    ),
    ("generic flow, RTCP", from::GENERIC, &[0x80, 0xc8, 0, 6, 0x12, 0x34, 0x56, 0x78], 28, Steered),
    ("generic flow, DNS query of a high ID", from::GENERIC, &[0x8a, 0xbc, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], 40, Steered),
    (
        "generic flow, DNS query of the highest ID",
        from::GENERIC,
        &[0xff, 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        40,
        Steered,
    ),
    ("generic flow, no payload", from::GENERIC, &[], 0, Short),
    ("known by an ID, long header", from::CID_8, &[0xc3, 0, 0, 0, 1, 8], 1200, QuicLong),
    ("known by an ID, no payload", from::CID_8, &[], 0, Short),
    ("known by an ID, 20 bytes", from::CID_8, &[0x47, 0xc1, 2, 3, 4, 5, 6, 7, 0xc8], 20, Short),
    ("known by an ID, 21 bytes", from::CID_8, &[0x47, 0xc1, 2, 3, 4, 5, 6, 7, 0xc8], 21, Steered),
];

/// The client's port, and how long the ID is that its flow is known by.
const KNOWN: &[(u16, usize)] =
    &[(from::CID_1, 1), (from::CID_8, 8), (from::CID_9, 9), (from::CID_17, 17), (from::CID_20, 20)];

/// A short header with the first bytes of the ID, others behind them.
fn short_header(right: usize) -> Vec<u8> {
    let mut payload = vec![0x47];
    payload.extend(CID);
    payload[1 + right..].iter_mut().for_each(|byte| *byte ^= 0x80);
    payload.extend([0xee; 20]);
    payload
}

fn gate(name: &str, port: u16, payload: &[u8], outcome: Counter) -> impl Iterator<Item = Row> {
    Row::both(name, move |net| {
        let udp = net.packet(port, to::OURS, payload);
        let sent = net.sent(&udp).bytes();
        let expected = if outcome == Steered { Expected::Steer(sent) } else { Expected::Pass(outcome) };
        (udp, expected)
    })
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for &(name, port, start, len, outcome) in GATES {
        rows.extend(gate(name, port, &padded(start, len), outcome));
    }
    for &(port, len) in KNOWN {
        let name = |what: &str| format!("known by an ID of {len} bytes, {what}");
        rows.extend(gate(&name("the same and more"), port, &short_header(20), Steered));
        rows.extend(gate(&name("the same, others behind"), port, &short_header(len), Steered));
        rows.extend(gate(&name("the last byte another"), port, &short_header(len - 1), ConnectionId));
        let mut first = short_header(20);
        first[1] ^= 1;
        rows.extend(gate(&name("the first byte another"), port, &first, ConnectionId));
    }
    rows.extend(gate("known by an ID that is longer than any", from::CID_21, &short_header(20), ConnectionId));
    rows
}

#[test]
fn handshakes_of_a_flow_reach_the_daemon() {
    check(rows());
}
