//! Packets of no flow that are dropped before the daemon sees them: those of which all datagrams have no destination in
//! the configuration, or begin more handshakes than their network may.

use crate::bytes::{Bytes, Span};
use crate::datagram::WIREGUARD_INITIATION_LEN;
use crate::map::drop_class;
use crate::packet::Packet;
use crate::verdict::{Counter, First};

use super::Maps;
use super::segments::Found;

/// Returns the reason to drop the first datagram if all are dropped, or else the reason to pass them.
#[inline(always)]
pub(super) fn dropped_because<M: Maps, B: Bytes>(
    maps: &M,
    bytes: &B,
    packet: &Packet<'_>,
    bits: u32,
    segment: usize,
) -> Result<Counter, Counter> {
    let handshakes = match segment {
        0 => match First::of(bits, bytes, packet.payload) {
            First::Dropped(reason) => return Ok(reason),
            First::Opens => 1,
            First::Wanted => return Err(Counter::NoFlow),
            First::Truncated => return Err(Counter::Truncated),
        },
        segment => match maps.first_each(bytes, bits, packet.payload, segment) {
            Found::Dropped(reason) => return Ok(reason),
            Found::Handshakes(count) => count,
            Found::Passed(reason) => return Err(reason),
        },
    };
    if bits & drop_class::WIREGUARD_MAC1 != 0
        && is_initiation(bytes, packet.payload)
        && !maps.fits_mac1(bytes, packet.payload)
    {
        return Ok(Counter::DroppedWireGuardMac1);
    }
    if bits & drop_class::SOURCE_LIMIT != 0 && !maps.admits(&packet.key.source, handshakes) {
        return Ok(Counter::DroppedSourceLimited);
    }
    Err(Counter::NoFlow)
}

/// Returns true if a payload with handshakes only is one initiation of WireGuard. Several in one buffer come from one
/// socket, and its network has a limit: to hash each would be too much for the verifier.
#[inline(always)]
fn is_initiation<B: Bytes>(bytes: &B, payload: Span) -> bool {
    payload.len == WIREGUARD_INITIATION_LEN && payload.read(bytes, 0) == Some([1, 0, 0, 0])
}
