//! Several datagrams in one buffer, by functions of their own.
//!
//! They are global, so that the verifier walks through them once and not on every way that leads to them, and so they
//! take and return numbers. A buffer is never longer than 32 bits say.
#![expect(unsafe_code, reason = "the verifier finds global functions by their names")]
#![expect(clippy::cast_possible_truncation, reason = "offsets and lengths within a buffer")]

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use rpxy_l4_common::bytes::Span;
use rpxy_l4_common::decide::{Classify, Found, first_each, gate_each};
use rpxy_l4_common::verdict::{Counter, First, gate_number, gate_result};

use crate::maps::{self, Copies};
use crate::packet::Skb;

/// [`gate_each`] for the flow that TC has read last.
#[inline(always)]
pub(crate) fn gate(buffer: *mut __sk_buff, payload: Span, segment: usize) -> Result<(), Counter> {
    gate_result(rpxy_l4_gate(buffer, payload.offset as u32, payload.len as u32, segment as u32))
}

/// [`first_each`].
#[inline(always)]
pub(crate) fn first(buffer: *mut __sk_buff, bits: u32, payload: Span, segment: usize) -> Found {
    Found::from_number(rpxy_l4_firsts(buffer, bits, payload.offset as u32, payload.len as u32, segment as u32))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn rpxy_l4_gate(buffer: *mut __sk_buff, offset: u32, len: u32, segment: u32) -> u32 {
    let Some(copies) = Copies::of(maps::TC) else { return gate_number(Err(Counter::Truncated)) };
    gate_number(gate_each(copies.flow(), &skb(buffer), span(offset, len), segment as usize))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn rpxy_l4_firsts(buffer: *mut __sk_buff, bits: u32, offset: u32, len: u32, segment: u32) -> u32 {
    first_each(&skb(buffer), span(offset, len), segment as usize, &One { buffer, bits }).number()
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn rpxy_l4_first(buffer: *mut __sk_buff, bits: u32, offset: u32, len: u32) -> u32 {
    First::of(bits, &skb(buffer), span(offset, len)).number()
}

#[inline(always)]
fn skb(buffer: *mut __sk_buff) -> Skb {
    Skb { context: TcContext::new(buffer), looks_at_many: true }
}

#[inline(always)]
const fn span(offset: u32, len: u32) -> Span {
    Span { offset: offset as usize, len: len as usize }
}

struct One {
    buffer: *mut __sk_buff,
    bits: u32,
}

impl Classify for One {
    #[inline(always)]
    fn number(&self, datagram: Span) -> u32 {
        rpxy_l4_first(self.buffer, self.bits, datagram.offset as u32, datagram.len as u32)
    }
}
