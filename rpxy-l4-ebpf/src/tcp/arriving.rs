//! Packets that arrive: those of spliced connections are translated and sent on.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rpxy_l4_common::decide::Arrival;
use rpxy_l4_common::packet::Link;
use rpxy_l4_common::tcp::counter::TcpCounter;
use rpxy_l4_common::tcp::decide::{Forward, arriving};
use rpxy_l4_common::tcp::flow::TcpFlow;
use rpxy_l4_common::tcp::translate::{Packet, translate};
use rpxy_l4_ebpf::write::{self, Failed, Skb as _};

use super::maps::{self, Kernel, count, note};
use crate::clock;
use crate::lookup::has_lapsed;
use crate::packet::Skb;

/// Stands before the UDP program, and leaves to it what is not its own.
#[classifier]
fn rpxy_l4_tcp_in(context: TcContext) -> i32 {
    let mut skb = Skb { context, looks_at_many: false };
    let Some(kernel) = Kernel::of(maps::ARRIVING) else { return TC_ACT_UNSPEC };
    let (action, outcome) = match arriving(&&kernel, &skb, arrival(&skb), kernel.key()) {
        Err(None) => return TC_ACT_UNSPEC,
        Err(Some(reason)) => {
            if matches!(reason, TcpCounter::NewConnection) {
                maps::forget(&kernel);
            }
            (TC_ACT_UNSPEC, reason)
        }
        Ok(_) if has_lapsed() => (TC_ACT_UNSPEC, TcpCounter::Lapsed),
        Ok(forward) => match send(&mut skb, &kernel, &forward) {
            Ok(action) => (action, TcpCounter::Forwarded),
            Err(Failed::Untouched) => (TC_ACT_UNSPEC, TcpCounter::Refused),
            Err(Failed::Halfway) => (TC_ACT_SHOT, TcpCounter::Broken),
        },
    };
    count(outcome);
    action
}

#[inline(always)]
pub(super) fn arrival(skb: &Skb) -> Arrival {
    Arrival {
        link: Link::Ethernet,
        interface: skb.interface(),
        keeps_tags: false,
        segment: skb.segment(),
        needs_hop: false,
        vlan_aside: skb.has_vlan_aside(),
    }
}

#[inline(always)]
fn send(skb: &mut Skb, kernel: &Kernel, forward: &Forward<'_, &TcpFlow>) -> Result<i32, Failed> {
    let Forward { segment, options, flow, meaning } = forward;
    let change = translate(skb, segment, *options, flow)?;
    write::checksum(skb, segment, change)?;
    note(kernel, flow, segment.payload_len as u64, *meaning, clock::coarse());
    Ok(skb.redirect(flow.interface))
}

impl Packet for Skb {
    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()> {
        self.store(offset, value, false)
    }

    #[inline(always)]
    fn write_uncovered(&mut self, offset: usize, value: u8) -> Option<()> {
        self.store(offset, [value], true)
    }
}
