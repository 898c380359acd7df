//! The whole decision about a packet, the same for XDP, TC and the host.
//!
//! It only reads: the caller carries the decision out. Every outcome has a number to be counted under. When in doubt,
//! the packet is passed unchanged.

mod early;
mod flow;
mod maps;
mod segments;
#[cfg(test)]
mod tests;

pub use maps::{Arrival, Maps};
pub use segments::{Classify, Found, MAX_SEGMENTS, first_each, gate_each};

use crate::bytes::Bytes;
use crate::map::{FlowKey, Listed, Prefix, Socket, access, drop_class};
use crate::packet::{Packet, parse};
use crate::verdict::Counter;

/// The decision about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'k, F, H> {
    /// It is rewritten and sent on; counted as [`Counter::Steered`] once that is done.
    Steer(Steer<'k, F, H>),
    /// It is left as it is.
    Pass(Counter),
    /// It is dropped.
    Drop(Counter),
}

/// A packet that is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steer<'k, F, H> {
    /// Its headers.
    pub packet: Packet<'k>,
    /// The entry of its flow, which [`crate::rewrite::Rewrite`] takes and in which the packet is accounted.
    pub flow: F,
    /// The entry of the next hop, if there is one.
    pub hop: Option<H>,
    /// Datagrams in it: 1, or more where the kernel keeps several in one buffer.
    pub datagrams: usize,
}

/// Decides about a packet. `key` receives the addresses that it is looked up by.
#[inline(always)]
pub fn decide<'k, M: Maps, B: Bytes>(
    maps: &M,
    bytes: &B,
    arrival: Arrival,
    key: &'k mut FlowKey,
) -> Verdict<'k, M::Flow, M::Hop> {
    let packet = match parse(bytes, arrival.link, key) {
        Ok(packet) => packet,
        Err(reason) => return Verdict::Pass(reason.into()),
    };
    match maps.flow(packet.key) {
        Some(entry) => match flow::steer(maps, bytes, packet, entry, arrival) {
            Ok(steer) => Verdict::Steer(steer),
            Err(reason) => Verdict::Pass(reason),
        },
        None => without_flow(maps, bytes, &packet, arrival.segment),
    }
}

/// Packets of no flow go to the daemon if they are for one of its sockets and its policy does not drop them.
#[inline(always)]
fn without_flow<'k, M: Maps, B: Bytes>(
    maps: &M,
    bytes: &B,
    packet: &Packet<'k>,
    segment: usize,
) -> Verdict<'k, M::Flow, M::Hop> {
    let Some(bits) = listener(maps, &packet.key.destination) else {
        return Verdict::Pass(Counter::Foreign);
    };
    if maps.is_banned(&Prefix::of(&packet.key.source)) {
        return Verdict::Drop(Counter::Banned);
    }
    if is_denied(maps, bits, &packet.key.source) {
        return Verdict::Drop(Counter::Denied);
    }
    let bits = bits & drop_class::ALL;
    if bits == 0 {
        return Verdict::Pass(Counter::NoFlow);
    }
    match early::dropped_because(maps, bytes, packet, bits, segment) {
        Ok(reason) => Verdict::Drop(reason),
        Err(reason) => Verdict::Pass(reason),
    }
}

/// Returns true if the access list of a listener with these bits refuses a sender.
#[inline(always)]
fn is_denied<M: Maps>(maps: &M, bits: u32, source: &Socket) -> bool {
    let list = (bits >> access::SHIFT) as u16;
    if list == 0 {
        return false;
    }
    match maps.listed(&Listed::of(list, source)) {
        Some(value) => value != access::ALLOWED,
        None => bits & access::UNLISTED != 0,
    }
}

/// Returns the bits of the listener that a packet is for, by its exact address or by the wildcard address.
#[inline(always)]
fn listener<M: Maps>(maps: &M, destination: &Socket) -> Option<u32> {
    if let Some(listener) = maps.listener(destination) {
        return Some(listener.drop);
    }
    let any = Socket { address: [0; 16], ..*destination };
    let listener = maps.listener(&any)?;
    maps.is_local(&destination.address).then_some(listener.drop)
}
