//! Several datagrams in one buffer of the kernel: every one of them counts.

use core::num::NonZero;

use crate::bytes::{Bytes, Span};
use crate::map::Flow;
use crate::verdict::{Counter, First, gate};

/// The most datagrams that the kernel keeps in one buffer (`UDP_MAX_SEGMENTS`), and that are looked through.
pub const MAX_SEGMENTS: usize = 128;

/// Judges one datagram without a flow. Not a closure, because those cannot be forced inline.
pub trait Classify {
    /// Returns the number of its [`First`].
    fn number(&self, datagram: Span) -> u32;
}

/// The verdict on several datagrams without a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// None has a destination; the counter of the first.
    Dropped(Counter),
    /// This number of them begin handshakes; the others, if any, have no destination.
    Handshakes(u32),
    /// They are passed to the daemon.
    Passed(Counter),
}

/// Returns the reason why not all datagrams of a payload, `segment` bytes each (not 0), may be steered, if there is
/// one.
#[inline(always)]
pub fn gate_each<B: Bytes>(flow: &Flow, bytes: &B, payload: Span, segment: usize) -> Result<(), Counter> {
    let mut walk = Walk { bytes, payload, segment, done: 0 };
    for _ in 0..MAX_SEGMENTS {
        gate(flow, bytes, walk.next())?;
        if walk.is_over() {
            return Ok(());
        }
    }
    Err(Counter::Segments)
}

/// Judges all datagrams of a payload without a flow, `segment` bytes each (not 0).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "what was 32 bits is made opaque as a length")]
pub fn first_each<B: Bytes>(bytes: &B, payload: Span, segment: usize, classify: &impl Classify) -> Found {
    const NONE: u32 = First::Opens.number();
    let mut walk = Walk { bytes, payload, segment, done: 0 };
    // The verifier may not know either: it would follow each number.
    let (mut first, mut handshakes) = (bytes.opaque(NONE as usize), bytes.opaque(0));
    for _ in 0..MAX_SEGMENTS {
        let number = classify.number(walk.next());
        match First::from_number(number) {
            First::Opens => handshakes = bytes.opaque(handshakes + 1),
            First::Wanted => return Found::Passed(Counter::NoFlow),
            First::Truncated => return Found::Passed(Counter::Truncated),
            First::Dropped(_) if first == NONE as usize => first = bytes.opaque(number as usize),
            First::Dropped(_) => {}
        }
        if walk.is_over() {
            return match First::from_number(first as u32) {
                First::Dropped(reason) if handshakes == 0 => Found::Dropped(reason),
                First::Dropped(_) | First::Opens | First::Wanted | First::Truncated => {
                    Found::Handshakes(handshakes as u32)
                }
            };
        }
    }
    Found::Passed(Counter::Segments)
}

/// An iteration over datagrams.
struct Walk<'a, B> {
    bytes: &'a B,
    payload: Span,
    segment: usize,
    done: usize,
}

impl<B: Bytes> Walk<'_, B> {
    /// Returns the next one; the last one may be shorter.
    #[inline(always)]
    fn next(&mut self) -> Span {
        let done = self.bytes.opaque(self.done);
        let left = self.payload.len.saturating_sub(done);
        let len = self.bytes.opaque(if left < self.segment { left } else { self.segment });
        self.done = done + len;
        Span { offset: self.payload.offset + done, len }
    }

    /// Returns true after the last one.
    #[inline(always)]
    const fn is_over(&self) -> bool {
        self.done >= self.payload.len
    }
}

/// Returns the number of datagrams.
#[inline(always)]
pub(super) fn datagrams(len: usize, segment: usize) -> usize {
    match NonZero::new(segment) {
        Some(segment) if len > 0 => (len - 1) / segment + 1,
        Some(_) | None => 1,
    }
}

impl Found {
    const HANDSHAKES: u32 = 1 << 8;

    /// Returns a number, since that is all that functions of a program can return.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Dropped(reason) | Self::Passed(reason) => reason.index(),
            Self::Handshakes(count) => Self::HANDSHAKES + count,
        }
    }

    /// Converts a number back; an unknown one drops nothing.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        const TRUNCATED: u32 = Counter::Truncated.index();
        const SEGMENTS: u32 = Counter::Segments.index();
        match number {
            TRUNCATED => Self::Passed(Counter::Truncated),
            SEGMENTS => Self::Passed(Counter::Segments),
            Self::HANDSHAKES.. => Self::Handshakes(number - Self::HANDSHAKES),
            _ => match First::from_number(number) {
                First::Dropped(reason) => Self::Dropped(reason),
                First::Opens | First::Wanted | First::Truncated => Self::Passed(Counter::NoFlow),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_read_back_from_its_number() {
        use Counter::{DroppedQuicLong, DroppedQuicSmallInitial, DroppedUnknown, NoFlow, Segments, Truncated};
        let dropped = [DroppedQuicLong, DroppedQuicSmallInitial, DroppedUnknown].map(Found::Dropped);
        let passed = [NoFlow, Segments, Truncated].map(Found::Passed);
        for found in dropped.into_iter().chain(passed).chain([1, 128].map(Found::Handshakes)) {
            assert_eq!(Found::from_number(found.number()), found);
        }
    }
}
