//! The inputs of the decision: entries of the maps, and the arrival of the packet.

use core::ops::Deref;

use crate::bytes::{Bytes, Span};
use crate::map::{Family, Flow, FlowKey, Hop, HopKey, Listed, Listener, Prefix, Socket};
use crate::packet::Link;
use crate::verdict::{Counter, First};

use super::segments::{Classify, Found, first_each, gate_each};

/// Look-ups in the maps of [`crate::map`].
pub trait Maps {
    /// An entry of `FLOWS`.
    type Flow: Deref<Target = Flow>;
    /// An entry of `HOPS`.
    type Hop: Deref<Target = Hop>;

    /// Returns the flow that a packet belongs to.
    fn flow(&self, key: &FlowKey) -> Option<Self::Flow>;
    /// Returns the next hop of a flow.
    fn hop(&self, key: HopKey) -> Option<Self::Hop>;
    /// Returns true if what was read is the entry of `key`, and whole. Maps of the host do not change while they are
    /// read.
    #[inline(always)]
    fn is_whole_flow(&self, _key: &FlowKey, _flow: &Self::Flow) -> bool {
        true
    }
    /// The same for a next hop.
    #[inline(always)]
    fn is_whole_hop(&self, _key: HopKey, _hop: &Self::Hop) -> bool {
        true
    }
    /// Counts a packet of a flow that arrived by another interface than its entry says.
    #[inline(always)]
    fn count_elsewhere(&self, _flow: &Self::Flow) {}
    /// Returns the listener of exactly this socket address.
    fn listener(&self, socket: &Socket) -> Option<Listener>;
    /// Returns true if an address belongs to this machine.
    fn is_local(&self, address: &[u8; 16]) -> bool;
    /// Returns true if a sender, as a prefix of full length, is in a banned network.
    fn is_banned(&self, source: &Prefix) -> bool;
    /// Returns the value of the smallest network that a sender is in, of its access list.
    fn listed(&self, key: &Listed) -> Option<u8>;
    /// Judges all datagrams of a flow in one buffer: [`gate_each`]. Programs have a function of their own for it, which
    /// the verifier walks through once and not for each path that leads to it.
    #[inline(always)]
    fn gate_each<B: Bytes>(&self, bytes: &B, flow: &Self::Flow, payload: Span, segment: usize) -> Result<(), Counter> {
        gate_each(flow, bytes, payload, segment)
    }
    /// Judges all datagrams without a flow in one buffer, by the bits of their listener: [`first_each`]. Likewise.
    #[inline(always)]
    fn first_each<B: Bytes>(&self, bytes: &B, bits: u32, payload: Span, segment: usize) -> Found {
        first_each(bytes, payload, segment, &Classifier { bytes, bits })
    }
    /// Returns true if a WireGuard initiation is made for one of the keys, or there are none.
    #[inline(always)]
    fn fits_mac1<B: Bytes>(&self, _bytes: &B, _payload: Span) -> bool {
        true
    }
    /// Charges handshakes to the network of their sender. Returns false if it may not begin that many.
    #[inline(always)]
    fn admits(&self, _source: &Socket, _handshakes: u32) -> bool {
        true
    }
}

/// The arrival of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The header that it begins with.
    pub link: Link,
    /// The interface that it came by.
    pub interface: u32,
    /// Tagged packets may leave by that interface with their tags.
    pub keeps_tags: bool,
    /// Payload bytes of one datagram where the kernel keeps several in one buffer (`gso_size`); 0 where it does not.
    pub segment: usize,
    /// The program must know the next hop, since the kernel does not find MTU and neighbour.
    pub needs_hop: bool,
    /// A VLAN tag was taken out of the packet and is kept beside it (`vlan_present`).
    pub vlan_aside: bool,
}

struct Classifier<'a, B> {
    bytes: &'a B,
    bits: u32,
}

impl<B: Bytes> Classify for Classifier<'_, B> {
    #[inline(always)]
    fn number(&self, datagram: Span) -> u32 {
        First::of(self.bits, self.bytes, datagram).number()
    }
}

impl Prefix {
    /// The prefix that a sender is looked up by: all bits of its address.
    #[inline(always)]
    #[must_use]
    pub const fn of(socket: &Socket) -> Self {
        let bits = if socket.family() == Family::V4 as u8 { 8 + 32 } else { 8 + 128 };
        Self { bits, family: socket.family(), address: socket.address, zero: [0; 3] }
    }
}
