//! The fields of a segment that change when it is forwarded: addresses, ports, TTL, numbers, window, timestamps and SACK
//! blocks, and the checksums over them. Everything else stays, payload and unknown options included.

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use super::flow::TcpFlow;
use super::options::{MAX_BLOCKS, Options};
use super::segment::{Segment, flag};
use crate::bytes::Bytes;
use crate::map::Family;
use crate::rewrite::Failed;
use crate::rewrite::checksum::{difference, fold, kernel_sum, update};

/// Bytes of a TCP header up to its checksum.
const HEAD: usize = offset_of!(TcpHdr, check);
/// Bytes of a SACK block: two edges.
const BLOCK: usize = 8;

/// A packet that is written as it is read: a program has no room for all that is new.
pub trait Packet: Bytes {
    /// Writes at an offset from the start. Returns `None` if that cannot be written, and has then written nothing.
    fn write<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()>;

    /// Likewise, for a byte that no checksum within the packet covers, so that one over the whole packet changes.
    fn write_uncovered(&mut self, offset: usize, value: u8) -> Option<()>;
}

/// What the checksum of a segment has to be told of a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Change by the addresses.
    pub addresses: u16,
    /// Change by everything else.
    pub words: u16,
}

impl Change {
    /// Returns the change by addresses for `bpf_l4_csum_replace` with `BPF_F_PSEUDO_HDR`.
    #[inline(always)]
    #[must_use]
    pub const fn of_addresses(self) -> u32 {
        kernel_sum(self.addresses)
    }

    /// Returns the other change, for the same without that flag.
    #[inline(always)]
    #[must_use]
    pub const fn of_words(self) -> u32 {
        kernel_sum(self.words)
    }

    /// Returns the checksum of a segment, where all of it was there before.
    #[inline(always)]
    #[must_use]
    pub const fn applied(self, checksum: u16) -> u16 {
        update(update(checksum, self.addresses), self.words)
    }
}

/// Translates a segment, all but its checksum. Reads each field before it is written.
#[inline(always)]
pub fn translate<P: Packet>(
    packet: &mut P,
    segment: &Segment<'_>,
    options: Options,
    flow: &TcpFlow,
) -> Result<Change, Failed> {
    let mut words = Words::default();
    packet.write(segment.l4, head(segment, flow, &mut words)).ok_or(Failed::Untouched)?;
    if let Some(at) = options.timestamps {
        let old = packet.read(at).ok_or(Failed::Halfway)?;
        let (value, echo) = pair(old);
        // 0 is sent by who has seen none (RFC 7323 section 3.2).
        let echo = if echo == 0 { 0 } else { echo.wrapping_add(flow.echo) };
        let new = (value.wrapping_add(flow.timestamp), echo);
        packet.write(at, words.replace(at - segment.l4, pair(old), new)).ok_or(Failed::Halfway)?;
    }
    if let Some((at, blocks)) = options.sack {
        // More turns than there are blocks: so few would be written out, each with a place of its own on a program's stack. A
        // bound all the same, by which older verifiers see that the loop ends.
        for block in 0..3 * MAX_BLOCKS {
            if block >= blocks {
                break;
            }
            let at = at + block * BLOCK;
            let (left, right) = pair(packet.read(at).ok_or(Failed::Halfway)?);
            let new = (left.wrapping_add(flow.acknowledgement), right.wrapping_add(flow.acknowledgement));
            packet.write(at, words.replace(at - segment.l4, (left, right), new)).ok_or(Failed::Halfway)?;
        }
    }
    addresses(packet, segment, flow).ok_or(Failed::Halfway)?;
    Ok(Change { addresses: flow.address_change, words: words.difference() })
}

/// Writes addresses and TTL, and the checksum of an IPv4 header.
#[inline(always)]
fn addresses<P: Packet>(packet: &mut P, segment: &Segment<'_>, flow: &TcpFlow) -> Option<()> {
    let l3 = segment.l3;
    let ttl = segment.ttl.saturating_sub(1);
    match segment.family {
        Family::V4 => {
            let of_ttl = difference(u32::from(segment.ttl) << 8, u32::from(ttl) << 8);
            let checksum = update(update(segment.ip_checksum, flow.address_change), of_ttl);
            let ([a, b, c, d, ..], [e, f, g, h, ..]) = (flow.source.address, flow.destination.address);
            packet.write(l3 + offset_of!(Ipv4Hdr, src_addr), [a, b, c, d, e, f, g, h])?;
            packet.write(l3 + offset_of!(Ipv4Hdr, ttl), [ttl])?;
            packet.write(l3 + offset_of!(Ipv4Hdr, check), checksum.to_be_bytes())
        }
        Family::V6 => {
            packet.write(l3 + offset_of!(Ipv6Hdr, src_addr), flow.source.address)?;
            packet.write(l3 + offset_of!(Ipv6Hdr, dst_addr), flow.destination.address)?;
            packet.write_uncovered(l3 + offset_of!(Ipv6Hdr, hop_limit), ttl)
        }
    }
}

#[inline(always)]
pub(super) const fn pair(bytes: [u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = bytes;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// The header up to its checksum.
#[inline(always)]
fn head(segment: &Segment<'_>, flow: &TcpFlow, words: &mut Words) -> [u8; HEAD] {
    let sequence = segment.sequence.wrapping_add(flow.sequence);
    // Without ACK the field says nothing; it stays, so that the packet does (RFC 9293 section 3.1).
    let acknowledgement = if segment.has(flag::ACK) {
        segment.acknowledgement.wrapping_add(flow.acknowledgement)
    } else {
        segment.acknowledgement
    };
    let window = window(segment, flow);
    let [a, b] = flow.source.port();
    let [c, d] = flow.destination.port();
    let ([e, f, g, h, i, j, k, l], [m, n], [o, p]) = (
        words.replace(
            offset_of!(TcpHdr, seq),
            (segment.sequence, segment.acknowledgement),
            (sequence, acknowledgement),
        ),
        segment.control,
        window.to_be_bytes(),
    );
    words.old += u32::from(segment.window);
    words.new += u32::from(flow.port_change) + u32::from(window);
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The window in the receiver's scale. What is too large for it is cut, and what is too small rounded down: a sender may
/// be told of less room than there is, never of more. The window of a SYN is not scaled (RFC 7323 section 2.2).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "compared with the largest one before")]
fn window(segment: &Segment<'_>, flow: &TcpFlow) -> u16 {
    let shift = flow.window_shift;
    if segment.has(flag::SYN) || shift == 0 {
        return segment.window;
    }
    // More than the 14 places of RFC 7323 section 2.3 are none of ours.
    if shift < 0 {
        return segment.window >> (shift.unsigned_abs() & 15);
    }
    let window = u32::from(segment.window) << (shift.unsigned_abs() & 15);
    if window > 0xffff { 0xffff } else { window as u16 }
}

/// The sums of what was there and of what takes its place, not folded: a header has few enough words.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Words {
    old: u32,
    new: u32,
}

impl Words {
    /// Replaces a word likewise.
    #[inline(always)]
    pub(super) fn replace_word(&mut self, at: usize, old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
        let word = |word| if at & 1 == 0 { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) };
        self.old += u32::from(word(old));
        self.new += u32::from(word(new));
        new
    }

    /// Replaces two numbers at an offset from the start of the header; returns the new ones as they stand in a packet.
    #[inline(always)]
    pub(super) fn replace(&mut self, at: usize, (a, b): (u32, u32), (c, d): (u32, u32)) -> [u8; 8] {
        self.old += sum(a, b, at);
        self.new += sum(c, d, at);
        let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.to_be_bytes(), d.to_be_bytes());
        [c0, c1, c2, c3, d0, d1, d2, d3]
    }

    #[inline(always)]
    pub(super) const fn difference(self) -> u16 {
        difference(self.old, self.new)
    }
}

/// The sum of two numbers. At an odd offset, each byte counts in the other half of a word (RFC 1071 section 2).
#[inline(always)]
const fn sum(a: u32, b: u32, at: usize) -> u32 {
    let sum = fold((a >> 16) + (a & 0xffff) + (b >> 16) + (b & 0xffff));
    (if at & 1 == 0 { sum } else { sum.swap_bytes() }) as u32
}
