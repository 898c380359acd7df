//! Packets that arrive: those of spliced connections are translated and sent on.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rpxy_l4_common::decide::Arrival;
use rpxy_l4_common::packet::{Link, Pass};
use rpxy_l4_common::tcp::counter::TcpCounter;
use rpxy_l4_common::tcp::decide::{Forward, arriving_segment};
use rpxy_l4_common::tcp::flow::TcpFlow;
use rpxy_l4_common::tcp::segment::parse;
use rpxy_l4_common::tcp::too_big::{self, TooBig, find};
use rpxy_l4_common::tcp::translate::{Packet, translate};
use rpxy_l4_ebpf::write::{self, Failed, Skb as _};

use super::maps::{self, Kernel, count, note};
use crate::clock;
use crate::lookup::has_lapsed;
use crate::packet::Skb;

/// Offset of the checksum in an ICMP header.
const ICMP_CHECKSUM: usize = 2;

/// Stands before the UDP program, and leaves to it what is not its own.
#[classifier]
fn rpxy_l4_tcp_in(context: TcContext) -> i32 {
    let mut skb = Skb { context, looks_at_many: false };
    let Some(kernel) = Kernel::of(maps::ARRIVING) else { return TC_ACT_UNSPEC };
    let arrival = arrival(&skb);
    let segment = match parse(&skb, arrival.link, kernel.key()) {
        Ok(segment) => segment,
        Err(Pass::TooBig) => return too_big(&mut skb, &kernel, arrival),
        Err(_not_ours) => return TC_ACT_UNSPEC,
    };
    let (action, outcome) = match arriving_segment(&&kernel, &skb, arrival, segment) {
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

/// Tells the other end what a router says about its packet.
#[inline(always)]
fn too_big(skb: &mut Skb, kernel: &Kernel, arrival: Arrival) -> i32 {
    let (action, outcome) = match find(&kernel, skb, arrival, kernel.key()) {
        Err(None) => return TC_ACT_UNSPEC,
        Err(Some(reason)) => (TC_ACT_UNSPEC, reason),
        Ok(_) if has_lapsed() => (TC_ACT_UNSPEC, TcpCounter::Lapsed),
        Ok(message) => match tell(skb, &message) {
            Ok(action) => (action, TcpCounter::TooBig),
            Err(Failed::Untouched) => (TC_ACT_UNSPEC, TcpCounter::Refused),
            Err(Failed::Halfway) => (TC_ACT_SHOT, TcpCounter::Broken),
        },
    };
    count(outcome);
    action
}

#[inline(always)]
fn tell(skb: &mut Skb, message: &TooBig<&TcpFlow>) -> Result<i32, Failed> {
    let change = too_big::translate(skb, message, message.flow)?;
    write::checksum_at(skb, message.l4 + ICMP_CHECKSUM, message.family, change)?;
    Ok(skb.redirect(message.flow.interface))
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
