//! The program for drivers, before the kernel has allocated anything for a packet. It must know the next hop by itself.

use core::mem::offset_of;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use network_types::eth::EthHdr;
use rpxy_l4_common::decide::{Arrival, Steer};
use rpxy_l4_common::map::{Hop, hop_flag};
use rpxy_l4_common::packet::Link;
use rpxy_l4_common::rewrite::Rewrite;
use rpxy_l4_ebpf::write::{self, Failed, Frame as _};

use crate::hook::{self, Hook};
use crate::lookup::{Entry, account};
use crate::maps;
use crate::packet::Frame;

#[xdp]
fn rpxy_l4_xdp(context: XdpContext) -> u32 {
    hook::run(&Frame(context)).cast_unsigned()
}

impl Hook for Frame {
    const PROGRAM: u32 = maps::XDP;
    const LEASED: bool = false;
    const PASS: i32 = XDP_PASS.cast_signed();
    const DROP: i32 = XDP_DROP.cast_signed();

    #[inline(always)]
    fn buffer(&self) -> Option<*mut __sk_buff> {
        None
    }

    #[inline(always)]
    fn arrival(&self) -> Arrival {
        let interface = self.interface();
        Arrival { link: Link::Ethernet, interface, keeps_tags: true, segment: 0, needs_hop: true, vlan_aside: false }
    }

    #[inline(always)]
    fn send(&self, steer: &Steer<'_, Entry<'_>, &Hop>) -> Result<i32, Failed> {
        // The decision has asked for it.
        let hop = steer.hop.ok_or(Failed::Untouched)?;
        write::frame(self, &Rewrite::new(&steer.packet, &steer.flow))?;
        self.write(offset_of!(EthHdr, dst_addr), hop.destination).ok_or(Failed::Halfway)?;
        self.write(offset_of!(EthHdr, src_addr), hop.source).ok_or(Failed::Halfway)?;
        account(steer);
        let back = hop.interface == self.interface() && hop.flags & hop_flag::REDIRECT == 0;
        Ok(if back { XDP_TX } else { self.redirect(hop.interface) }.cast_signed())
    }
}
