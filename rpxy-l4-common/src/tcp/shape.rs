//! What the daemon's own segments look like to a backend that it connects to: as if the client had sent them, as far as
//! options go, and without a clock to take a round-trip time from.
//!
//! An option that is not to be offered becomes no operations, so that nothing moves. What the backend then does not answer,
//! the daemon's network stack does not use.

use super::flow::may;
use super::options::{NO_OPERATION, Offers, TIMESTAMPS, TIMESTAMPS_LEN, offers};
use super::translate::{Packet, Words, pair};
use crate::bytes::{Bytes, Span};
use crate::rewrite::checksum::kernel_sum;

/// Kind and length of an option.
const HEAD: usize = 2;

/// Changes of a segment, by offsets in the packet, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Where the TCP header begins.
    pub l4: usize,
    /// The value of timestamps that are not offered.
    pub timestamps: Option<usize>,
    /// The end of SACK-permitted that is not offered.
    pub sack: Option<usize>,
    /// The value of timestamps whose echo is not shown.
    pub echo: Option<usize>,
    /// It is sent twice.
    pub doubled: bool,
}

/// Finds what has to be changed in a segment of the daemon's in state CONNECTING, of which the TCP header stands at `l4` with
/// these options, by bits of [`may`]. Returns `None` for one that may go as it is.
#[inline(always)]
pub fn shape<B: Bytes>(bytes: &B, l4: usize, is_syn: bool, options: Span, bits: u8) -> Option<Shape> {
    if bits == 0 {
        return None;
    }
    let Offers { timestamps, sack } = offers(bytes, options);
    let on = |bit: u8, of: Option<usize>| if bits & bit != 0 { of } else { None };
    Some(Shape {
        l4,
        timestamps: if is_syn { on(may::NO_TIMESTAMPS, timestamps) } else { None },
        sack: if is_syn { on(may::NO_SACK, sack) } else { None },
        echo: if is_syn { None } else { on(may::HIDE_CLOCK, timestamps) },
        doubled: is_syn && bits & may::DOUBLE != 0,
    })
}

/// Changes a segment, all but its checksum. Returns the change of that for `bpf_l4_csum_replace`, or `None` for a packet that
/// cannot be written, and is of no use any more.
#[inline(always)]
pub fn apply<P: Packet>(packet: &mut P, shape: &Shape) -> Option<u32> {
    const BLANK: u8 = NO_OPERATION;
    let blank = (u32::from_be_bytes([BLANK; 4]), u32::from_be_bytes([BLANK; 4]));
    let mut words = Words::default();
    if let Some(at) = shape.timestamps {
        let old = pair(packet.read(at)?);
        packet.write(at, words.replace(at - shape.l4, old, blank))?;
        #[expect(clippy::cast_possible_truncation, reason = "10 bytes")]
        let head = [TIMESTAMPS, TIMESTAMPS_LEN as u8];
        packet.write(at - HEAD, words.replace_word(at - shape.l4, head, [BLANK; HEAD]))?;
    }
    if let Some(at) = shape.sack {
        let head = packet.read(at - HEAD)?;
        packet.write(at - HEAD, words.replace_word(at - shape.l4, head, [BLANK; HEAD]))?;
    }
    if let Some(at) = shape.echo {
        let (value, echo) = pair(packet.read(at)?);
        packet.write(at, words.replace(at - shape.l4, (value, echo), (value, 0)))?;
    }
    Some(kernel_sum(words.difference()))
}
