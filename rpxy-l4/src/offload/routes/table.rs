//! The flow table: which flows are steered, and by which next hops. It makes all decisions, without IO.
//!
//! Events of links, neighbours and routes come in, updates of the maps come out. It errs towards the daemon: a flow
//! whose route is not known leaves the kernel until it is.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};

use hashbrown::HashTable;
use rpxy_l4_common::map::{FlowKey, Hop, HopKey, hop_flag};
use rpxy_l4_proto::quic::ConnectionId;
use slab::Slab;

use super::{
    hop_keys::HopKeys,
    netlink::{Event, Link, Route},
    scope::is_link_local,
    session::{Direction, RoutePair, Session, Way},
    users::Users,
};
use crate::offload::{
    api::{Installed, NotSteered},
    maps::Update,
};

/// A session in its slot.
#[derive(Debug)]
struct Held {
    /// Tells it from earlier ones in the same slot.
    generation: u32,
    session: Session,
}

/// Routes of a session: of packets to the backend, and of those to the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routes {
    pub(crate) there: Route,
    pub(crate) back: Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct HopId {
    interface: u32,
    next: IpAddr,
    mtu: Option<u32>,
}

#[derive(Debug)]
struct HopUse {
    key: HopKey,
    /// Number of routes that use it.
    routes: usize,
    /// Value in the map.
    set: Option<Hop>,
}

#[derive(Debug)]
struct RouteUse {
    /// `None` while there is no route, or none that can be used.
    route: Option<Route>,
    /// Those with packets that leave by it, or arrive by its interface.
    users: Users,
}

#[derive(Debug)]
pub(crate) struct Table {
    /// The programs write Ethernet headers themselves (XDP).
    needs_mac: bool,
    max_sessions: usize,
    links: HashMap<u32, Link>,
    addresses: HashSet<(u32, IpAddr)>,
    /// Bounded by the kernel (`gc_thresh3`).
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
    attached: HashSet<u32>,
    sessions: Slab<Held>,
    generation: u32,
    /// Slots, by the keys of the forward direction.
    slots: HashTable<u32>,
    hasher: RandomState,
    routes: HashMap<RoutePair, RouteUse>,
    hops: HashMap<HopId, HopUse>,
    hop_keys: HopKeys,
}

impl Table {
    /// Creates a table for `max_sessions` sessions and an array of `hops` next hops.
    pub(crate) fn new(needs_mac: bool, max_sessions: u32, hops: u32) -> Self {
        Self {
            needs_mac,
            max_sessions: usize::try_from(max_sessions).unwrap_or(usize::MAX),
            links: HashMap::new(),
            addresses: HashSet::new(),
            neighbours: HashMap::new(),
            attached: HashSet::new(),
            sessions: Slab::new(),
            generation: 0,
            slots: HashTable::new(),
            hasher: RandomState::new(),
            routes: HashMap::new(),
            hops: HashMap::new(),
            hop_keys: HopKeys::new(hops),
        }
    }

    /// The programs write Ethernet headers themselves, or do not. To be set before there are sessions.
    pub(crate) fn set_needs_mac(&mut self, needs_mac: bool) {
        self.needs_mac = needs_mac;
    }

    /// Returns the number of installed sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// Returns true if there is no slot for a session. An installed one has its own.
    pub(crate) fn is_full(&self, session: &Session) -> bool {
        self.sessions() >= self.max_sessions && self.find(&session.key(Direction::Forward)).is_none()
    }

    /// Returns an installed session.
    pub(crate) fn get(&self, installed: Installed) -> Option<&Session> {
        let held = self.sessions.get(usize::try_from(installed.slot).ok()?)?;
        (held.generation == installed.generation).then_some(&held.session)
    }

    /// Returns the slot of the session with a forward entry of this key.
    fn find(&self, key: &FlowKey) -> Option<u32> {
        self.slots.find(self.hasher.hash_one(key), |slot| self.key_of(*slot) == Some(*key)).copied()
    }

    /// Returns the key of the forward entry of the session in a slot.
    fn key_of(&self, slot: u32) -> Option<FlowKey> {
        Some(self.sessions.get(usize::try_from(slot).ok()?)?.session.key(Direction::Forward))
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Returns true if a link has an address that is not link-local.
    pub(crate) fn has_address(&self, interface: u32) -> bool {
        self.addresses.iter().any(|(of, address)| *of == interface && !is_link_local(*address))
    }

    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(_, known)| *known == address)
    }

    /// Returns the addresses of this machine.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(_, address)| *address)
    }

    /// Records whether a program is attached to a link.
    pub(crate) fn set_attached(&mut self, interface: u32, attached: bool) {
        if attached {
            self.attached.insert(interface);
        } else {
            self.attached.remove(&interface);
        }
    }

    /// Returns the route of a pair in use.
    pub(crate) fn known_route(&self, pair: &RoutePair) -> Option<Route> {
        self.routes.get(pair)?.route
    }

    /// Checks that packets may be steered by a route.
    pub(crate) fn check(&self, route: &Route) -> Result<(), NotSteered> {
        let link = self.links.get(&route.interface).ok_or(NotSteered::Interface)?;
        if route.local || link.loopback {
            return Err(NotSteered::Loopback);
        }
        if !link.ethernet || !self.attached.contains(&route.interface) {
            return Err(NotSteered::Interface);
        }
        Ok(())
    }

    /// Installs a session: both directions, the reverse one first. It takes the place of one with the same client's end.
    pub(crate) fn install(&mut self, session: Session, routes: Routes) -> Result<(Installed, Vec<Update>), NotSteered> {
        let Routes { there, back } = routes;
        for route in [back, there] {
            self.check(&route)?;
        }
        let new_hops = [back, there].iter().filter(|route| !self.hops.contains_key(&hop_id(route))).count();
        if new_hops > self.hop_keys.free() {
            return Err(NotSteered::Full);
        }
        let key = session.key(Direction::Forward);
        let mut updates = self.find(&key).map(|slot| self.remove(slot)).unwrap_or_default();
        if self.sessions() >= self.max_sessions {
            return Err(NotSteered::Full);
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        // The number of sessions is 32 bits wide.
        let slot = u32::try_from(self.sessions.insert(Held { generation, session })).unwrap_or(u32::MAX);
        let Self { slots, sessions, hasher, .. } = self;
        let hash = |slot: &u32| {
            let held = usize::try_from(*slot).ok().and_then(|slot| sessions.get(slot));
            held.map_or(0, |held| hasher.hash_one(held.session.key(Direction::Forward)))
        };
        slots.insert_unique(hasher.hash_one(key), slot, hash);
        for (direction, route) in [(Direction::Reverse, back), (Direction::Forward, there)] {
            let pair = session.pair(direction);
            self.routes.entry(pair).or_insert_with(|| RouteUse { route: None, users: Users::default() });
            self.reroute(pair, Some(route), &mut updates);
        }
        for direction in [Direction::Reverse, Direction::Forward] {
            if let Some(used) = self.routes.get_mut(&session.pair(direction)) {
                used.users.add(slot);
            }
            self.write(slot, direction, &mut updates);
        }
        Ok((Installed { slot, generation }, updates))
    }

    /// Removes a session: both directions, the forward one first. Nothing for one that is not there any more.
    pub(crate) fn revoke(&mut self, installed: Installed) -> Vec<Update> {
        if self.get(installed).is_some() { self.remove(installed.slot) } else { Vec::new() }
    }

    fn remove(&mut self, slot: u32) -> Vec<Update> {
        let mut updates = Vec::new();
        let held = usize::try_from(slot).ok().and_then(|slot| self.sessions.try_remove(slot));
        let Some(Held { session, .. }) = held else { return updates };
        let hash = self.hasher.hash_one(session.key(Direction::Forward));
        if let Ok(entry) = self.slots.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        for direction in [Direction::Forward, Direction::Reverse] {
            updates.push(Update::NoFlow(session.key(direction)));
        }
        for direction in [Direction::Reverse, Direction::Forward] {
            let pair = session.pair(direction);
            let Some(used) = self.routes.get_mut(&pair) else { continue };
            used.users.remove(slot);
            if used.users.is_empty() {
                let route = used.route;
                self.routes.remove(&pair);
                self.release_hop(route, &mut updates);
            }
        }
        updates
    }

    /// Has the client's datagrams of a session carry another connection ID or index. Returns `None` if there is no such
    /// session.
    pub(crate) fn set_cid(&mut self, installed: Installed, cid: &ConnectionId) -> Option<Vec<Update>> {
        self.get(installed)?;
        self.sessions.get_mut(usize::try_from(installed.slot).ok()?)?.session.set_cid(cid);
        let mut updates = Vec::new();
        self.write(installed.slot, Direction::Forward, &mut updates);
        Some(updates)
    }

    /// Returns the pairs in use, each with the source to look its route up with.
    pub(crate) fn pairs(&self) -> Vec<(RoutePair, Option<IpAddr>)> {
        self.routes.keys().map(|pair| (*pair, self.source(pair))).collect()
    }

    /// Returns the source to look a route up with: `None` if no interface has it.
    pub(crate) fn source(&self, pair: &RoutePair) -> Option<IpAddr> {
        self.is_local(pair.source).then_some(pair.source)
    }

    /// Returns the neighbours in use, each with its interface.
    pub(crate) fn neighbours_in_use(&self) -> Vec<(u32, IpAddr)> {
        let pairs: HashSet<_> = self.hops.keys().map(|hop| (hop.interface, hop.next)).collect();
        pairs.into_iter().collect()
    }

    /// Sets the route of a pair; `None` if there is none. A route that cannot be used, or whose next hop finds no free
    /// slot, counts as none until the next call, which every pair gets in turn.
    pub(crate) fn reroute(&mut self, pair: RoutePair, route: Option<Route>, updates: &mut Vec<Update>) {
        let route = route.filter(|route| self.check(route).is_ok() && self.has_slot(route));
        let Some(used) = self.routes.get_mut(&pair) else { return };
        let before = std::mem::replace(&mut used.route, route);
        if before == route {
            return;
        }
        // Another neighbour or MTU does not concern those that arrive.
        let elsewhere = before.map(|route| route.interface) != route.map(|route| route.interface);
        let users = used.users.all();
        if let Some(route) = route {
            self.acquire_hop(route, updates);
        }
        for slot in users {
            for direction in [Direction::Forward, Direction::Reverse] {
                if elsewhere || self.pair_of(slot, direction) == Some(pair) {
                    self.write(slot, direction, updates);
                }
            }
        }
        self.release_hop(before, updates);
    }

    /// Takes in an event. The second value is true if routes have to be looked up again.
    pub(crate) fn learn(&mut self, event: Event) -> (Vec<Update>, bool) {
        let mut updates = Vec::new();
        let reroute = match event {
            Event::Link(link) => {
                let (index, mac) = (link.index, link.mac);
                let before = self.links.insert(index, link);
                let changed = before.as_ref() != self.links.get(&index);
                if changed {
                    self.refresh(index, None, &mut updates);
                }
                if before.is_none_or(|before| before.mac != mac) {
                    self.rewrite(index, &mut updates);
                }
                changed
            }
            Event::NoLink(index) => {
                self.links.remove(&index);
                self.attached.remove(&index);
                self.addresses.retain(|(of, _)| *of != index);
                self.neighbours.retain(|(of, _), _| *of != index);
                self.refresh(index, None, &mut updates);
                true
            }
            Event::Address { interface, address } => self.addresses.insert((interface, address)),
            Event::NoAddress { interface, address } => self.addresses.remove(&(interface, address)),
            Event::Neighbour { interface, address, mac } => {
                let neighbour = (interface, address);
                let before = match mac {
                    Some(mac) => self.neighbours.insert(neighbour, mac),
                    None => self.neighbours.remove(&neighbour),
                };
                if before != mac {
                    self.refresh(interface, Some(address), &mut updates);
                }
                false
            }
            Event::Route => true,
        };
        (updates, reroute)
    }

    /// Forgets the state of the network, which has to be read again. Entries of the maps stay until then.
    pub(crate) fn forget_network(&mut self) {
        self.links.clear();
        self.attached.clear();
        self.addresses.clear();
        self.neighbours.clear();
    }

    /// Updates the entries of all hops after links and neighbours.
    pub(crate) fn refresh_all(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        let interfaces: HashSet<u32> = self.hops.keys().map(|hop| hop.interface).collect();
        for interface in interfaces {
            self.refresh(interface, None, &mut updates);
        }
        updates
    }

    fn refresh(&mut self, interface: u32, next: Option<IpAddr>, updates: &mut Vec<Update>) {
        let affected = |hop: &&HopId| hop.interface == interface && next.is_none_or(|next| next == hop.next);
        let hops: Vec<HopId> = self.hops.keys().filter(affected).copied().collect();
        for hop in hops {
            self.set_hop(hop, updates);
        }
    }

    /// Writes all flows again whose packets arrive by an interface, which has another address.
    fn rewrite(&mut self, interface: u32, updates: &mut Vec<Update>) {
        let there = self.routes.values().filter(|used| used.route.is_some_and(|route| route.interface == interface));
        let users: HashSet<u32> = there.flat_map(|used| used.users.all()).collect();
        for slot in users {
            self.write(slot, Direction::Forward, updates);
            self.write(slot, Direction::Reverse, updates);
        }
    }

    fn set_hop(&mut self, id: HopId, updates: &mut Vec<Update>) {
        let value = self.hop(id);
        let Some(used) = self.hops.get_mut(&id) else { return };
        if used.set == value {
            return;
        }
        used.set = value;
        updates.push(match value {
            Some(hop) => Update::Hop(used.key, hop),
            None => Update::NoHop(used.key),
        });
    }

    fn hop(&self, id: HopId) -> Option<Hop> {
        let link = self.links.get(&id.interface).filter(|link| link.up)?;
        let mac = self.neighbours.get(&(id.interface, id.next)).copied();
        let destination = if self.needs_mac { mac? } else { mac.unwrap_or_default() };
        let mtu = id.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        // What a veth sends back (XDP_TX) its peer does not look at before something else arrives, unless it has a program
        // as well (veth_xdp_flush() in the kernel). What is redirected to it is seen at once.
        let flags = if link.kind.as_deref() == Some("veth") { hop_flag::REDIRECT } else { 0 };
        Some(Hop { interface: id.interface, mtu, flags, destination, source: link.mac, seal: 0 })
    }

    /// Returns true if the next hop of a route has a slot or can get one.
    fn has_slot(&self, route: &Route) -> bool {
        self.hop_keys.free() > 0 || self.hops.contains_key(&hop_id(route))
    }

    /// Gives the next hop of a route a slot; see [`Self::has_slot`].
    fn acquire_hop(&mut self, route: Route, updates: &mut Vec<Update>) {
        let id = hop_id(&route);
        if let Some(used) = self.hops.get_mut(&id) {
            used.routes += 1;
            return;
        }
        let Some(key) = self.hop_keys.take() else { return };
        self.hops.insert(id, HopUse { key, routes: 1, set: None });
        self.set_hop(id, updates);
    }

    fn release_hop(&mut self, route: Option<Route>, updates: &mut Vec<Update>) {
        let Some(id) = route.as_ref().map(hop_id) else { return };
        let Some(used) = self.hops.get_mut(&id) else { return };
        used.routes -= 1;
        if used.routes == 0 {
            if used.set.is_some() {
                updates.push(Update::NoHop(used.key));
            }
            self.hop_keys.give_back(used.key);
            self.hops.remove(&id);
        }
    }

    fn pair_of(&self, slot: u32, direction: Direction) -> Option<RoutePair> {
        Some(self.sessions.get(usize::try_from(slot).ok()?)?.session.pair(direction))
    }

    /// Writes the entry of a direction, or parks it while there is no way for its packets.
    fn write(&self, slot: u32, direction: Direction, updates: &mut Vec<Update>) {
        let held = usize::try_from(slot).ok().and_then(|slot| self.sessions.get(slot));
        let Some(Held { session, .. }) = held else { return };
        let key = session.key(direction);
        updates.push(match self.way(session, direction) {
            Some(way) => Update::Flow(key, session.entry(direction, way)),
            None => Update::Park(key),
        });
    }

    fn way(&self, session: &Session, direction: Direction) -> Option<Way> {
        let route = |direction| self.known_route(&session.pair(direction));
        let (to, from) = (route(direction)?, route(direction.opposite())?);
        let station = self.links.get(&from.interface)?.mac;
        let hop = self.hops.get(&hop_id(&to))?.key;
        Some(Way { ingress: from.interface, station, interface: to.interface, hop })
    }
}

fn hop_id(route: &Route) -> HopId {
    HopId { interface: route.interface, next: route.next, mtu: route.mtu }
}

#[cfg(test)]
mod tests;
