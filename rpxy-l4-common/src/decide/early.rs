//! Whether a packet of no flow is dropped before the daemon sees it: all of its datagrams must be such that the
//! configuration has no destination for them, or must begin handshakes that are more than their network may begin.

use crate::bytes::{Bytes, Span};
use crate::datagram::{Datagram, DatagramClass};
use crate::map::drop;
use crate::packet::Packet;
use crate::verdict::{Counter, dropped};

use super::Maps;
use super::segments::{Visit, each_datagram};

/// Why the first datagram is dropped, when all of them are; otherwise why they are passed.
#[inline(always)]
pub(super) fn dropped_because<M: Maps, B: Bytes>(
    maps: &M,
    bytes: &B,
    packet: &Packet<'_>,
    bits: u32,
    segment: usize,
) -> Result<Counter, Counter> {
    let mut look = Look { bytes, bits, first: None, handshakes: 0, initiations: 0 };
    each_datagram(bytes, packet.payload, segment, &mut look)?;
    if look.handshakes == 0 {
        return look.first.ok_or(Counter::NoFlow);
    }
    // Several initiations in one buffer come from one socket, whose network has a limit. A hash for each would be too
    // much for the verifier.
    let alone = look.initiations == 1 && packet.payload.len == crate::datagram::WIREGUARD_INITIATION_LEN;
    if bits & drop::WIREGUARD_MAC1 != 0 && alone && !maps.fits_mac1(bytes, packet.payload) {
        return Ok(Counter::DroppedWireGuardMac1);
    }
    if bits & drop::SOURCE_LIMIT != 0 && !maps.admits(&packet.key.source, look.handshakes) {
        return Ok(Counter::DroppedSourceLimited);
    }
    Err(Counter::NoFlow)
}

struct Look<'a, B> {
    bytes: &'a B,
    bits: u32,
    /// Why the first is dropped of those that have no destination.
    first: Option<Counter>,
    /// The others; all of them begin a handshake.
    handshakes: u32,
    /// Those of WireGuard among them.
    initiations: u32,
}

impl<B: Bytes> Visit for Look<'_, B> {
    #[inline(always)]
    fn datagram(&mut self, payload: Span) -> Result<(), Counter> {
        let datagram = Datagram::read(self.bytes, payload).ok_or(Counter::Truncated)?;
        match dropped(self.bits, datagram) {
            Some(reason) => self.first = self.first.or(Some(reason)),
            None if datagram.opens => {
                self.handshakes += 1;
                if matches!(datagram.class, DatagramClass::WireGuardInitiation) {
                    self.initiations += 1;
                }
            }
            None => return Err(Counter::NoFlow),
        }
        Ok(())
    }
}
