//! The fate of a packet when the kernel refuses one of the writes, which no test run of the programs can bring about.

extern crate std;

use core::cell::Cell;
use std::vec::Vec;

use rpxy_l4_common::map::{Flow, FlowKey, Socket};
use rpxy_l4_common::packet::{Link, Packet, parse};
use rpxy_l4_common::properties::PACKET_SEEDS;

use super::*;

/// Accepts `most` writes and refuses the next one.
struct Stubborn {
    taken: Cell<usize>,
    most: usize,
}

impl Stubborn {
    fn new(most: usize) -> Self {
        Self { taken: Cell::new(0), most }
    }

    fn ask(&self) -> Option<()> {
        if self.taken.get() == self.most {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(())
    }
}

impl Frame for Stubborn {
    fn write<const N: usize>(&self, _offset: usize, _value: [u8; N]) -> Option<()> {
        self.ask()
    }
}

impl Skb for Stubborn {
    fn store<const N: usize>(&self, _offset: usize, _value: [u8; N], _summed: bool) -> Option<()> {
        self.ask()
    }

    fn change_checksum(&self, _offset: usize, _change: u32, _addresses: bool) -> Option<()> {
        self.ask()
    }

    fn add_to_sum(&self, _change: u32) {}
}

/// A packet of the corpus, and a flow of its family.
fn with_rewrite(name: &str, test: impl Fn(&Rewrite<'_>)) {
    let seed = PACKET_SEEDS.iter().find(|seed| seed.name == name).unwrap();
    let mut frame: Vec<u8> = seed.start.into();
    frame.resize(seed.len, 0);
    let key = &mut FlowKey::default();
    let packet: Packet<'_> = parse(&frame.as_slice(), Link::Ethernet, key).unwrap();
    let socket = Socket::new([0; 16], [1, 2], packet.family);
    test(&Rewrite::new(&packet, &Flow { source: socket, destination: socket, ..Flow::default() }));
}

#[test]
fn only_the_first_write_may_be_refused_without_harm() {
    type Write = fn(&Stubborn, &Rewrite<'_>) -> Result<(), Failed>;
    // (name, packet, who writes, number of writes)
    let rows: [(&str, &str, Write, usize); 4] = [
        ("IPv4 in a frame", "ipv4_quic_short", frame, 5),
        ("IPv6 in a frame", "ipv6_wireguard_transport", frame, 5),
        ("IPv4 in a buffer", "ipv4_quic_short", skb, 6),
        ("IPv6 in a buffer", "ipv6_wireguard_transport", skb, 6),
    ];
    for (name, packet, write, writes) in rows {
        with_rewrite(packet, |rewrite| {
            for most in 0..writes {
                let stubborn = Stubborn::new(most);
                let failed = if most == 0 { Failed::Untouched } else { Failed::Halfway };
                assert_eq!(write(&stubborn, rewrite), Err(failed), "{name}, {most} of {writes} writes");
                assert_eq!(stubborn.taken.get(), most, "{name}: nothing is written behind a refusal");
            }
            assert_eq!(write(&Stubborn::new(writes), rewrite), Ok(()), "{name}");
        });
    }
}
