//! The same packet, decided and translated by the code as the host compiles it.

use rpxy_l4_common::bytes::Bytes;
use rpxy_l4_common::decide::Arrival;
use rpxy_l4_common::map::FlowKey;
use rpxy_l4_common::packet::{Link, Pass};
use rpxy_l4_common::rewrite::checksum::update;
use rpxy_l4_common::tcp::counter::TcpCounter;
use rpxy_l4_common::tcp::decide::{Clamp, Leaving, TcpMaps, arriving, leaving};
use rpxy_l4_common::tcp::flow::{Side, TcpFlow, seen};
use rpxy_l4_common::tcp::follow::{Meaning, follow};
use rpxy_l4_common::tcp::segment::{Segment, parse};
use rpxy_l4_common::tcp::shape::apply;
use rpxy_l4_common::tcp::too_big;
use rpxy_l4_common::tcp::translate::{Packet, translate};

use super::{Connection, Outcome};
use crate::fixture::HERE;
use crate::kernel::Action;

struct Maps<'c> {
    connection: &'c Connection,
    sides: std::cell::Cell<[Side; 2]>,
}

impl TcpMaps for Maps<'_> {
    type Flow = Box<TcpFlow>;

    fn flow(&self, key: &FlowKey) -> Option<Box<TcpFlow>> {
        self.connection.flows.iter().find(|(of, _)| of == key).map(|(_, flow)| Box::new(*flow))
    }

    fn follow(&self, flow: &Box<TcpFlow>, segment: &Segment<'_>) -> Option<Meaning> {
        let [mut client, mut backend] = self.sides.get();
        let meaning = match flow.side {
            0 => follow(segment, flow, &mut client, &backend),
            _ => follow(segment, flow, &mut backend, &client),
        };
        self.sides.set([client, backend]);
        Some(meaning)
    }
}

struct Memory(Vec<u8>);

impl Bytes for Memory {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.as_slice().read(offset)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Packet for Memory {
    fn write<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()> {
        *self.0.get_mut(offset..)?.first_chunk_mut()? = value;
        Some(())
    }

    fn write_uncovered(&mut self, offset: usize, value: u8) -> Option<()> {
        self.write(offset, [value])
    }
}

const ARRIVAL: Arrival = Arrival {
    link: Link::Ethernet,
    interface: HERE,
    keeps_tags: false,
    segment: 0,
    needs_hop: false,
    vlan_aside: false,
};

pub(super) fn arrives(connection: &Connection, packet: &[u8]) -> Outcome {
    let maps = Maps { connection, sides: connection.sides.into() };
    let key = &mut FlowKey::default();
    let same = |counter| Outcome { action: Action::Pass, packet: packet.to_vec(), counter, sides: connection.sides };
    if parse(&packet, ARRIVAL.link, key) == Err(Pass::TooBig) {
        return match too_big::find(&maps, &packet, ARRIVAL, key) {
            Err(counter) => same(counter),
            Ok(message) => {
                let mut leaves = Memory(packet.to_vec());
                let change = too_big::translate(&mut leaves, &message, &message.flow).unwrap();
                let at = message.l4 + 2;
                let checksum = u16::from_be_bytes(leaves.read(at).unwrap());
                leaves.write(at, change.applied(checksum).to_be_bytes()).unwrap();
                Outcome { packet: leaves.0, action: Action::Redirect, ..same(Some(TcpCounter::TooBig)) }
            }
        };
    }
    match arriving(&maps, &packet, ARRIVAL, key) {
        Err(counter) => same(counter),
        Ok(forward) => {
            let mut leaves = Memory(packet.to_vec());
            let change = translate(&mut leaves, &forward.segment, forward.options, &forward.flow).unwrap();
            let checksum = change.applied(forward.segment.checksum);
            leaves.write(forward.segment.l4 + 16, checksum.to_be_bytes()).unwrap();
            let sides = if forward.meaning == Meaning::Nothing { connection.sides } else { maps.sides.get() };
            let counter = Some(TcpCounter::Forwarded);
            Outcome { action: Action::Redirect, packet: leaves.0, counter, sides }
        }
    }
}

pub(super) fn leaves(connection: &Connection, packet: &[u8]) -> Outcome {
    let maps = Maps { connection, sides: connection.sides.into() };
    let outcome = |action, counter| Outcome { action, packet: packet.to_vec(), counter, sides: connection.sides };
    match leaving(&maps, &packet, ARRIVAL, &mut FlowKey::default()) {
        Leaving::Sent => outcome(Action::Pass, None),
        Leaving::Shaped(shape) => {
            let mut leaves = Memory(packet.to_vec());
            let change = apply(&mut leaves, &shape).unwrap();
            let at = shape.l4 + 16;
            let checksum = u16::from_be_bytes(leaves.read(at).unwrap());
            let change = u16::from_be(u16::try_from(change).unwrap());
            leaves.write(at, update(checksum, change).to_be_bytes()).unwrap();
            Outcome { packet: leaves.0, ..outcome(Action::Pass, Some(TcpCounter::Shaped)) }
        }
        Leaving::Dropped(counter) => outcome(Action::Drop, Some(counter)),
        Leaving::Probe { side, clock, echo, .. } => {
            let mut outcome = outcome(Action::Drop, Some(TcpCounter::Probed));
            let noted = &mut outcome.sides[usize::from(side)];
            (noted.clock, noted.echo) = (clock, echo);
            noted.seen |= seen::PROBE;
            outcome
        }
        Leaving::Clamped(Clamp { l4, acknowledgement, .. }) => {
            let mut outcome = outcome(Action::Pass, Some(TcpCounter::Clamped));
            outcome.packet[l4 + 8..l4 + 12].copy_from_slice(&acknowledgement.to_be_bytes());
            // The checksum as a sum over everything, of which the field itself is left out.
            let old = super::checksum_error(packet, l4);
            super::set_checksum(&mut outcome.packet, l4, old);
            outcome
        }
    }
}
