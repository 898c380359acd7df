//! The fields of a segment that change when it is forwarded: addresses, ports, TTL, numbers, window, timestamps and SACK
//! blocks, and the checksums over them. Everything else stays, payload and unknown options included.

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use super::flow::TcpFlow;
use super::options::{MAX_BLOCKS, Options};
use super::segment::{Segment, flag};
use crate::bytes::Bytes;
use crate::map::{Family, Socket};
use crate::packet::Pass;
use crate::rewrite::checksum::{difference, fold, kernel_sum, sum_ipv4, sum_ipv6, update};

/// Bytes of a TCP header up to its checksum.
pub const HEAD: usize = offset_of!(TcpHdr, check);
/// Bytes of a SACK block: two edges.
const BLOCK: usize = 8;

/// The new values of all fields that change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation<'a> {
    /// Version of the IP header.
    pub family: Family,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Checksum of the IPv4 header; 0 for IPv6.
    pub ip_checksum: u16,
    /// Checksum of the segment, where all of it was there before.
    pub checksum: u16,
    /// Change of the TCP checksum by the addresses, for `bpf_l4_csum_replace` with `BPF_F_PSEUDO_HDR`.
    pub address_change: u32,
    /// Change of the TCP checksum by everything else, likewise without that flag.
    pub word_change: u32,
    /// Offset of the IP header, in bytes.
    pub l3: usize,
    /// Offset of the TCP header, in bytes.
    pub l4: usize,
    /// New sender.
    pub source: &'a Socket,
    /// New receiver.
    pub destination: &'a Socket,
    /// The TCP header from its start to the checksum.
    pub head: [u8; HEAD],
    /// Offset and value of the timestamps: TSval, then TSecr.
    pub timestamps: Option<(usize, [u8; 8])>,
    /// Offset of the edges of SACK blocks.
    pub sack: Option<usize>,
    /// The edges of the blocks, of which the first `blocks` count.
    pub edges: [[u8; BLOCK]; MAX_BLOCKS],
    /// Number of blocks.
    pub blocks: usize,
}

impl<'a> Translation<'a> {
    /// Computes the new values for a segment. Fails where an option that [`super::options::find`] has found cannot be
    /// read, which does not happen within a packet.
    #[inline(always)]
    pub fn new<B: Bytes>(bytes: &B, segment: &Segment<'_>, options: Options, flow: &'a TcpFlow) -> Result<Self, Pass> {
        let key = segment.key;
        let addresses = match segment.family {
            Family::V4 => difference(
                sum_ipv4(&key.source.address) + sum_ipv4(&key.destination.address),
                sum_ipv4(&flow.source.address) + sum_ipv4(&flow.destination.address),
            ),
            Family::V6 => difference(
                sum_ipv6(&key.source.address) + sum_ipv6(&key.destination.address),
                sum_ipv6(&flow.source.address) + sum_ipv6(&flow.destination.address),
            ),
        };
        let ttl = segment.ttl.saturating_sub(1);
        let ip_checksum = match segment.family {
            Family::V4 => {
                let ttl = difference(u32::from(segment.ttl) << 8, u32::from(ttl) << 8);
                update(update(segment.ip_checksum, addresses), ttl)
            }
            Family::V6 => 0,
        };
        let mut words = Words::default();
        let head = head(segment, flow, &mut words);
        let mut timestamps = None;
        if let Some(at) = options.timestamps {
            let old: [u8; 8] = bytes.read(at).ok_or(Pass::Truncated)?;
            let [a, b, c, d, e, f, g, h] = old;
            let (value, echo) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
            // 0 is sent by who has seen none (RFC 7323 section 3.2).
            let new_echo = if echo == 0 { 0 } else { echo.wrapping_add(flow.echo) };
            timestamps = Some((
                at,
                words.replace(at - segment.l4, (value, echo), (value.wrapping_add(flow.timestamp), new_echo)),
            ));
        }
        let mut edges = [[0; BLOCK]; MAX_BLOCKS];
        let (sack, blocks) = options.sack.map_or((None, 0), |(at, blocks)| (Some(at), blocks));
        if let Some(at) = sack {
            for (index, edges) in edges.iter_mut().enumerate() {
                if index < blocks {
                    let at = at + index * BLOCK;
                    let [a, b, c, d, e, f, g, h] = bytes.read(at).ok_or(Pass::Truncated)?;
                    let (left, right) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                    let new = (left.wrapping_add(flow.acknowledgement), right.wrapping_add(flow.acknowledgement));
                    *edges = words.replace(at - segment.l4, (left, right), new);
                }
            }
        }
        let change = words.difference();
        Ok(Self {
            family: segment.family,
            ttl,
            ip_checksum,
            checksum: update(update(segment.checksum, addresses), change),
            address_change: kernel_sum(addresses),
            word_change: kernel_sum(change),
            l3: segment.l3,
            l4: segment.l4,
            source: &flow.source,
            destination: &flow.destination,
            head,
            timestamps,
            sack,
            edges,
            blocks,
        })
    }

    /// Writes the new values into the packet. Returns `None` if something does not lie within it, and has then written
    /// a part.
    pub fn apply(&self, bytes: &mut [u8]) -> Option<()> {
        let l3 = self.l3;
        match self.family {
            Family::V4 => {
                put(bytes, l3 + offset_of!(Ipv4Hdr, src_addr), *self.source.address.first_chunk::<4>()?)?;
                put(bytes, l3 + offset_of!(Ipv4Hdr, dst_addr), *self.destination.address.first_chunk::<4>()?)?;
                put(bytes, l3 + offset_of!(Ipv4Hdr, ttl), [self.ttl])?;
                put(bytes, l3 + offset_of!(Ipv4Hdr, check), self.ip_checksum.to_be_bytes())?;
            }
            Family::V6 => {
                put(bytes, l3 + offset_of!(Ipv6Hdr, src_addr), self.source.address)?;
                put(bytes, l3 + offset_of!(Ipv6Hdr, dst_addr), self.destination.address)?;
                put(bytes, l3 + offset_of!(Ipv6Hdr, hop_limit), [self.ttl])?;
            }
        }
        put(bytes, self.l4, self.head)?;
        put(bytes, self.l4 + HEAD, self.checksum.to_be_bytes())?;
        if let Some((at, value)) = self.timestamps {
            put(bytes, at, value)?;
        }
        if let Some(at) = self.sack {
            for (index, block) in self.edges.iter().take(self.blocks).enumerate() {
                put(bytes, at + index * BLOCK, *block)?;
            }
        }
        Some(())
    }
}

/// The header up to its checksum.
#[inline(always)]
fn head(segment: &Segment<'_>, flow: &TcpFlow, words: &mut Words) -> [u8; HEAD] {
    let key = segment.key;
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
    words.old += u32::from(port(&key.source)) + u32::from(port(&key.destination)) + u32::from(segment.window);
    words.new += u32::from(port(&flow.source)) + u32::from(port(&flow.destination)) + u32::from(window);
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
struct Words {
    old: u32,
    new: u32,
}

impl Words {
    /// Replaces two numbers at an offset from the start of the header; returns the new ones as they stand in a packet.
    #[inline(always)]
    fn replace(&mut self, at: usize, (a, b): (u32, u32), (c, d): (u32, u32)) -> [u8; 8] {
        self.old += sum(a, b, at);
        self.new += sum(c, d, at);
        let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.to_be_bytes(), d.to_be_bytes());
        [c0, c1, c2, c3, d0, d1, d2, d3]
    }

    #[inline(always)]
    const fn difference(self) -> u16 {
        difference(self.old, self.new)
    }
}

/// The sum of two numbers. At an odd offset, each byte counts in the other half of a word (RFC 1071 section 2).
#[inline(always)]
const fn sum(a: u32, b: u32, at: usize) -> u32 {
    let sum = fold((a >> 16) + (a & 0xffff) + (b >> 16) + (b & 0xffff));
    (if at & 1 == 0 { sum } else { sum.swap_bytes() }) as u32
}

#[inline(always)]
const fn port(socket: &Socket) -> u16 {
    u16::from_be_bytes(socket.port())
}

fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(offset..)?.first_chunk_mut()? = value;
    Some(())
}
