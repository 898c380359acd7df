//! The table of spliced connections: which addresses and slots they have, and by which interfaces their packets pass. It
//! makes all decisions about them, without IO.
//!
//! A connection without a way keeps the last one: its packets are lost until there is another, as those of any router,
//! and its ends send them again. To take the entry away would have the network stack reset it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use rpxy_l4_common::{
    map::{FlowKey, Socket},
    tcp::flow::{TcpFlow, may, state},
};

use super::{session::RoutePair, users::Users};
use crate::offload::{
    maps,
    splice::{LegNumbers, NotSpliced, Pair, Place, Side, Silence, SynShape, differences},
};

/// An entry of `TCP_FLOWS` with its key.
pub(crate) type Entry = (FlowKey, TcpFlow);

/// What a pair's packets arrive and leave by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// Index of the interface.
    pub(crate) interface: u32,
    /// Its Ethernet address.
    pub(crate) station: [u8; 6],
}

/// Of a connection that an earlier daemon has left, until its notes are read.
const NO_LIMIT: Silence = Silence { idle: Duration::MAX, client_ended: Duration::MAX, backend_ended: Duration::MAX };

/// A connection with a place.
#[derive(Debug)]
pub(crate) struct Connection {
    generation: u32,
    /// Of what each side sends. The state is 0 before anything is in the kernel.
    flows: [TcpFlow; 2],
    /// Longest times without a sign of life.
    pub(crate) silence: Silence,
    /// When it became live, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) since: u64,
    /// Its end has been told.
    pub(crate) told: bool,
}

impl Connection {
    /// The key of the entry for what a side sends.
    fn key(&self, side: Side) -> FlowKey {
        let back = &self.flows[side.other() as usize];
        FlowKey { source: back.destination, destination: back.source }
    }

    fn entry(&self, side: Side) -> Entry {
        let key = self.key(side);
        (key, self.flows[side as usize].stored(&key))
    }

    fn entries(&self) -> [Entry; 2] {
        Side::BOTH.map(|side| self.entry(side))
    }

    /// The addresses by which packets towards a side leave, and those of that side arrive.
    fn route_pair(&self, side: Side) -> RoutePair {
        let flow = &self.flows[side.other() as usize];
        RoutePair { source: maps::ip(&flow.source), destination: maps::ip(&flow.destination) }
    }

    /// Whether the kernel forwards it, and it has not ended.
    fn has_not_ended(&self) -> bool {
        self.flows[0].state == state::LIVE
    }

    /// Whether the kernel forwards it, or has until both ends finished.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.flows[0].state, state::LIVE | state::ENDING)
    }

    /// This machine's end and the peer's of a leg.
    pub(crate) fn ends(&self, side: Side) -> [Socket; 2] {
        let flow = &self.flows[side.other() as usize];
        [flow.source, flow.destination]
    }

    /// The differences of what a side sends.
    pub(crate) fn flow(&self, side: Side) -> &TcpFlow {
        &self.flows[side as usize]
    }

    fn set_link(&mut self, side: Side, link: Link) {
        let (of, towards) = (side as usize, side.other() as usize);
        self.flows[of].ingress = link.interface;
        self.flows[of].station = link.station;
        self.flows[towards].interface = link.interface;
    }
}

#[derive(Debug)]
struct Used {
    link: Link,
    users: Users,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Spliced {
    /// Slots of `TCP_NOTES`.
    slots: u32,
    connections: HashMap<u32, Connection>,
    keys: HashMap<FlowKey, u32>,
    pairs: HashMap<RoutePair, Used>,
    /// Interfaces with both programs.
    attached: HashSet<u32>,
    generation: u32,
    /// First slot that was never taken.
    unused: u32,
    /// Slots that were given back, to be taken again as late as possible: a program may still note in one.
    returned: VecDeque<u32>,
    /// Connections that have ended, the oldest first; some of them are gone.
    ended: VecDeque<Place>,
    /// Connections that are forwarded and have not ended.
    live: usize,
}

impl Spliced {
    /// Creates a table for as many connections.
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            slots,
            connections: HashMap::new(),
            keys: HashMap::new(),
            pairs: HashMap::new(),
            attached: HashSet::new(),
            generation: 0,
            unused: 0,
            returned: VecDeque::new(),
            ended: VecDeque::new(),
            live: 0,
        }
    }

    /// The number of connections that are live and have not ended.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The number of places.
    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// Records whether both programs are attached to an interface.
    pub(crate) fn set_attached(&mut self, interface: u32, attached: bool) {
        if attached {
            self.attached.insert(interface);
        } else {
            self.attached.remove(&interface);
        }
    }

    /// Forgets where the programs are attached.
    pub(crate) fn forget_attached(&mut self) {
        self.attached.clear();
    }

    /// Whether both programs are attached to an interface.
    pub(crate) fn is_attached(&self, interface: u32) -> bool {
        self.attached.contains(&interface)
    }

    /// Returns what the packets of a pair in use pass by.
    pub(crate) fn known_link(&self, pair: &RoutePair) -> Option<Link> {
        Some(self.pairs.get(pair)?.link)
    }

    /// Returns a connection by its place.
    pub(crate) fn get(&self, place: Place) -> Option<&Connection> {
        self.connections.get(&place.slot).filter(|held| held.generation == place.generation)
    }

    /// Likewise, to be changed.
    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut Connection> {
        self.connections.get_mut(&place.slot).filter(|held| held.generation == place.generation)
    }

    /// Returns the place that a slot is now.
    pub(crate) fn place(&self, slot: u32) -> Option<Place> {
        Some(Place { slot, generation: self.connections.get(&slot)?.generation })
    }

    /// All places that are live.
    pub(crate) fn live_places(&self) -> Vec<Place> {
        let live = self.connections.iter().filter(|(_, held)| held.is_live());
        live.map(|(slot, held)| Place { slot: *slot, generation: held.generation }).collect()
    }

    /// Finds a place for a connection, whose packets pass by `links`: those of the client, then those of the backend.
    ///
    /// # Errors
    ///
    /// There is none, or its addresses are another one's. One that has ended can [give way](Self::in_the_way).
    pub(crate) fn reserve(&mut self, pair: &Pair, links: [Link; 2]) -> Result<Place, NotSpliced> {
        let [client, local, upstream, backend] =
            [pair.client, pair.local, pair.upstream, pair.backend].map(maps::socket);
        let keys = [FlowKey { source: client, destination: local }, FlowKey { source: backend, destination: upstream }];
        if keys.iter().any(|key| self.keys.contains_key(key)) {
            // The rest of an earlier connection is there still.
            return Err(NotSpliced::Full);
        }
        let slot = self.take_slot().ok_or(NotSpliced::Full)?;
        self.generation = self.generation.wrapping_add(1);
        let flow = |side: Side, source, destination| TcpFlow {
            source,
            destination,
            slot,
            side: side as u8,
            ..TcpFlow::default()
        };
        let [mut of_client, of_backend] = [flow(Side::Client, upstream, backend), flow(Side::Backend, local, client)];
        of_client.mark = pair.mark.to_ne_bytes();
        let mut connection = Connection {
            generation: self.generation,
            flows: [of_client, of_backend],
            silence: pair.silence,
            since: 0,
            told: false,
        };
        for (side, link) in Side::BOTH.into_iter().zip(links) {
            connection.set_link(side, link);
            let used = self.pairs.entry(connection.route_pair(side)).or_insert(Used { link, users: Users::default() });
            used.users.add(slot);
        }
        for key in keys {
            self.keys.insert(key, slot);
        }
        self.connections.insert(slot, connection);
        Ok(Place { slot, generation: self.generation })
    }

    /// Returns the connection that has ended, and whose client uses its port again.
    pub(crate) fn in_the_way(&self, pair: &Pair) -> Option<Place> {
        let key = FlowKey { source: maps::socket(pair.client), destination: maps::socket(pair.local) };
        let place = self.place(*self.keys.get(&key)?)?;
        self.get(place).filter(|held| held.flows[0].state == state::ENDING).map(|_| place)
    }

    /// Returns whether a connection has these addresses towards its backend.
    pub(crate) fn uses(&self, upstream: SocketAddr, backend: SocketAddr) -> bool {
        let key = FlowKey { source: maps::socket(backend), destination: maps::socket(upstream) };
        self.keys.contains_key(&key)
    }

    fn take_slot(&mut self) -> Option<u32> {
        if self.unused < self.slots {
            self.unused += 1;
            return Some(self.unused - 1);
        }
        self.returned.pop_front()
    }

    /// Takes over what an earlier daemon left: the connections that are forwarded, both directions of which are there.
    /// Returns their places, and the keys of all other entries.
    pub(crate) fn inherit(&mut self, entries: &[Entry]) -> (Vec<Place>, Vec<FlowKey>) {
        let mut halves: HashMap<u32, [Option<TcpFlow>; 2]> = HashMap::new();
        for (_, flow) in entries.iter().filter(|(_, flow)| flow.slot < self.slots) {
            let half = halves.entry(flow.slot).or_default().get_mut(usize::from(flow.side));
            if let Some(half) = half {
                *half = Some(*flow);
            }
        }
        let mut taken = HashSet::new();
        let mut places = Vec::new();
        for (slot, halves) in halves {
            let [Some(of_client), Some(of_backend)] = halves else { continue };
            self.generation = self.generation.wrapping_add(1);
            let connection = Connection {
                generation: self.generation,
                flows: [of_client, of_backend],
                silence: NO_LIMIT,
                since: 0,
                told: of_client.state == state::ENDING,
            };
            if !connection.is_live() || of_client.state != of_backend.state {
                continue;
            }
            for side in Side::BOTH {
                let flow = connection.flow(side);
                let link = Link { interface: flow.ingress, station: flow.station };
                let used =
                    self.pairs.entry(connection.route_pair(side)).or_insert(Used { link, users: Users::default() });
                used.users.add(slot);
                let key = connection.key(side);
                self.keys.insert(key, slot);
                taken.insert(key);
            }
            let place = Place { slot, generation: self.generation };
            if connection.has_not_ended() {
                self.live += 1;
            } else {
                self.ended.push_back(place);
            }
            self.connections.insert(slot, connection);
            places.push(place);
        }
        self.unused = self.connections.keys().max().map_or(0, |last| last + 1);
        self.returned = (0..self.unused).filter(|slot| !self.connections.contains_key(slot)).collect();
        let others = entries.iter().map(|(key, _)| *key).filter(|key| !taken.contains(key)).collect();
        (places, others)
    }

    /// Gives a place up. Returns the keys of its entries.
    pub(crate) fn remove(&mut self, place: Place) -> Option<[FlowKey; 2]> {
        self.get(place)?;
        let connection = self.connections.remove(&place.slot)?;
        if connection.has_not_ended() {
            self.live -= 1;
        }
        let keys = Side::BOTH.map(|side| connection.key(side));
        for key in &keys {
            self.keys.remove(key);
        }
        for side in Side::BOTH {
            let pair = connection.route_pair(side);
            let Some(used) = self.pairs.get_mut(&pair) else { continue };
            used.users.remove(place.slot);
            if used.users.is_empty() {
                self.pairs.remove(&pair);
            }
        }
        self.returned.push_back(place.slot);
        Some(keys)
    }

    /// The backend's leg is about to connect. Returns the entry.
    pub(crate) fn connect(&mut self, place: Place, syn: SynShape) -> Option<Entry> {
        let connection = self.get_mut(place)?;
        let flow = &mut connection.flows[Side::Backend as usize];
        flow.state = state::CONNECTING;
        let bit = |on, bit| if on { bit } else { 0 };
        flow.may = bit(syn.doubled, may::DOUBLE | may::HIDE_CLOCK)
            | bit(!syn.timestamps, may::NO_TIMESTAMPS)
            | bit(!syn.sack, may::NO_SACK);
        Some(connection.entry(Side::Backend))
    }

    /// Both legs fall silent. Returns the entries; `None` for one that is live or gone.
    pub(crate) fn silence(&mut self, place: Place) -> Option<[Entry; 2]> {
        let connection = self.get_mut(place).filter(|connection| !connection.is_live())?;
        for flow in &mut connection.flows {
            flow.state = state::BLOCKED;
            flow.may = 0;
        }
        Some(connection.entries())
    }

    /// Forwards a connection from `now` on. Returns the entries.
    pub(crate) fn go_live(&mut self, place: Place, legs: &[LegNumbers; 2], now: u64) -> Option<[Entry; 2]> {
        let connection = self.get_mut(place).filter(|connection| !connection.is_live())?;
        for (flow, new) in connection.flows.iter_mut().zip(differences(legs)) {
            *flow = TcpFlow {
                state: state::LIVE,
                sequence: new.sequence,
                acknowledgement: new.acknowledgement,
                timestamp: new.timestamp,
                echo: new.echo,
                window_shift: new.window_shift,
                promised: new.promised,
                may: new.may,
                ..*flow
            };
        }
        connection.since = now;
        let entries = connection.entries();
        self.live += 1;
        Some(entries)
    }

    /// It is not forwarded after all.
    pub(crate) fn undo_live(&mut self, place: Place) {
        let Some(connection) = self.get_mut(place).filter(|connection| connection.is_live()) else { return };
        for flow in &mut connection.flows {
            flow.state = state::BLOCKED;
        }
        self.live -= 1;
    }

    /// Nothing more of the daemon's passes. Returns the entry that let it.
    pub(crate) fn held_sent(&mut self, place: Place) -> Option<Entry> {
        let connection = self.get_mut(place).filter(|connection| connection.is_live())?;
        let side = Side::BOTH.into_iter().find(|side| connection.flow(*side).may & may::SEND_HELD != 0)?;
        connection.flows[side as usize].may &= !may::SEND_HELD;
        Some(connection.entry(side))
    }

    /// Both ends have finished. Returns the entries.
    pub(crate) fn end(&mut self, place: Place) -> Option<[Entry; 2]> {
        let connection = self.get_mut(place).filter(|connection| connection.is_live())?;
        let had_ended = !connection.has_not_ended();
        for flow in &mut connection.flows {
            flow.state = state::ENDING;
            flow.may = 0;
        }
        let entries = connection.entries();
        if !had_ended {
            self.live -= 1;
            self.note_ended(place);
        }
        Some(entries)
    }

    fn note_ended(&mut self, place: Place) {
        // They go in about the order in which they have ended.
        while self
            .ended
            .pop_front_if(|oldest| {
                self.connections.get(&oldest.slot).is_none_or(|held| held.generation != oldest.generation)
            })
            .is_some()
        {}
        self.ended.push_back(place);
    }

    /// Returns the connection that ended first, where there is no place left: what its ends may still send again is worth less than
    /// a new one.
    pub(crate) fn gives_way(&mut self) -> Option<Place> {
        if self.unused < self.slots || !self.returned.is_empty() {
            return None;
        }
        while let Some(oldest) = self.ended.pop_front() {
            if self.get(oldest).is_some() {
                return Some(oldest);
            }
        }
        None
    }

    /// Returns the pairs in use.
    pub(crate) fn pairs(&self) -> Vec<RoutePair> {
        self.pairs.keys().copied().collect()
    }

    /// The packets of a pair pass by `link` from now on. Returns the entries that change.
    pub(crate) fn reroute(&mut self, pair: RoutePair, link: Link) -> Vec<Entry> {
        let Some(used) = self.pairs.get_mut(&pair).filter(|used| used.link != link) else { return Vec::new() };
        used.link = link;
        let mut changed = Vec::new();
        for slot in used.users.all() {
            let Some(connection) = self.connections.get_mut(&slot) else { continue };
            for side in Side::BOTH {
                if connection.route_pair(side) == pair {
                    connection.set_link(side, link);
                }
            }
            let in_kernel = connection.entries().into_iter().filter(|(_, flow)| flow.state != 0);
            changed.extend(in_kernel);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Link = Link { interface: 2, station: [2; 6] };
    const FAR: Link = Link { interface: 3, station: [3; 6] };

    fn pair(client: &str) -> Pair {
        Pair {
            client: client.parse().unwrap(),
            local: "192.0.2.1:443".parse().unwrap(),
            upstream: format!("10.0.0.1:{}", client.rsplit(':').next().unwrap()).parse().unwrap(),
            backend: "10.0.0.2:80".parse().unwrap(),
            mark: 7,
            silence: Silence { idle: Duration::from_secs(60), ..NO_LIMIT },
        }
    }

    #[test]
    fn a_connection_goes_through_its_states() {
        let mut table = Spliced::new(2);
        let place = table.reserve(&pair("192.0.2.9:5000"), [NEAR, FAR]).unwrap();
        let syn = SynShape { timestamps: false, sack: true, doubled: true };
        let (key, flow) = table.connect(place, syn).unwrap();
        assert_eq!(maps::socket_address(&key.source).unwrap().to_string(), "10.0.0.2:80");
        assert_eq!((flow.state, flow.may), (state::CONNECTING, may::DOUBLE | may::HIDE_CLOCK | may::NO_TIMESTAMPS));
        let blocked = table.silence(place).unwrap();
        assert!(blocked.iter().all(|(key, flow)| flow.state == state::BLOCKED && flow.may == 0 && flow.is_whole(key)));
        assert_eq!(table.live(), 0);
        let legs = [LegNumbers { held: 9, received: 100, ..LegNumbers::default() }, LegNumbers::default()];
        let [(_, of_client), (_, of_backend)] = table.go_live(place, &legs, 1).unwrap();
        assert_eq!((of_client.ingress, of_client.station, of_client.interface), (2, [2; 6], 3));
        assert_eq!((of_backend.ingress, of_backend.station, of_backend.interface), (3, [3; 6], 2));
        assert_eq!((of_client.may, of_backend.may), (0, may::SEND_HELD), "towards the backend");
        assert_eq!((of_client.mark, of_client.side, of_backend.side), (7_u16.to_ne_bytes(), 0, 1));
        assert_eq!(table.live(), 1);
        assert_eq!(table.silence(place), None, "too late");
        assert_eq!(table.held_sent(place).map(|(_, flow)| flow.may), Some(0));
        assert_eq!(table.held_sent(place), None);
        assert_eq!(table.end(place).map(|entries| entries.map(|(_, flow)| flow.state)), Some([state::ENDING; 2]));
        assert!(table.remove(place).is_some());
        assert_eq!((table.live(), table.remove(place)), (0, None));
    }

    #[test]
    fn what_an_earlier_daemon_left_goes_on() {
        let mut earlier = Spliced::new(9);
        let mut entries = Vec::new();
        let places = ["192.0.2.9:1", "192.0.2.9:2", "192.0.2.8:3", "192.0.2.8:4"]
            .map(|client| earlier.reserve(&pair(client), [NEAR, FAR]).unwrap());
        let [live, ended, blocked, half] = places;
        for place in [live, ended, half] {
            entries.extend(earlier.go_live(place, &[LegNumbers::default(); 2], 1).unwrap());
        }
        entries.retain(|(_, flow)| flow.slot != ended.slot);
        entries.extend(earlier.end(ended).unwrap());
        entries.extend(earlier.silence(blocked).unwrap());
        entries.retain(|(_, flow)| flow.slot != half.slot || flow.side == 0);
        let mut table = Spliced::new(9);
        let (places, others) = table.inherit(&entries);
        let slots: HashSet<u32> = places.iter().map(|place| place.slot).collect();
        assert_eq!(slots, HashSet::from([live.slot, ended.slot]));
        assert_eq!(others.len(), 3, "both of the hand-over that did not come to its end, and the half");
        let told = |slot: u32| table.get(table.place(slot).unwrap()).unwrap().told;
        assert_eq!((told(live.slot), told(ended.slot), table.live()), (false, true, 1));
        assert_eq!(table.reserve(&pair("192.0.2.9:1"), [NEAR, FAR]), Err(NotSpliced::Full), "it has its addresses");
        let new = table.reserve(&pair("192.0.2.7:9"), [NEAR, FAR]).unwrap();
        assert!(!slots.contains(&new.slot));
        for place in places {
            table.remove(place).unwrap();
        }
        table.remove(new).unwrap();
        assert!(table.pairs().is_empty());
    }

    #[test]
    fn no_two_connections_have_the_same_addresses() {
        let mut table = Spliced::new(9);
        let place = table.reserve(&pair("192.0.2.9:5000"), [NEAR, FAR]).unwrap();
        assert_eq!(table.reserve(&pair("192.0.2.9:5000"), [NEAR, FAR]), Err(NotSpliced::Full));
        let other_client = Pair { client: "192.0.2.8:1".parse().unwrap(), ..pair("192.0.2.9:5000") };
        assert_eq!(table.reserve(&other_client, [NEAR, FAR]), Err(NotSpliced::Full), "the port towards the backend");
        let Pair { upstream, backend, .. } = other_client;
        assert!(table.uses(upstream, backend) && !table.uses(backend, upstream));
        table.remove(place).unwrap();
        assert!(!table.uses(upstream, backend));
        table.reserve(&other_client, [NEAR, FAR]).unwrap();
    }

    #[test]
    fn slots_are_taken_again_as_late_as_possible() {
        let mut table = Spliced::new(2);
        let first = table.reserve(&pair("192.0.2.9:1"), [NEAR, FAR]).unwrap();
        table.remove(first).unwrap();
        let second = table.reserve(&pair("192.0.2.9:2"), [NEAR, FAR]).unwrap();
        assert_ne!(first.slot, second.slot);
        let third = table.reserve(&pair("192.0.2.9:3"), [NEAR, FAR]).unwrap();
        assert_eq!(first.slot, third.slot);
        assert!(table.get(first).is_none() && table.get(third).is_some(), "told apart");
        assert_eq!(table.reserve(&pair("192.0.2.9:4"), [NEAR, FAR]), Err(NotSpliced::Full));
    }

    #[test]
    fn what_ended_first_gives_way_where_there_is_no_place() {
        let mut table = Spliced::new(3);
        let places = ["192.0.2.9:1", "192.0.2.9:2", "192.0.2.9:3"].map(|client| {
            let place = table.reserve(&pair(client), [NEAR, FAR]).unwrap();
            table.go_live(place, &[LegNumbers::default(); 2], 1).unwrap();
            place
        });
        assert_eq!((table.gives_way(), table.live()), (None, 3), "none has ended");
        let [first, second, third] = places;
        for place in [second, third, first] {
            table.end(place).unwrap();
            table.end(place).unwrap();
        }
        assert_eq!(table.live(), 0);
        table.remove(second).unwrap();
        assert_eq!(table.gives_way(), None, "there is a place");
        table.reserve(&pair("192.0.2.9:4"), [NEAR, FAR]).unwrap();
        assert_eq!(table.gives_way(), Some(third), "the first of those that are there");
        table.remove(third).unwrap();
        table.reserve(&pair("192.0.2.9:5"), [NEAR, FAR]).unwrap();
        assert_eq!((table.gives_way(), table.gives_way()), (Some(first), None), "once");
    }

    #[test]
    fn another_way_is_written_to_all_that_use_it() {
        let mut table = Spliced::new(9);
        let places = ["192.0.2.9:1", "192.0.2.9:2", "192.0.2.8:3"]
            .map(|client| table.reserve(&pair(client), [NEAR, FAR]).unwrap());
        for place in &places[..2] {
            table.go_live(*place, &[LegNumbers::default(); 2], 1).unwrap();
        }
        let to_client = RoutePair { source: "192.0.2.1".parse().unwrap(), destination: "192.0.2.9".parse().unwrap() };
        assert_eq!(table.reroute(to_client, NEAR), [], "the same");
        let new = Link { interface: 9, station: [9; 6] };
        let changed = table.reroute(to_client, new);
        assert_eq!(changed.len(), 4);
        let ways: HashSet<_> = changed.iter().map(|(_, flow)| (flow.side, flow.ingress, flow.interface)).collect();
        assert_eq!(ways, HashSet::from([(0, 9, 3), (1, 3, 9)]));
        assert_eq!(table.known_link(&to_client), Some(new));
        for place in &places {
            table.remove(*place).unwrap();
        }
        assert!(table.pairs().is_empty());
    }
}
