//! The programs as the host compiles them: the decision and the rewrite of `rpxy-l4-common` over maps of its own.

use std::collections::HashMap;
use std::net::IpAddr;

use rpxy_l4_common::decide::{self, Arrival, Verdict, decide};
use rpxy_l4_common::map::{Flow, FlowKey, Hop, HopKey, Listed, Listener, Prefix, Socket, hop_flag};
use rpxy_l4_common::packet::Link;
use rpxy_l4_common::rewrite::Rewrite;
use rpxy_l4_common::verdict::Counter;

use crate::fixture::HERE;
use crate::kernel::{Action, Outcome, Program};
use crate::maps::{Maps, banned_bytes, field, listed_bytes};

/// A packet as TC gets it.
const ARRIVAL: Arrival = Arrival {
    link: Link::Ethernet,
    interface: HERE,
    keeps_tags: false,
    segment: 0,
    needs_hop: false,
    vlan_aside: false,
};

/// The maps, as a program sees them.
pub(super) struct Host {
    flows: HashMap<FlowKey, Flow>,
    hops: HashMap<HopKey, Hop>,
    listeners: HashMap<Socket, u32>,
    local: Vec<[u8; 16]>,
    banned: Vec<(IpAddr, u32)>,
    listed: Vec<(u16, IpAddr, u32, u8)>,
}

impl Host {
    /// What is in `extra` replaces what is in `base`.
    pub(super) fn new(base: &Maps, extra: &Maps) -> Self {
        Self {
            flows: base.flows.iter().chain(&extra.flows).copied().collect(),
            hops: base.hops.iter().chain(&extra.hops).copied().collect(),
            listeners: base.listeners.iter().chain(&extra.listeners).copied().collect(),
            local: base.local.iter().map(|address| field(*address)).collect(),
            banned: base.banned.clone(),
            listed: base.listed.clone(),
        }
    }

    /// What the program does with a packet.
    pub(super) fn run(&self, program: Program, packet: &[u8], segment: u16) -> Outcome {
        let mut key = FlowKey::default();
        let arrival = match program {
            Program::Xdp => Arrival { keeps_tags: true, segment: 0, needs_hop: true, ..ARRIVAL },
            Program::Tc | Program::TcOne => Arrival { segment: segment.into(), ..ARRIVAL },
        };
        let verdict = decide(&self, &packet, arrival, &mut key);
        let mut packet = packet.to_vec();
        let (action, counter) = match verdict {
            Verdict::Pass(reason) => (Action::Pass, reason),
            Verdict::Drop(reason) => (Action::Drop, reason),
            Verdict::Steer(steer) => {
                Rewrite::new(&steer.packet, steer.flow).apply(&mut packet).expect("headers are there");
                let action = match (program, steer.hop) {
                    (Program::Xdp, Some(hop)) => {
                        packet[..6].copy_from_slice(&hop.destination);
                        packet[6..12].copy_from_slice(&hop.source);
                        let back = hop.interface == HERE && hop.flags & hop_flag::REDIRECT == 0;
                        if back { Action::Back } else { Action::Redirect }
                    }
                    (Program::Xdp | Program::Tc | Program::TcOne, _) => Action::Redirect,
                };
                (action, Counter::Steered)
            }
        };
        Outcome { action, packet, counter }
    }
}

impl<'a> decide::Maps for &'a Host {
    type Flow = &'a Flow;
    type Hop = &'a Hop;

    fn flow(&self, key: &FlowKey) -> Option<&'a Flow> {
        self.flows.get(key)
    }

    fn hop(&self, key: HopKey) -> Option<&'a Hop> {
        self.hops.get(&key)
    }

    fn listener(&self, socket: &Socket) -> Option<Listener> {
        self.listeners.get(socket).map(|drop| Listener { drop: *drop })
    }

    fn is_local(&self, address: &[u8; 16]) -> bool {
        self.local.contains(address)
    }

    fn listed(&self, key: &Listed) -> Option<u8> {
        let [_, _, _, _, sender @ ..] = key.to_bytes();
        let around = self.listed.iter().map(|(list, network, len, value)| (listed_bytes(*list, *network, *len), value));
        let around = around.filter(|(network, _)| contains(*network, (key.bits, sender)));
        around.max_by_key(|((bits, _), _)| *bits).map(|(_, value)| *value)
    }

    fn is_banned(&self, source: &Prefix) -> bool {
        let mut sender = [0; 20];
        sender[0] = source.family;
        sender[1..17].copy_from_slice(&source.address);
        self.banned.iter().any(|(network, len)| contains(banned_bytes(*network, *len), (source.bits, sender)))
    }
}

/// Returns whether a sender is in a network, each as bytes with a number of bits.
fn contains((bits, network): (u32, [u8; 20]), (of_sender, sender): (u32, [u8; 20])) -> bool {
    bits <= of_sender && (0..bits as usize).all(|bit| at(&sender, bit) == at(&network, bit))
}

/// One bit, the highest of the first byte first.
fn at(bytes: &[u8; 20], bit: usize) -> bool {
    bytes[bit / 8] & (0x80 >> (bit % 8)) != 0
}
