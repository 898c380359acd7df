//! The program for the network stack: packets that arrive at an interface of any kind. The kernel finds the neighbour.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rpxy_l4_common::decide::{Arrival, Steer, Verdict, decide};
use rpxy_l4_common::map::{FlowKey, Hop};
use rpxy_l4_common::packet::Link;
use rpxy_l4_common::rewrite::Rewrite;
use rpxy_l4_common::verdict::Counter;
use rpxy_l4_ebpf::write::{self, Failed};

use crate::maps::{Entry, Kernel, account, count};
use crate::packet::Skb;

#[classifier]
fn rpxy_l4_tc(context: TcContext) -> i32 {
    let skb = Skb(context);
    // The kernel takes an Ethernet header without tags off when it sends a packet to another neighbour: tagged packets
    // are not steered, so the interface does not matter.
    let arrival = Arrival {
        link: Link::Ethernet,
        interface: 0,
        segment: skb.segment(),
        needs_hop: false,
        vlan_aside: skb.has_vlan_aside(),
    };
    let kernel = Kernel::new();
    let mut key = FlowKey::default();
    let (action, outcome) = match decide(&&kernel, &skb, arrival, &mut key) {
        Verdict::Pass(reason) => (TC_ACT_OK, reason),
        Verdict::Drop(reason) => (TC_ACT_SHOT, reason),
        Verdict::Steer(steer) => match send(&skb, &steer) {
            Ok(action) => (action, Counter::Steered),
            Err(Failed::Untouched) => (TC_ACT_OK, Counter::Refused),
            Err(Failed::Halfway) => (TC_ACT_SHOT, Counter::Broken),
        },
    };
    count(outcome);
    action
}

#[inline(always)]
fn send(skb: &Skb, steer: &Steer<'_, Entry<'_>, &Hop>) -> Result<i32, Failed> {
    write::skb(skb, &Rewrite::new(&steer.packet, &steer.flow))?;
    account(steer);
    Ok(skb.redirect(steer.flow.interface))
}
