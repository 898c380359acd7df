//! What becomes of a packet in each state of its connection.

use std::collections::BTreeMap;

use super::*;
use crate::decide::Arrival;
use crate::tcp::counter::TcpCounter;
use crate::tcp::decide::{Clamp, Leaving, TcpMaps, arriving, leaving};
use crate::tcp::flow::{Side, may, state};
use crate::tcp::follow::{Meaning, follow};
use crate::tcp::shape::Shape;

pub(super) const CLIENT: &str = "192.0.2.1:40000";
pub(super) const FRONT: &str = "198.51.100.7:443";
pub(super) const NEAR: &str = "203.0.113.9:50001";
pub(super) const BACKEND: &str = "10.0.0.5:8443";
const INGRESS: u32 = 2;
/// What the backend was told when the connection was handed over, in the daemon's numbers.
const PROMISED: u32 = 2_000;

/// One connection, of which the client's direction has the key of [`Frame::v4`].
#[derive(Default)]
pub(super) struct Maps {
    flows: BTreeMap<(Vec<u8>, Vec<u8>), TcpFlow>,
    sides: [Side; 2],
}

fn map_key(key: &FlowKey) -> (Vec<u8>, Vec<u8>) {
    let bytes = |socket: &Socket| [&socket.address[..], &socket.end.to_ne_bytes()].concat();
    (bytes(&key.source), bytes(&key.destination))
}

impl TcpMaps for Maps {
    type Flow = std::boxed::Box<TcpFlow>;

    fn flow(&self, key: &FlowKey) -> Option<Self::Flow> {
        self.flows.get(&map_key(key)).map(|flow| (*flow).into())
    }

    fn follow(&self, flow: &Self::Flow, segment: &Segment<'_>) -> Option<Meaning> {
        let [mut client, mut backend] = self.sides;
        let meaning = match flow.side {
            0 => follow(segment, flow, &mut client, &backend),
            _ => follow(segment, flow, &mut backend, &client),
        };
        (flow.slot == 7).then_some(meaning)
    }
}

impl Maps {
    pub(super) fn in_state(state: u8) -> Self {
        Self::with(|flow| flow.state = state)
    }

    pub(super) fn with(change: impl Fn(&mut TcpFlow)) -> Self {
        Self::between([CLIENT, FRONT, NEAR, BACKEND], change)
    }

    pub(super) fn between([client, front, near, backend]: [&str; 4], change: impl Fn(&mut TcpFlow)) -> Self {
        let side = Side { next: 3_000, acknowledged: 1_000, largest_window: 64_000, ..Side::default() };
        let mut maps = Self { flows: BTreeMap::new(), sides: [side; 2] };
        for (side, from, to, source, destination) in
            [(0, client, front, near, backend), (1, backend, near, front, client)]
        {
            let key = FlowKey { source: socket(from), destination: socket(to) };
            let mut flow = TcpFlow {
                source: socket(source),
                destination: socket(destination),
                ingress: INGRESS,
                station: STATION,
                slot: 7,
                side,
                state: state::LIVE,
                promised: PROMISED,
                ..TcpFlow::default()
            };
            change(&mut flow);
            maps.flows.insert(map_key(&key), flow.stored(&key));
        }
        maps
    }
}

pub(super) const ROUTED: Arrival = ARRIVAL;

const ARRIVAL: Arrival = Arrival {
    link: Link::Ethernet,
    interface: INGRESS,
    keeps_tags: false,
    segment: 0,
    needs_hop: false,
    vlan_aside: false,
};

/// `Ok` for a packet that is forwarded.
fn arrives(maps: &Maps, frame: &[u8], arrival: Arrival) -> Result<Meaning, Option<TcpCounter>> {
    let key = &mut FlowKey::default();
    arriving(maps, &frame, arrival, key).map(|forward| forward.meaning)
}

#[test]
fn what_arrives_is_forwarded_or_has_its_reason() {
    use TcpCounter::{EntryChanged, Family, NewConnection, OtherInterface, OtherStation, ToDaemon, Ttl, VlanTagged};
    let ack = Frame::v4();
    let syn = Frame { flags: flag::SYN, ..Frame::v4() };
    let live = || Maps::in_state(state::LIVE);
    let ending = || Maps::in_state(state::ENDING);
    let rows = [
        ("a segment", live(), ack.bytes(), ARRIVAL, Ok(Meaning::Alive)),
        ("a SYN on a live connection", live(), syn.bytes(), ARRIVAL, Ok(Meaning::Nothing)),
        ("late segments of an ended one", ending(), ack.bytes(), ARRIVAL, Ok(Meaning::Alive)),
        ("a SYN where one has ended", ending(), syn.bytes(), ARRIVAL, Err(Some(NewConnection))),
        (
            "a SYN-ACK where one has ended",
            ending(),
            Frame { flags: flag::SYN | flag::ACK, ..Frame::v4() }.bytes(),
            ARRIVAL,
            Ok(Meaning::Nothing),
        ),
        ("while the daemon connects", Maps::in_state(state::CONNECTING), ack.bytes(), ARRIVAL, Err(Some(ToDaemon))),
        ("while sockets are read", Maps::in_state(state::BLOCKED), ack.bytes(), ARRIVAL, Err(Some(ToDaemon))),
        ("while a promise is kept", Maps::in_state(state::DRAINING), ack.bytes(), ARRIVAL, Err(Some(ToDaemon))),
        ("another connection", live(), Frame::new(CLIENT, "198.51.100.7:444").bytes(), ARRIVAL, Err(None)),
        ("UDP", live(), crate::testing::Frame::v4(b"payload").bytes(), ARRIVAL, Err(None)),
        ("another interface", live(), ack.bytes(), Arrival { interface: 3, ..ARRIVAL }, Err(Some(OtherInterface))),
        (
            "a tag beside the packet",
            live(),
            ack.bytes(),
            Arrival { vlan_aside: true, ..ARRIVAL },
            Err(Some(VlanTagged)),
        ),
        ("another station", Maps::with(|flow| flow.station = [2; 6]), ack.bytes(), ARRIVAL, Err(Some(OtherStation))),
        ("TTL 1", live(), Frame { ttl: 1, ..Frame::v4() }.bytes(), ARRIVAL, Err(Some(Ttl))),
        (
            "an entry of another family",
            Maps::with(|flow| flow.destination = socket("[fd00::5]:8443")),
            ack.bytes(),
            ARRIVAL,
            Err(Some(Family)),
        ),
        ("notes that are gone", Maps::with(|flow| flow.slot = 8), ack.bytes(), ARRIVAL, Err(Some(EntryChanged))),
    ];
    for (row, maps, frame, arrival, expected) in rows {
        assert_eq!(arrives(&maps, &frame, arrival), expected, "{row}");
    }
}

#[test]
fn an_entry_that_is_not_whole_is_not_believed() {
    let mut maps = Maps::in_state(state::LIVE);
    maps.flows.values_mut().for_each(|flow| flow.acknowledgement ^= 1);
    assert_eq!(arrives(&maps, &Frame::v4().bytes(), ARRIVAL), Err(Some(TcpCounter::EntryChanged)));
}

#[test]
fn a_stack_that_has_handed_over_is_silent() {
    use TcpCounter::{PortInUse, Silenced};
    /// A packet of the daemon's towards the backend.
    fn own(flags: u8, acknowledgement: u32, payload: usize) -> Frame {
        Frame { flags, acknowledgement, payload: vec![0; payload], ..Frame::new(NEAR, BACKEND) }
    }
    let silenced = Leaving::Dropped(Silenced);
    let ack = flag::ACK;
    let connecting = |bits| Maps::with(move |flow| (flow.state, flow.may) = (state::CONNECTING, bits));
    let twice = Shape { l4: 34, timestamps: None, sack: None, echo: None, doubled: true };
    // As Linux offers them: MSS, SACK-permitted and timestamps, and a window scale.
    let offered = [&[2, 4, 5, 0xb4, 4, 2, 8, 10][..], &[0, 0, 0, 1, 0, 0, 0, 0], &[1, 3, 3, 7]].concat();
    let held = || Maps::with(|flow| flow.may = may::SEND_HELD);
    let probe = Frame { options: timestamps(11, 12), ..own(ack, PROMISED, 0) };
    let noted = Leaving::Probe { slot: 7, side: 1, clock: 11, echo: 12 };
    let rows = [
        ("no entry", Maps::default(), own(ack, PROMISED, 0), Leaving::Sent),
        ("while the daemon connects", Maps::in_state(state::CONNECTING), own(flag::SYN, 0, 0), Leaving::Sent),
        ("its SYN, to be sent twice", connecting(may::DOUBLE), own(flag::SYN, 0, 0), Leaving::Shaped(twice)),
        (
            "its acknowledgement behind that",
            connecting(may::DOUBLE),
            own(ack, PROMISED, 0),
            Leaving::Shaped(Shape { doubled: false, ..twice }),
        ),
        (
            "its SYN, with options that the client has not",
            connecting(may::NO_TIMESTAMPS | may::NO_SACK | may::HIDE_CLOCK),
            Frame { options: offered.clone(), ..own(flag::SYN, 0, 0) },
            Leaving::Shaped(Shape { timestamps: Some(62), sack: Some(60), doubled: false, ..twice }),
        ),
        (
            "its acknowledgement, without an echo",
            connecting(may::DOUBLE | may::HIDE_CLOCK | may::NO_SACK),
            Frame { options: timestamps(5, 6), ..own(ack, PROMISED, 0) },
            Leaving::Shaped(Shape { echo: Some(58), doubled: false, ..twice }),
        ),
        ("BLOCKED: an acknowledgement", Maps::in_state(state::BLOCKED), own(ack, PROMISED, 0), silenced),
        ("BLOCKED: data", Maps::in_state(state::BLOCKED), own(ack, PROMISED, 9), silenced),
        ("BLOCKED: a probe", Maps::in_state(state::BLOCKED), probe.clone(), noted),
        (
            "BLOCKED: a reset, since the socket is gone",
            Maps::in_state(state::BLOCKED),
            own(flag::RST, 0, 0),
            Leaving::Sent,
        ),
        ("DRAINING: a reset", Maps::in_state(state::DRAINING), own(flag::RST | ack, PROMISED, 0), Leaving::Sent),
        ("DRAINING: an acknowledgement", Maps::in_state(state::DRAINING), own(ack, PROMISED, 0), silenced),
        ("DRAINING: data", Maps::in_state(state::DRAINING), own(ack, PROMISED, 9), Leaving::Sent),
        (
            "DRAINING: data that promises more",
            Maps::in_state(state::DRAINING),
            own(ack, PROMISED + 1, 9),
            // ~(PROMISED + 1) + PROMISED, in the network's byte order.
            Leaving::Clamped(Clamp { l4: 34, acknowledgement: PROMISED, change: u32::from(0xfffe_u16.to_be()) }),
        ),
        ("LIVE: an acknowledgement", held(), own(ack, PROMISED, 0), silenced),
        ("LIVE: the held bytes", held(), own(ack, PROMISED, 9), Leaving::Sent),
        ("LIVE: data that promises more", held(), own(ack, PROMISED + 1, 9), silenced),
        ("LIVE: data where none was held", Maps::in_state(state::LIVE), own(ack, PROMISED, 9), silenced),
        ("LIVE: a reset", held(), own(flag::RST, 0, 0), silenced),
        ("LIVE: another program's SYN", held(), own(flag::SYN, 0, 0), Leaving::Dropped(PortInUse)),
        ("ENDING: a reset", Maps::in_state(state::ENDING), own(flag::RST, 0, 0), silenced),
    ];
    for (row, maps, frame, expected) in rows {
        let key = &mut FlowKey::default();
        assert_eq!(leaving(&maps, &frame.bytes().as_slice(), ARRIVAL, key), expected, "{row}");
    }
}
