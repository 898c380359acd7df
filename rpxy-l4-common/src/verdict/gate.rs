//! The datagrams of a known flow that may be steered.
//!
//! It errs towards the daemon, which knows what to do with all of them.

use crate::bytes::{Bytes, Span};
use crate::datagram::{QUIC_FIXED, QUIC_LONG, WIREGUARD_INITIATION_LEN, WIREGUARD_TRANSPORT_MIN_LEN, can_be_quic_long};
use crate::map::{Flow, kind};
use crate::verdict::Counter;

const INITIATION: u8 = 1;
const TRANSPORT: u8 = 4;
/// The magic cookie of STUN (RFC 8489 section 5), its first byte in the lowest bits.
const STUN_COOKIE: u64 = 0x42a4_1221;
/// Offset of the receiver's index in a transport message (WireGuard whitepaper section 5.4.6).
const WIREGUARD_TRANSPORT_RECEIVER: usize = 4;

/// Returns true if the gate of a flow lets all datagrams through.
#[inline(always)]
pub(crate) fn is_open(flow: &Flow) -> bool {
    flow.kind == 0 && flow.cid_len == 0
}

/// Returns the reason why a datagram of a flow may not be steered, if there is one.
#[inline(always)]
pub fn gate<B: Bytes>(flow: &Flow, bytes: &B, payload: Span) -> Result<(), Counter> {
    if is_open(flow) {
        return Ok(());
    }
    if payload.len == 0 {
        return Err(Counter::Short);
    }
    let [first] = payload.read(bytes, 0).ok_or(Counter::Truncated)?;
    if flow.kind & kind::ONLY_WIREGUARD_TRANSPORT != 0 {
        return wireguard_transport(flow, bytes, payload, first);
    }
    if first & QUIC_LONG != 0 {
        let any = flow.kind & kind::NO_QUIC_LONG != 0 || flow.cid_len != 0;
        let asked = flow.kind & kind::NO_QUIC_VERSION != 0;
        if any || (asked && can_be_quic_long(bytes, payload, first).ok_or(Counter::Truncated)?) {
            return Err(Counter::QuicLong);
        }
    }
    if flow.kind & kind::NO_WIREGUARD_INITIATION != 0 && first == INITIATION && payload.len == WIREGUARD_INITIATION_LEN
    {
        return Err(Counter::WireGuardInitiation);
    }
    if flow.kind & kind::NO_OTHER_PROTOCOL != 0
        && first & QUIC_FIXED == 0
        && payload.len >= 8
        && may_be_other(payload.read(bytes, 0).ok_or(Counter::Truncated)?)
    {
        return Err(Counter::OtherProtocol);
    }
    if flow.cid_len == 0 {
        return Ok(());
    }
    connection_id(flow, bytes, payload)
}

/// Returns whether a datagram that begins like this, without the fixed bit of QUIC, may be of STUN, WireGuard or DTLS: the
/// cookie, the reserved bytes or the first byte of the version. Few short headers without that bit look like it, and the
/// daemon knows better.
#[inline(always)]
fn may_be_other(start: [u8; 8]) -> bool {
    let start = u64::from_le_bytes(start);
    start >> 32 == STUN_COOKIE || start & 0xffff_ff00 == 0 || start & 0xff00 == 0xfe00
}

/// Converts a result of [`gate`] or [`crate::decide::gate_each`] to a number, since that is all that functions of a
/// program can return.
#[inline(always)]
#[must_use]
pub const fn gate_number(result: Result<(), Counter>) -> u32 {
    match result {
        // Steered packets are not counted by it, so that its number is free.
        Ok(()) => Counter::Steered.index(),
        Err(reason) => reason.index(),
    }
}

/// Converts a number back to a result of [`gate`]; an unknown one keeps the packet from being steered.
#[inline(always)]
pub const fn gate_result(number: u32) -> Result<(), Counter> {
    const OPEN: u32 = Counter::Steered.index();
    const SHORT: u32 = Counter::Short.index();
    const QUIC_LONG: u32 = Counter::QuicLong.index();
    const INITIATION: u32 = Counter::WireGuardInitiation.index();
    const NOT_TRANSPORT: u32 = Counter::NotWireGuardTransport.index();
    const CONNECTION_ID: u32 = Counter::ConnectionId.index();
    const SEGMENTS: u32 = Counter::Segments.index();
    const OTHER_PROTOCOL: u32 = Counter::OtherProtocol.index();
    match number {
        OPEN => Ok(()),
        SHORT => Err(Counter::Short),
        QUIC_LONG => Err(Counter::QuicLong),
        INITIATION => Err(Counter::WireGuardInitiation),
        NOT_TRANSPORT => Err(Counter::NotWireGuardTransport),
        CONNECTION_ID => Err(Counter::ConnectionId),
        SEGMENTS => Err(Counter::Segments),
        OTHER_PROTOCOL => Err(Counter::OtherProtocol),
        _ => Err(Counter::Truncated),
    }
}

/// Reserved bytes are not looked at: the receiver is told by its index alone.
#[inline(always)]
fn wireguard_transport<B: Bytes>(flow: &Flow, bytes: &B, payload: Span, first: u8) -> Result<(), Counter> {
    if first != TRANSPORT || payload.len < WIREGUARD_TRANSPORT_MIN_LEN {
        return Err(Counter::NotWireGuardTransport);
    }
    if flow.cid_len == 0 {
        return Ok(());
    }
    let carried: [u8; 4] = payload.read(bytes, WIREGUARD_TRANSPORT_RECEIVER).ok_or(Counter::Truncated)?;
    let [a, b, c, d, ..] = flow.cid;
    if carried == [a, b, c, d] { Ok(()) } else { Err(Counter::ConnectionId) }
}

/// Compares all 20 bytes that a connection ID can have, in words, with those behind its end masked out: no loop, and no
/// length that the verifier has to follow. Valid short headers have that many bytes behind the first one
/// ([`crate::datagram::QUIC_SHORT_MIN_LEN`]).
#[inline(always)]
fn connection_id<B: Bytes>(flow: &Flow, bytes: &B, payload: Span) -> Result<(), Counter> {
    if payload.len < 1 + flow.cid.len() {
        return Err(Counter::Short);
    }
    let carried: [u8; 20] = payload.read(bytes, 1).ok_or(Counter::Truncated)?;
    let (carried, known) = (words(carried), words(flow.cid));
    let len = u32::from(flow.cid_len);
    let differs = ((carried.0 ^ known.0) & mask(len))
        | ((carried.1 ^ known.1) & mask(len.saturating_sub(8)))
        | ((carried.2 ^ known.2) & mask(len.saturating_sub(16)));
    if differs != 0 || len > 20 { Err(Counter::ConnectionId) } else { Ok(()) }
}

/// The ID as words, with its first byte in the lowest bits.
#[inline(always)]
fn words(id: [u8; 20]) -> (u64, u64, u64) {
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7, c0, c1, c2, c3] = id;
    (
        u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
        u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        u64::from_le_bytes([c0, c1, c2, c3, 0, 0, 0, 0]),
    )
}

/// A mask of the lowest `len` bytes of a word.
#[inline(always)]
const fn mask(len: u32) -> u64 {
    if len >= 8 { u64::MAX } else { (1 << (8 * len)) - 1 }
}
