//! The whole decision about a TCP packet, the same for the programs and the host. It only reads.

use core::ops::Deref;

use super::counter::TcpCounter;
use super::flow::{TcpFlow, may, state};
use super::follow::Meaning;
use super::options::{Options, find};
use super::segment::{Segment, flag, parse};
use super::sequence::is_after;
use super::shape::{Shape, shape};
use crate::bytes::Bytes;
use crate::decide::Arrival;
use crate::map::FlowKey;
use crate::rewrite::checksum::{difference, kernel_sum};

/// What a decision looks up.
pub trait TcpMaps {
    /// An entry of `TCP_FLOWS`, as it was read.
    type Flow: Deref<Target = TcpFlow>;

    /// Returns the entry of the packets that arrive with these addresses.
    fn flow(&self, key: &FlowKey) -> Option<Self::Flow>;

    /// Returns true if it is that entry, and all of it.
    #[inline(always)]
    fn is_whole(&self, key: &FlowKey, flow: &Self::Flow) -> bool {
        flow.is_whole(key)
    }

    /// [Follows](super::follow::follow) a segment in a copy of the notes of its connection. Returns `None` if there are none.
    fn follow(&self, flow: &Self::Flow, segment: &Segment<'_>) -> Option<Meaning>;
}

/// A packet that is forwarded.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'k, F> {
    /// Its headers.
    pub segment: Segment<'k>,
    /// Its options that are translated.
    pub options: Options,
    /// The entry.
    pub flow: F,
    /// What it means for the connection. Of what was noted, [`TcpMaps::follow`] has kept a copy.
    pub meaning: Meaning,
}

/// Decides about a packet that arrives. What is not forwarded goes to the next program, counted if it belongs to a
/// connection of ours.
#[inline(always)]
pub fn arriving<'k, M: TcpMaps, B: Bytes>(
    maps: &M,
    bytes: &B,
    arrival: Arrival,
    key: &'k mut FlowKey,
) -> Result<Forward<'k, M::Flow>, Option<TcpCounter>> {
    let segment = parse(bytes, arrival.link, key).map_err(|_not_ours| None)?;
    arriving_segment(maps, bytes, arrival, segment)
}

/// Likewise, of a packet that was [read](parse).
#[inline(always)]
pub fn arriving_segment<'k, M: TcpMaps, B: Bytes>(
    maps: &M,
    bytes: &B,
    arrival: Arrival,
    segment: Segment<'k>,
) -> Result<Forward<'k, M::Flow>, Option<TcpCounter>> {
    let flow = maps.flow(segment.key).ok_or(None)?;
    if !maps.is_whole(segment.key, &flow) {
        return Err(Some(TcpCounter::EntryChanged));
    }
    if !matches!(flow.state, state::LIVE | state::ENDING) {
        return Err(Some(TcpCounter::ToDaemon));
    }
    let is_new = segment.flags() & (flag::SYN | flag::ACK) == flag::SYN;
    if flow.state == state::ENDING && is_new {
        return Err(Some(TcpCounter::NewConnection));
    }
    let family = segment.family as u8;
    if flow.source.family() != family || flow.destination.family() != family {
        return Err(Some(TcpCounter::Family));
    }
    if flow.ingress != arrival.interface {
        return Err(Some(TcpCounter::OtherInterface));
    }
    if flow.station != segment.station {
        return Err(Some(TcpCounter::OtherStation));
    }
    if segment.ttl <= 1 {
        return Err(Some(TcpCounter::Ttl));
    }
    if arrival.vlan_aside || segment.vlan_tags > 0 {
        return Err(Some(TcpCounter::VlanTagged));
    }
    let meaning = maps.follow(&flow, &segment).ok_or(Some(TcpCounter::EntryChanged))?;
    let options = find(bytes, segment.options);
    Ok(Forward { segment, options, flow, meaning })
}

/// What becomes of a packet that this machine itself sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It is none of ours, or may go as it is.
    Sent,
    /// It goes, and is dropped.
    Dropped(TcpCounter),
    /// It is dropped, and was a probe: TSval and TSecr, for the notes of the side that it was for.
    Probe {
        /// The slot of the connection.
        slot: u32,
        /// The side.
        side: u8,
        /// TSval.
        clock: u32,
        /// TSecr.
        echo: u32,
    },
    /// It goes with another acknowledgement number.
    Clamped(Clamp),
    /// It goes with other options, or twice.
    Shaped(Shape),
}

/// An acknowledgement number that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clamp {
    /// Offset of the TCP header, in bytes.
    pub l4: usize,
    /// The new number.
    pub acknowledgement: u32,
    /// Change of the checksum, for `bpf_l4_csum_replace`.
    pub change: u32,
}

/// Decides about a packet that this machine sends; one that it forwards is none of ours. `key` receives the addresses of
/// the packets that it would answer.
#[inline(always)]
pub fn leaving<M: TcpMaps, B: Bytes>(maps: &M, bytes: &B, arrival: Arrival, key: &mut FlowKey) -> Leaving {
    let Ok(segment) = parse(bytes, arrival.link, key) else { return Leaving::Sent };
    let (flags, acknowledgement, payload) = (segment.flags(), segment.acknowledgement, segment.payload_len);
    let (l4, options) = (segment.l4, segment.options);
    core::mem::swap(&mut key.source, &mut key.destination);
    let Some(flow) = maps.flow(key) else { return Leaving::Sent };
    if !maps.is_whole(key, &flow) {
        // Nothing but a hand-over that is under way needs silence, and that notices an acknowledgement too many.
        return Leaving::Sent;
    }
    match flow.state {
        // There is no socket any more: the daemon has been killed in the hand-over, and the end has to learn of it.
        state::BLOCKED | state::DRAINING if flags & flag::RST != 0 => Leaving::Sent,
        state::BLOCKED => {
            let timestamps = find(bytes, options).timestamps.and_then(|at| bytes.read::<8>(at));
            match timestamps {
                Some([a, b, c, d, e, f, g, h]) if payload == 0 => Leaving::Probe {
                    slot: flow.slot,
                    side: flow.side,
                    clock: u32::from_be_bytes([a, b, c, d]),
                    echo: u32::from_be_bytes([e, f, g, h]),
                },
                _ => Leaving::Dropped(TcpCounter::Silenced),
            }
        }
        state::DRAINING if payload == 0 => Leaving::Dropped(TcpCounter::Silenced),
        state::DRAINING if is_after(acknowledgement, flow.promised) => {
            let words = |number: u32| (number >> 16) + (number & 0xffff);
            let change = kernel_sum(difference(words(acknowledgement), words(flow.promised)));
            Leaving::Clamped(Clamp { l4, acknowledgement: flow.promised, change })
        }
        state::CONNECTING => {
            shape(bytes, l4, flags & flag::SYN != 0, options, flow.may).map_or(Leaving::Sent, Leaving::Shaped)
        }
        state::LIVE if flags & flag::SYN != 0 => Leaving::Dropped(TcpCounter::PortInUse),
        state::LIVE => {
            let held = flow.may & may::SEND_HELD != 0 && payload > 0 && acknowledgement == flow.promised;
            if held { Leaving::Sent } else { Leaving::Dropped(TcpCounter::Silenced) }
        }
        state::ENDING => Leaving::Dropped(TcpCounter::Silenced),
        _ => Leaving::Sent,
    }
}
