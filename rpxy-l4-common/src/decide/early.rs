//! Whether a packet of no flow is dropped before the daemon sees it: all of its datagrams must be such that the
//! configuration has no destination for them, or must begin handshakes that are more than their network may begin.

use crate::bytes::{Bytes, Span};
use crate::datagram::{Datagram, WIREGUARD_INITIATION_LEN};
use crate::map::drop;
use crate::packet::Packet;
use crate::verdict::{Counter, dropped};

use super::Maps;
use super::segments::{Visit, each_datagram};

/// Why the first datagram is dropped, when all of them are; otherwise why they are passed.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most MAX_SEGMENTS")]
pub(super) fn dropped_because<M: Maps, B: Bytes>(
    maps: &M,
    bytes: &B,
    packet: &Packet<'_>,
    bits: u32,
    segment: usize,
) -> Result<Counter, Counter> {
    let mut look = Look { bytes, bits, first: None, handshakes: bytes.opaque(0) };
    each_datagram(bytes, packet.payload, segment, &mut look)?;
    if look.handshakes == 0 {
        return look.first.ok_or(Counter::NoFlow);
    }
    if bits & drop::WIREGUARD_MAC1 != 0
        && is_initiation(bytes, packet.payload)
        && !maps.fits_mac1(bytes, packet.payload)
    {
        return Ok(Counter::DroppedWireGuardMac1);
    }
    if bits & drop::SOURCE_LIMIT != 0 && !maps.admits(&packet.key.source, look.handshakes as u32) {
        return Ok(Counter::DroppedSourceLimited);
    }
    Err(Counter::NoFlow)
}

/// Whether a payload with handshakes only is one initiation of WireGuard. Several in one buffer come from one socket,
/// and its network has a limit: to hash each would be too much for the verifier.
#[inline(always)]
fn is_initiation<B: Bytes>(bytes: &B, payload: Span) -> bool {
    payload.len == WIREGUARD_INITIATION_LEN && payload.read(bytes, 0) == Some([1, 0, 0, 0])
}

struct Look<'a, B> {
    bytes: &'a B,
    bits: u32,
    /// Why the first is dropped of those that have no destination.
    first: Option<Counter>,
    /// The others; all of them begin a handshake. The verifier may not know how many: it would follow each number.
    handshakes: usize,
}

impl<B: Bytes> Visit for Look<'_, B> {
    #[inline(always)]
    fn datagram(&mut self, payload: Span) -> Result<(), Counter> {
        let datagram = Datagram::read(self.bytes, payload).ok_or(Counter::Truncated)?;
        match dropped(self.bits, datagram) {
            Some(reason) => self.first = self.first.or(Some(reason)),
            None if datagram.opens => self.handshakes = self.bytes.opaque(self.handshakes + 1),
            None => return Err(Counter::NoFlow),
        }
        Ok(())
    }
}
