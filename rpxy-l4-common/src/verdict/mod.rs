//! The number that a packet is counted under, the datagrams of a flow that may be steered, and those without a flow
//! that are dropped.

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
use crate::map::drop_class;

/// Returns the bit of a class in [`crate::map::Listener::drop`], and the counter of its drops.
#[inline(always)]
#[must_use]
const fn drop_reason(class: DatagramClass) -> (u32, Counter) {
    match class {
        DatagramClass::QuicLong { version: QUIC_V1 | QUIC_V2 } => (drop_class::QUIC_LONG, Counter::DroppedQuicLong),
        DatagramClass::QuicLong { .. } => (drop_class::QUIC_OTHER_VERSION, Counter::DroppedQuicOtherVersion),
        DatagramClass::QuicShort => (drop_class::QUIC_SHORT, Counter::DroppedQuicShort),
        DatagramClass::WireGuardInitiation => (drop_class::WIREGUARD_INITIATION, Counter::DroppedWireGuardInitiation),
        DatagramClass::WireGuardResponse | DatagramClass::WireGuardCookie | DatagramClass::WireGuardTransport => {
            (drop_class::WIREGUARD_OTHER, Counter::DroppedWireGuardOther)
        }
        DatagramClass::Unknown => (drop_class::UNKNOWN, Counter::DroppedUnknown),
    }
}

/// Returns the counter of a datagram that a listener with these bits of [`drop_class`] drops; `None` if it does not.
#[inline(always)]
#[must_use]
pub const fn dropped(bits: u32, datagram: Datagram) -> Option<Counter> {
    if datagram.small_initial && bits & drop_class::QUIC_SMALL_INITIAL != 0 {
        return Some(Counter::DroppedQuicSmallInitial);
    }
    let (bit, counter) = drop_reason(datagram.class);
    if bits & bit != 0 { Some(counter) } else { None }
}
