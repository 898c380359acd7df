//! Which flows are steered and which way they go: all decisions, without IO.
//!
//! Events of links, neighbours and routes come in, changes of the maps come out. It errs towards the daemon: a flow
//! whose way is not known is taken out of the kernel and put back when it is.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use rpxy_l4_common::map::{Flow, FlowKey, Hop, HopKey};

use super::{
    NotSteered,
    hop_keys::HopKeys,
    netlink::{Event, Link, Route},
};

/// A change of the maps, to be made in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    Hop(HopKey, Hop),
    NoHop(HopKey),
    Flow(FlowKey, Flow),
    NoFlow(FlowKey),
    /// Out for now, since its way is not known. What it has counted is kept.
    Park(FlowKey),
}

/// From one of our addresses to somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// One direction of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Direction {
    pub(super) key: FlowKey,
    /// `hop` and `interface` are filled in here.
    pub(super) flow: Flow,
    pub(super) way: Way,
    pub(super) route: Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct HopId {
    interface: u32,
    next: IpAddr,
    mtu: Option<u32>,
}

#[derive(Debug)]
struct Used {
    key: HopKey,
    /// Ways that go by it.
    ways: usize,
    /// What the map holds.
    set: Option<Hop>,
}

#[derive(Debug)]
struct Taken {
    /// `None` while there is none.
    route: Option<Route>,
    flows: HashSet<FlowKey>,
}

#[derive(Debug)]
pub(super) struct Table {
    /// XDP writes Ethernet headers itself.
    needs_mac: bool,
    max_sessions: usize,
    links: HashMap<u32, Link>,
    addresses: HashSet<(u32, IpAddr)>,
    /// As many as the kernel keeps, which has bounds of its own (`gc_thresh3`).
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
    attached: HashSet<u32>,
    flows: HashMap<FlowKey, (Flow, Way)>,
    ways: HashMap<Way, Taken>,
    hops: HashMap<HopId, Used>,
    hop_keys: HopKeys,
}

impl Table {
    /// With room for so many sessions, and so many places for next hops.
    pub(super) fn new(needs_mac: bool, max_sessions: u32, hops: u32) -> Self {
        Self {
            needs_mac,
            max_sessions: usize::try_from(max_sessions).unwrap_or(usize::MAX),
            links: HashMap::new(),
            addresses: HashSet::new(),
            neighbours: HashMap::new(),
            attached: HashSet::new(),
            flows: HashMap::new(),
            ways: HashMap::new(),
            hops: HashMap::new(),
            hop_keys: HopKeys::new(hops),
        }
    }

    /// Sessions that are taken in.
    pub(super) fn sessions(&self) -> usize {
        self.flows.len() / 2
    }

    /// How many there may be.
    pub(super) fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// Whether there is no place for one more session, which `key` is a direction of. One that is there has its own.
    pub(super) fn is_full(&self, key: &FlowKey) -> bool {
        self.sessions() >= self.max_sessions && !self.flows.contains_key(key)
    }

    /// The links that are there.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Whether a link has an address that others than its neighbours can use.
    pub(super) fn has_address(&self, interface: u32) -> bool {
        self.addresses.iter().any(|(of, address)| *of == interface && !is_link_local(*address))
    }

    /// Whether this machine has the address.
    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(_, known)| *known == address)
    }

    /// Addresses of this machine.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(_, address)| *address)
    }

    /// A program has been attached to the link, or has gone.
    pub(super) fn set_attached(&mut self, interface: u32, attached: bool) {
        if attached {
            self.attached.insert(interface);
        } else {
            self.attached.remove(&interface);
        }
    }

    /// The route of a way that is in use.
    pub(super) fn known_route(&self, way: &Way) -> Option<Route> {
        self.ways.get(way)?.route
    }

    /// Whether packets may be steered this way.
    pub(super) fn check(&self, route: &Route) -> Result<(), NotSteered> {
        let link = self.links.get(&route.interface).ok_or(NotSteered::Interface)?;
        if route.local || link.loopback {
            return Err(NotSteered::Loopback);
        }
        if !link.ethernet || !self.attached.contains(&route.interface) {
            return Err(NotSteered::Interface);
        }
        Ok(())
    }

    /// Takes a session in: both directions, the reverse one first.
    pub(super) fn install(&mut self, directions: [Direction; 2]) -> Result<Vec<Update>, NotSteered> {
        for direction in &directions {
            self.check(&direction.route)?;
        }
        let [reverse, forward] = &directions;
        let new_hops = directions.iter().filter(|direction| !self.hops.contains_key(&hop_id(&direction.route)));
        if new_hops.count() > self.hop_keys.left() {
            return Err(NotSteered::Full);
        }
        let mut updates = self.revoke([forward.key, reverse.key]);
        if self.sessions() >= self.max_sessions {
            return Err(NotSteered::Full);
        }
        for Direction { key, flow, way, route } in directions {
            self.ways.entry(way).or_insert_with(|| Taken { route: None, flows: HashSet::new() });
            self.reroute(way, Some(route), &mut updates);
            if let Some(taken) = self.ways.get_mut(&way) {
                taken.flows.insert(key);
                self.flows.insert(key, (flow, way));
            }
            self.write(key, &mut updates);
        }
        Ok(updates)
    }

    /// Takes both directions of a session out, the forward one first.
    pub(super) fn revoke(&mut self, keys: [FlowKey; 2]) -> Vec<Update> {
        let mut updates = Vec::new();
        for key in keys {
            let Some((_, way)) = self.flows.remove(&key) else { continue };
            updates.push(Update::NoFlow(key));
            let Some(taken) = self.ways.get_mut(&way) else { continue };
            taken.flows.remove(&key);
            if taken.flows.is_empty() {
                let route = taken.route;
                self.ways.remove(&way);
                self.leave_hop(route, &mut updates);
            }
        }
        updates
    }

    /// Changes an entry. `None` when there is none.
    pub(super) fn change(&mut self, key: FlowKey, change: impl FnOnce(&mut Flow)) -> Option<Vec<Update>> {
        change(&mut self.flows.get_mut(&key)?.0);
        let mut updates = Vec::new();
        self.write(key, &mut updates);
        Some(updates)
    }

    /// The ways in use, whose routes may have changed, each with the source to ask with.
    pub(super) fn ways(&self) -> Vec<(Way, Option<IpAddr>)> {
        self.ways.keys().map(|way| (*way, self.source(way))).collect()
    }

    /// The source to ask for a route with: one that an interface has.
    pub(super) fn source(&self, way: &Way) -> Option<IpAddr> {
        self.is_local(way.source).then_some(way.source)
    }

    /// Neighbours in use.
    pub(super) fn neighbours_in_use(&self) -> Vec<(u32, IpAddr)> {
        let pairs: HashSet<_> = self.hops.keys().map(|hop| (hop.interface, hop.next)).collect();
        pairs.into_iter().collect()
    }

    /// A way has this route now; `None` when it has none, or one that may not be used. One whose next hop finds no place
    /// is none until it is told again, which all ways are in turn.
    pub(super) fn reroute(&mut self, way: Way, route: Option<Route>, updates: &mut Vec<Update>) {
        let route = route.filter(|route| self.check(route).is_ok() && self.has_place(route));
        let Some(taken) = self.ways.get_mut(&way) else { return };
        let before = std::mem::replace(&mut taken.route, route);
        if before == route {
            return;
        }
        let keys: Vec<FlowKey> = taken.flows.iter().copied().collect();
        if let Some(route) = route {
            self.enter_hop(route, updates);
        }
        for key in keys {
            self.write(key, updates);
        }
        self.leave_hop(before, updates);
    }

    /// Takes an event in. The second value is true when routes have to be asked for again.
    pub(super) fn learn(&mut self, event: Event) -> (Vec<Update>, bool) {
        let mut updates = Vec::new();
        let reroute = match event {
            Event::Link(link) => {
                let index = link.index;
                let before = self.links.insert(index, link);
                let changed = before.as_ref() != self.links.get(&index);
                if changed {
                    self.refresh(index, None, &mut updates);
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
                let place = (interface, address);
                let before = match mac {
                    Some(mac) => self.neighbours.insert(place, mac),
                    None => self.neighbours.remove(&place),
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

    /// Forgets what events tell, to be told all of it anew. Entries of the maps stay until then.
    pub(super) fn forget_world(&mut self) {
        self.links.clear();
        self.attached.clear();
        self.addresses.clear();
        self.neighbours.clear();
    }

    /// Brings the entries of hops in line with links and neighbours.
    pub(super) fn refresh_all(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        let interfaces: HashSet<u32> = self.hops.keys().map(|hop| hop.interface).collect();
        for interface in interfaces {
            self.refresh(interface, None, &mut updates);
        }
        updates
    }

    fn refresh(&mut self, interface: u32, next: Option<IpAddr>, updates: &mut Vec<Update>) {
        let concerned = |hop: &&HopId| hop.interface == interface && next.is_none_or(|next| next == hop.next);
        let hops: Vec<HopId> = self.hops.keys().filter(concerned).copied().collect();
        for hop in hops {
            self.set_hop(hop, updates);
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
        Some(Hop { interface: id.interface, mtu, destination, source: link.mac, seal: 0 })
    }

    /// Whether there is a place for the next hop of a route, or it has one.
    fn has_place(&self, route: &Route) -> bool {
        self.hop_keys.left() > 0 || self.hops.contains_key(&hop_id(route))
    }

    /// The hop has a place, or there is one.
    fn enter_hop(&mut self, route: Route, updates: &mut Vec<Update>) {
        let id = hop_id(&route);
        if let Some(used) = self.hops.get_mut(&id) {
            used.ways += 1;
            return;
        }
        let Some(key) = self.hop_keys.take() else { return };
        self.hops.insert(id, Used { key, ways: 1, set: None });
        self.set_hop(id, updates);
    }

    fn leave_hop(&mut self, route: Option<Route>, updates: &mut Vec<Update>) {
        let Some(id) = route.as_ref().map(hop_id) else { return };
        let Some(used) = self.hops.get_mut(&id) else { return };
        used.ways -= 1;
        if used.ways == 0 {
            if used.set.is_some() {
                updates.push(Update::NoHop(used.key));
            }
            self.hop_keys.give_back(used.key);
            self.hops.remove(&id);
        }
    }

    fn write(&mut self, key: FlowKey, updates: &mut Vec<Update>) {
        let Some((flow, way)) = self.flows.get_mut(&key) else { return };
        let route = self.ways.get(way).and_then(|taken| taken.route);
        let hop = route.and_then(|route| Some((route.interface, self.hops.get(&hop_id(&route))?.key)));
        updates.push(match hop {
            Some((interface, hop)) => {
                (flow.interface, flow.hop) = (interface, hop);
                Update::Flow(key, *flow)
            }
            None => Update::Park(key),
        });
    }
}

fn hop_id(route: &Route) -> HopId {
    HopId { interface: route.interface, next: route.next, mtu: route.mtu }
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
