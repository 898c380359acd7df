//! The program for drivers: before the kernel has made anything of a packet. It must know the next hop by itself.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use rpxy_l4_common::decide::{Arrival, Steer, Verdict, decide};
use rpxy_l4_common::map::{FlowKey, Hop};
use rpxy_l4_common::packet::Link;
use rpxy_l4_common::rewrite::Rewrite;
use rpxy_l4_common::verdict::Counter;
use rpxy_l4_ebpf::write::{self, Failed, Frame as _};

use crate::maps::{Entry, Kernel, account, count};
use crate::packet::Frame;

/// Offsets in the Ethernet header.
const LINK_DESTINATION: usize = 0;
const LINK_SOURCE: usize = 6;

#[xdp]
fn rpxy_l4_xdp(context: XdpContext) -> u32 {
    let frame = Frame(context);
    let interface = frame.interface();
    let arrival = Arrival { link: Link::Ethernet, interface, segment: 0, needs_hop: true, vlan_aside: false };
    let kernel = Kernel::new();
    let mut key = FlowKey::default();
    let (action, outcome) = match decide(&&kernel, &frame, arrival, &mut key) {
        Verdict::Pass(reason) => (XDP_PASS, reason),
        Verdict::Drop(reason) => (XDP_DROP, reason),
        Verdict::Steer(steer) => match send(&frame, &steer, interface) {
            Ok(action) => (action, Counter::Steered),
            Err(Failed::Untouched) => (XDP_PASS, Counter::Refused),
            Err(Failed::Halfway) => (XDP_DROP, Counter::Broken),
        },
    };
    count(outcome);
    action
}

#[inline(always)]
fn send(frame: &Frame, steer: &Steer<'_, Entry<'_>, &Hop>, interface: u32) -> Result<u32, Failed> {
    // The decision has asked for it.
    let hop = steer.hop.ok_or(Failed::Untouched)?;
    write::frame(frame, &Rewrite::new(&steer.packet, &steer.flow))?;
    frame.write(LINK_DESTINATION, hop.destination).ok_or(Failed::Halfway)?;
    frame.write(LINK_SOURCE, hop.source).ok_or(Failed::Halfway)?;
    account(steer);
    Ok(if hop.interface == interface { XDP_TX } else { frame.redirect(hop.interface) })
}
