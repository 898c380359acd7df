//! The verdict on a datagram without a flow.

use crate::bytes::{Bytes, Span};
use crate::datagram::Datagram;
use crate::verdict::{Counter, dropped};

/// The verdict on a datagram to a listener that belongs to no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// It has no destination.
    Dropped(Counter),
    /// It has one, and begins a handshake.
    Opens,
    /// It has one, and does not begin a handshake.
    Wanted,
    /// It cannot be read.
    Truncated,
}

impl First {
    const OPENS: u32 = u32::MAX;
    const WANTED: u32 = u32::MAX - 1;
    const TRUNCATED: u32 = u32::MAX - 2;

    /// Judges a datagram to a listener with these bits of [`crate::map::drop_class`].
    #[inline(always)]
    pub fn of<B: Bytes>(bits: u32, bytes: &B, datagram: Span) -> Self {
        let Some(datagram) = Datagram::read(bytes, datagram) else { return Self::Truncated };
        match dropped(bits, datagram) {
            Some(reason) => Self::Dropped(reason),
            None if datagram.opens => Self::Opens,
            None => Self::Wanted,
        }
    }

    /// Returns a number, since that is all that functions of a program can return.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Dropped(reason) => reason.index(),
            Self::Opens => Self::OPENS,
            Self::Wanted => Self::WANTED,
            Self::Truncated => Self::TRUNCATED,
        }
    }

    /// Converts a number back; an unknown one drops nothing.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        const QUIC_LONG: u32 = Counter::DroppedQuicLong.index();
        const QUIC_OTHER_VERSION: u32 = Counter::DroppedQuicOtherVersion.index();
        const QUIC_SMALL_INITIAL: u32 = Counter::DroppedQuicSmallInitial.index();
        const QUIC_SHORT: u32 = Counter::DroppedQuicShort.index();
        const WIREGUARD_INITIATION: u32 = Counter::DroppedWireGuardInitiation.index();
        const WIREGUARD_OTHER: u32 = Counter::DroppedWireGuardOther.index();
        const UNKNOWN: u32 = Counter::DroppedUnknown.index();
        match number {
            QUIC_LONG => Self::Dropped(Counter::DroppedQuicLong),
            QUIC_OTHER_VERSION => Self::Dropped(Counter::DroppedQuicOtherVersion),
            QUIC_SMALL_INITIAL => Self::Dropped(Counter::DroppedQuicSmallInitial),
            QUIC_SHORT => Self::Dropped(Counter::DroppedQuicShort),
            WIREGUARD_INITIATION => Self::Dropped(Counter::DroppedWireGuardInitiation),
            WIREGUARD_OTHER => Self::Dropped(Counter::DroppedWireGuardOther),
            UNKNOWN => Self::Dropped(Counter::DroppedUnknown),
            Self::OPENS => Self::Opens,
            Self::TRUNCATED => Self::Truncated,
            _ => Self::Wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{gate_number, gate_result};

    const OF_GATES: [Counter; 7] = [
        Counter::Short,
        Counter::QuicLong,
        Counter::WireGuardInitiation,
        Counter::NotWireGuardTransport,
        Counter::ConnectionId,
        Counter::Segments,
        Counter::OtherProtocol,
    ];

    #[test]
    fn numbers_are_read_back() {
        for counter in Counter::ALL {
            let (first, passed) = (First::Dropped(*counter), Err(*counter));
            if counter.name().starts_with("dropped") && counter.index() <= Counter::DroppedUnknown.index() {
                assert_eq!(First::from_number(first.number()), first);
            } else {
                assert_eq!(First::from_number(first.number()), First::Wanted, "{counter:?} is none of its reasons");
            }
            let expected = if OF_GATES.contains(counter) { passed } else { Err(Counter::Truncated) };
            let expected = if *counter == Counter::Steered { Ok(()) } else { expected };
            assert_eq!(gate_result(gate_number(passed)), expected, "{counter:?}");
        }
        for first in [First::Opens, First::Wanted, First::Truncated] {
            assert_eq!(First::from_number(first.number()), first);
        }
        assert_eq!(gate_result(gate_number(Ok(()))), Ok(()));
    }
}
