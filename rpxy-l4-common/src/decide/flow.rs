//! Whether a packet of a flow is steered: everything that could stand against it is asked before anything is changed.

use core::num::NonZero;

use crate::bytes::{Bytes, Span};
use crate::map::{Flow, Hop};
use crate::packet::Packet;
use crate::verdict::{Counter, gate, is_open};

use super::{Arrival, MAX_SEGMENTS, Maps, Steer};

/// What is needed to steer a packet, or why it is passed.
#[inline(always)]
pub(super) fn steer<M: Maps, B: Bytes>(
    maps: &M,
    bytes: &B,
    packet: Packet,
    entry: M::Flow,
    arrival: Arrival,
) -> Result<Steer<M::Flow, M::Hop>, Counter> {
    let flow: &Flow = &entry;
    let family = packet.family as u8;
    if flow.source.family != family || flow.destination.family != family {
        return Err(Counter::FlowFamily);
    }
    if !is_open(flow) {
        each_datagram(packet.payload, arrival.segment, |payload| gate(flow, bytes, payload))?;
    }
    if packet.ttl <= 1 {
        return Err(Counter::Ttl);
    }
    // Tags stay as they are, which is right where the packet turns round; nobody has said which ones another interface
    // wants.
    if arrival.vlan_aside || (packet.vlan_tags > 0 && flow.interface != arrival.interface) {
        return Err(Counter::VlanTagged);
    }
    let hop = maps.hop(flow.hop);
    match &hop {
        Some(hop) if !fits(hop, &packet, arrival.segment) => return Err(Counter::Mtu),
        None if arrival.needs_hop => return Err(Counter::NoHop),
        Some(_) | None => {}
    }
    let datagrams = datagrams(packet.payload.len, arrival.segment);
    Ok(Steer { packet, flow: entry, hop, datagrams })
}

/// Whether the IP packet, or the largest one that it is cut into, is not larger than the way takes.
#[inline(always)]
fn fits(hop: &Hop, packet: &Packet, segment: usize) -> bool {
    let headers = packet.ip_len - packet.payload.len;
    let payload = if segment == 0 || segment > packet.payload.len { packet.payload.len } else { segment };
    headers + payload <= hop.mtu as usize
}

#[inline(always)]
fn datagrams(len: usize, segment: usize) -> usize {
    match NonZero::new(segment) {
        Some(segment) if len > 0 => (len - 1) / segment + 1,
        Some(_) | None => 1,
    }
}

/// Calls `each` with every datagram of a payload until one fails: with the whole of it, or with parts of `segment`
/// bytes where that is not 0. Fails when there are more than [`MAX_SEGMENTS`].
#[inline(always)]
pub(super) fn each_datagram(
    payload: Span,
    segment: usize,
    mut each: impl FnMut(Span) -> Result<(), Counter>,
) -> Result<(), Counter> {
    if segment == 0 {
        return each(payload);
    }
    let mut done = 0;
    for _ in 0..MAX_SEGMENTS {
        let left = payload.len - done;
        let len = if left < segment { left } else { segment };
        each(Span { offset: payload.offset + done, len })?;
        done += len;
        if done >= payload.len {
            return Ok(());
        }
    }
    Err(Counter::Segments)
}
