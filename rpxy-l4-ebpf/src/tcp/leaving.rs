//! Packets that this machine sends: on a connection that it has handed over it is silent.

use core::mem::offset_of;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use network_types::tcp::TcpHdr;
use rpxy_l4_common::tcp::counter::TcpCounter;
use rpxy_l4_common::tcp::decide::{Clamp, Leaving, leaving};
use rpxy_l4_common::tcp::shape::{Shape, apply};
use rpxy_l4_ebpf::write::Skb as _;

use super::arriving::arrival;
use super::maps::{self, Kernel, count, probed};
use crate::lookup::has_lapsed;
use crate::packet::Skb;

/// Packets that are forwarded, by the program above or by a router, pass here too.
#[classifier]
fn rpxy_l4_tcp_out(context: TcContext) -> i32 {
    let mut skb = Skb { context, looks_at_many: false };
    if skb.is_forwarded() || skb.is_copy() {
        return TC_ACT_UNSPEC;
    }
    // What outlives its daemon must not silence a network stack that has packets to answer.
    if has_lapsed() {
        return TC_ACT_UNSPEC;
    }
    let Some(kernel) = Kernel::of(maps::LEAVING) else { return TC_ACT_UNSPEC };
    let (action, outcome) = match leaving(&&kernel, &skb, arrival(&skb), kernel.key()) {
        Leaving::Sent => return TC_ACT_UNSPEC,
        Leaving::Shaped(shape) => match shaped(&mut skb, &shape) {
            Some(()) => {
                if shape.doubled {
                    skb.send_copy();
                }
                (TC_ACT_UNSPEC, TcpCounter::Shaped)
            }
            // Lost, to be sent again.
            None => (TC_ACT_SHOT, TcpCounter::Broken),
        },
        Leaving::Dropped(reason) => (TC_ACT_SHOT, reason),
        Leaving::Probe { slot, side, clock, echo } => {
            probed(slot, side, clock, echo);
            (TC_ACT_SHOT, TcpCounter::Probed)
        }
        Leaving::Clamped(clamp) => match clamped(&skb, &clamp) {
            Some(()) => (TC_ACT_UNSPEC, TcpCounter::Clamped),
            // Better lost, to be sent again, than a promise that nobody keeps.
            None => (TC_ACT_SHOT, TcpCounter::Silenced),
        },
    };
    count(outcome);
    action
}

#[inline(always)]
fn shaped(skb: &mut Skb, shape: &Shape) -> Option<()> {
    let change = apply(skb, shape)?;
    skb.change_checksum(shape.l4 + offset_of!(TcpHdr, check), change, false)
}

#[inline(always)]
fn clamped(skb: &Skb, clamp: &Clamp) -> Option<()> {
    let Clamp { l4, acknowledgement, change } = *clamp;
    skb.store(l4 + offset_of!(TcpHdr, ack_seq), acknowledgement.to_be_bytes(), false)?;
    skb.change_checksum(l4 + offset_of!(TcpHdr, check), change, false)
}
