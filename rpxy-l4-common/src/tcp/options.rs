//! The options that are translated: timestamps and SACK blocks.

use crate::bytes::{Bytes, Span};

/// Most blocks of one SACK option: four take 34 of the 40 bytes (RFC 2018 section 3).
pub const MAX_BLOCKS: usize = 4;

/// End of the option list, and no operation: the only options without a length (RFC 9293 section 3.2).
const END: u8 = 0;
pub(super) const NO_OPERATION: u8 = 1;
/// SACK-permitted, of 2 bytes (RFC 2018 section 2).
const SACK_PERMITTED: u8 = 4;
/// SACK (RFC 2018 section 3): 2 bytes, then 8 for each block.
const SACK: u8 = 5;
/// Timestamps (RFC 7323 section 3.2): 2 bytes, then TSval and TSecr.
pub(super) const TIMESTAMPS: u8 = 8;
pub(super) const TIMESTAMPS_LEN: usize = 10;
/// Most options in 40 bytes: each is at least one.
const MAX_OPTIONS: usize = 40;

/// Where the options that are translated stand: offsets of their values in the packet, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// TSval, with TSecr behind it.
    pub timestamps: Option<usize>,
    /// The edges of SACK blocks, and the number of blocks, 1 to [`MAX_BLOCKS`].
    pub sack: Option<(usize, usize)>,
}

/// Where the options stand that two ends agree about: offsets of their values in the packet, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offers {
    /// TSval, with TSecr behind it.
    pub timestamps: Option<usize>,
    /// The end of SACK-permitted, which has no value.
    pub sack: Option<usize>,
}

/// Finds the options of a segment, in any order and at any offset. The last one of a kind counts.
#[inline(always)]
pub fn find<B: Bytes>(bytes: &B, span: Span) -> Options {
    // None of the offsets is 0, where a packet begins.
    let (mut timestamps, mut sack, mut blocks) = (bytes.opaque(0), bytes.opaque(0), bytes.opaque(0));
    each(bytes, span, |kind, len, value| {
        if kind == TIMESTAMPS && len == TIMESTAMPS_LEN {
            timestamps = bytes.opaque(value);
        }
        if kind == SACK && len > 2 && (len - 2).is_multiple_of(8) {
            sack = bytes.opaque(value);
            blocks = bytes.opaque((len - 2) / 8);
        }
    });
    Options {
        timestamps: (timestamps != 0).then_some(timestamps),
        // No more than there can be, in a way that keeps a compiler from writing the turns of a loop over them out.
        sack: (sack != 0).then_some((sack, blocks & 0xf)),
    }
}

/// Finds what a SYN offers, likewise.
#[inline(always)]
pub fn offers<B: Bytes>(bytes: &B, span: Span) -> Offers {
    let (mut timestamps, mut sack) = (bytes.opaque(0), bytes.opaque(0));
    each(bytes, span, |kind, len, value| {
        if kind == TIMESTAMPS && len == TIMESTAMPS_LEN {
            timestamps = bytes.opaque(value);
        }
        if kind == SACK_PERMITTED && len == 2 {
            sack = bytes.opaque(value);
        }
    });
    Offers { timestamps: (timestamps != 0).then_some(timestamps), sack: (sack != 0).then_some(sack) }
}

/// Calls `found` with the kind, length and place of the value of each option, but for nothing behind a length that cannot be
/// right, as in `tcp_parse_options` of Linux.
#[inline(always)]
fn each<B: Bytes>(bytes: &B, span: Span, mut found: impl FnMut(u8, usize, usize)) {
    // All numbers are opaque, so that a verifier takes all ways through a turn of the loop for the same.
    let mut at = 0;
    for _ in 0..MAX_OPTIONS {
        let here = bytes.opaque(at);
        let Some([kind]) = span.read(bytes, here) else { break };
        if kind == END {
            break;
        }
        if kind == NO_OPERATION {
            at = here + 1;
            continue;
        }
        let Some([len]) = span.read(bytes, here + 1) else { break };
        let len = bytes.opaque(usize::from(len));
        if len < 2 || here + len > span.len {
            break;
        }
        found(kind, len, span.offset + here + 2);
        at = here + len;
    }
}
