//! The programs for the network stack: packets that arrive at an interface of any kind. The kernel finds the neighbour.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rpxy_l4_common::decide::{Arrival, Steer};
use rpxy_l4_common::map::Hop;
use rpxy_l4_common::packet::Link;
use rpxy_l4_common::rewrite::Rewrite;
use rpxy_l4_ebpf::write::{self, Failed};

use crate::hook::{self, Hook};
use crate::lookup::{Entry, account};
use crate::maps;
use crate::packet::Skb;

#[classifier]
fn rpxy_l4_tc(context: TcContext) -> i32 {
    hook::run(&Skb { context, looks_at_many: true })
}

/// The same for kernels without BTF, which take no function that is given the buffer: it leaves several datagrams in
/// one to the daemon where they have to be looked at.
#[classifier]
fn rpxy_l4_tc_one(context: TcContext) -> i32 {
    hook::run(&Skb { context, looks_at_many: false })
}

impl Hook for Skb {
    const PROGRAM: u32 = maps::TC;
    const LEASED: bool = true;
    const PASS: i32 = TC_ACT_OK;
    const DROP: i32 = TC_ACT_SHOT;

    #[inline(always)]
    fn buffer(&self) -> Option<*mut __sk_buff> {
        if self.looks_at_many { Some(self.pointer()) } else { None }
    }

    #[inline(always)]
    fn arrival(&self) -> Arrival {
        Arrival {
            link: Link::Ethernet,
            interface: self.interface(),
            // The kernel takes an Ethernet header without tags off when it sends a packet to another neighbour.
            keeps_tags: false,
            segment: self.segment(),
            needs_hop: false,
            vlan_aside: self.has_vlan_aside(),
        }
    }

    #[inline(always)]
    fn send(&self, steer: &Steer<'_, Entry<'_>, &Hop>) -> Result<i32, Failed> {
        write::skb(self, &Rewrite::new(&steer.packet, &steer.flow))?;
        account(steer);
        Ok(self.redirect(steer.flow.interface))
    }
}
