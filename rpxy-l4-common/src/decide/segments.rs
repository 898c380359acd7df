//! Several datagrams in one buffer of the kernel: every one of them counts.

use core::num::NonZero;

use crate::bytes::{Bytes, Span};
use crate::verdict::Counter;

/// What is asked of every datagram. Not a closure, because those cannot be made to be inlined.
pub(super) trait Visit {
    /// Looks at one.
    fn datagram(&mut self, payload: Span) -> Result<(), Counter>;
}

/// Shows every datagram of a payload until one fails: the whole of it, or parts of `segment` bytes where that is not 0.
/// Fails when there are more than [`Bytes::SEGMENTS`].
#[inline(always)]
pub(super) fn each_datagram<B: Bytes>(
    bytes: &B,
    payload: Span,
    segment: usize,
    visit: &mut impl Visit,
) -> Result<(), Counter> {
    if segment == 0 {
        return visit.datagram(payload);
    }
    let mut done = 0;
    for _ in 0..B::SEGMENTS {
        done = bytes.opaque(done);
        let left = payload.len.saturating_sub(done);
        let len = bytes.opaque(if left < segment { left } else { segment });
        visit.datagram(Span { offset: payload.offset + done, len })?;
        done += len;
        if done >= payload.len {
            return Ok(());
        }
    }
    Err(Counter::Segments)
}

/// How many there are.
#[inline(always)]
pub(super) fn datagrams(len: usize, segment: usize) -> usize {
    match NonZero::new(segment) {
        Some(segment) if len > 0 => (len - 1) / segment + 1,
        Some(_) | None => 1,
    }
}
