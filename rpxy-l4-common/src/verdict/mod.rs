//! Under which number a packet is counted, which datagrams of a flow may be steered, and which ones without a flow are
//! dropped.

mod counter;
mod first;
mod gate;
#[cfg(test)]
mod tests;

pub use counter::{Action, Counter};
pub use first::First;
pub(crate) use gate::is_open;
pub use gate::{gate, gate_number, gate_result};

use crate::datagram::{Datagram, DatagramClass, QUIC_V1, QUIC_V2};
use crate::map::drop;

/// The bit of a class in [`crate::map::Listener::drop`], and the number that its drops are counted under.
#[inline(always)]
#[must_use]
pub const fn drop_class(class: DatagramClass) -> (u32, Counter) {
    match class {
        DatagramClass::QuicLong { version: QUIC_V1 | QUIC_V2 } => (drop::QUIC_LONG, Counter::DroppedQuicLong),
        DatagramClass::QuicLong { .. } => (drop::QUIC_OTHER_VERSION, Counter::DroppedQuicOtherVersion),
        DatagramClass::QuicShort => (drop::QUIC_SHORT, Counter::DroppedQuicShort),
        DatagramClass::WireGuardInitiation => (drop::WIREGUARD_INITIATION, Counter::DroppedWireGuardInitiation),
        DatagramClass::WireGuardResponse | DatagramClass::WireGuardCookie | DatagramClass::WireGuardTransport => {
            (drop::WIREGUARD_OTHER, Counter::DroppedWireGuardOther)
        }
        DatagramClass::Unknown => (drop::UNKNOWN, Counter::DroppedUnknown),
    }
}

/// Whether a listener that has set these bits of [`mod@drop`] wants a datagram dropped, and under which number.
#[inline(always)]
#[must_use]
pub const fn dropped(bits: u32, datagram: Datagram) -> Option<Counter> {
    if datagram.small_initial && bits & drop::QUIC_SMALL_INITIAL != 0 {
        return Some(Counter::DroppedQuicSmallInitial);
    }
    let (bit, counter) = drop_class(datagram.class);
    if bits & bit != 0 { Some(counter) } else { None }
}
