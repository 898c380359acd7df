//! Packets of a flow that are steered: every possible objection is checked before anything is changed.

use crate::bytes::Bytes;
use crate::map::{Flow, Hop};
use crate::packet::Packet;
use crate::verdict::{Counter, gate, is_open};

use super::segments::datagrams;
use super::{Arrival, Maps, Steer};

/// Returns all that is needed to steer a packet, or the reason to pass it.
#[inline(always)]
pub(super) fn steer<'k, M: Maps, B: Bytes>(
    maps: &M,
    bytes: &B,
    packet: Packet<'k>,
    entry: M::Flow,
    arrival: Arrival,
) -> Result<Steer<'k, M::Flow, M::Hop>, Counter> {
    if !maps.is_whole_flow(packet.key, &entry) {
        return Err(Counter::EntryChanged);
    }
    let flow: &Flow = &entry;
    let family = packet.family as u8;
    if flow.source.family() != family || flow.destination.family() != family {
        return Err(Counter::FlowFamily);
    }
    // The rules of the host about where packets may come from, such as the reverse-path filter, see what is passed.
    if flow.ingress != arrival.interface {
        maps.count_elsewhere(&entry);
        return Err(Counter::OtherInterface);
    }
    if flow.station != packet.station {
        return Err(Counter::OtherStation);
    }
    if !is_open(flow) {
        match arrival.segment {
            0 => gate(flow, bytes, packet.payload)?,
            segment => maps.gate_each(bytes, &entry, packet.payload, segment)?,
        }
    }
    if packet.ttl <= 1 {
        return Err(Counter::Ttl);
    }
    // Tags stay as they are, which is right if the packet leaves by the interface that it came from; the tags that
    // another interface needs are not known.
    let stays = arrival.keeps_tags && flow.interface == arrival.interface;
    if arrival.vlan_aside || (packet.vlan_tags > 0 && !stays) {
        return Err(Counter::VlanTagged);
    }
    let hop = maps.hop(flow.hop);
    match &hop {
        Some(entry) if !maps.is_whole_hop(flow.hop, entry) => return Err(Counter::EntryChanged),
        Some(hop) if !fits(hop, &packet, arrival.segment) => return Err(Counter::Mtu),
        None if arrival.needs_hop => return Err(Counter::NoHop),
        Some(_) | None => {}
    }
    let datagrams = datagrams(packet.payload.len, arrival.segment);
    Ok(Steer { packet, flow: entry, hop, datagrams })
}

/// Returns true if the IP packet, or the largest one that it is cut into, does not exceed the MTU of the next hop.
#[inline(always)]
fn fits(hop: &Hop, packet: &Packet<'_>, segment: usize) -> bool {
    let headers = packet.ip_len - packet.payload.len;
    let payload = if segment == 0 || segment > packet.payload.len { packet.payload.len } else { segment };
    headers + payload <= usize::from(hop.mtu)
}
