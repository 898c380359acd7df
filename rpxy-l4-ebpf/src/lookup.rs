//! The look-ups of a decision in the maps of the kernel, and the account of what was steered.

use core::ops::Deref;

use aya_ebpf::bindings::__sk_buff;
use rpxy_l4_common::bytes::{Bytes, Span};
use rpxy_l4_common::decide::{Found, Maps, Steer};
use rpxy_l4_common::map::{Flow, FlowKey, Hop, HopKey, Listed, Listener, Prefix, Socket};
use rpxy_l4_common::verdict::Counter;

use crate::maps::{self, Copies, FlowSlot};
use crate::{clock, limit, mac1, many};

/// A flow as it was read, and its slot in the map. The kernel may use the slot for another entry at any time, so that
/// everything is decided by the copy, once it is known to be whole.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'s> {
    copy: &'s Flow,
    slot: FlowSlot,
}

impl Deref for Entry<'_> {
    type Target = Flow;

    #[inline(always)]
    fn deref(&self) -> &Flow {
        self.copy
    }
}

/// Accounts a packet that was steered in the entry of its flow.
#[inline(always)]
pub(crate) fn account<H>(steer: &Steer<'_, Entry<'_>, H>) {
    steer.flow.slot.count(clock::coarse(), steer.datagrams as u64, steer.packet.payload.len as u64);
}

/// Returns true if the daemon did not renew its lease in time.
#[inline(always)]
pub(crate) fn has_lapsed() -> bool {
    let end = maps::lease_end();
    end != 0 && clock::coarse() > end
}

/// The look-ups of one decision, which asks for one flow and one hop.
pub(crate) struct Kernel {
    copies: Copies,
    /// The buffer of the packet, in programs that look at several datagrams in one.
    buffer: Option<*mut __sk_buff>,
}

impl Kernel {
    /// The look-ups of a program.
    #[inline(always)]
    pub(crate) fn of(program: u32, buffer: Option<*mut __sk_buff>) -> Option<Self> {
        Copies::of(program).map(|copies| Self { copies, buffer })
    }
}

impl<'s> Maps for &'s Kernel {
    type Flow = Entry<'s>;
    type Hop = &'s Hop;

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<Self::Flow> {
        log!(note(key));
        self.copies.read_flow(key).map(|(copy, slot)| Entry { copy, slot })
    }

    #[inline(always)]
    fn hop(&self, key: HopKey) -> Option<Self::Hop> {
        self.copies.read_hop(key).filter(|hop| hop.interface != 0)
    }

    #[inline(always)]
    fn is_whole_flow(&self, key: &FlowKey, flow: &Self::Flow) -> bool {
        flow.is_whole(key)
    }

    #[inline(always)]
    fn is_whole_hop(&self, key: HopKey, hop: &Self::Hop) -> bool {
        hop.is_whole(key)
    }

    #[inline(always)]
    fn count_elsewhere(&self, flow: &Self::Flow) {
        flow.slot.count_elsewhere();
    }

    #[inline(always)]
    fn listener(&self, socket: &Socket) -> Option<Listener> {
        maps::listener(socket)
    }

    #[inline(always)]
    fn is_local(&self, address: &[u8; 16]) -> bool {
        maps::is_local(address)
    }

    #[inline(always)]
    fn is_banned(&self, source: &Prefix) -> bool {
        maps::is_banned(source)
    }

    #[inline(always)]
    fn listed(&self, key: &Listed) -> Option<u8> {
        maps::listed(key)
    }

    #[inline(always)]
    fn gate_each<B: Bytes>(&self, _: &B, _: &Self::Flow, payload: Span, segment: usize) -> Result<(), Counter> {
        let Some(buffer) = self.buffer else { return Err(Counter::Segments) };
        many::gate(buffer, payload, segment)
    }

    #[inline(always)]
    fn first_each<B: Bytes>(&self, _: &B, bits: u32, payload: Span, segment: usize) -> Found {
        let Some(buffer) = self.buffer else { return Found::Passed(Counter::Segments) };
        many::first(buffer, bits, payload, segment)
    }

    #[inline(always)]
    fn fits_mac1<B: Bytes>(&self, bytes: &B, payload: Span) -> bool {
        mac1::fits(bytes, payload)
    }

    #[inline(always)]
    fn admits(&self, source: &Socket, handshakes: u32) -> bool {
        limit::admits(source, handshakes)
    }
}
