//! The flow table: which flows are steered, and by which next hops. It makes all decisions, without IO.
//!
//! Events of links, neighbours and routes come in, updates of the maps come out. It errs towards the daemon: a flow
//! whose route is not known leaves the kernel until it is.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use rpxy_l4_common::map::{Flow, FlowKey, Hop, HopKey, hop_flag};

use super::{
    hop_keys::HopKeys,
    netlink::{Event, Link, Route},
    scope::is_link_local,
};
use crate::offload::{api::NotSteered, maps::Update};

/// A local and a remote address: what a route is looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RoutePair {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

/// One direction of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Direction {
    pub(crate) key: FlowKey,
    /// The table fills in the way: `ingress`, `station`, `interface` and `hop`.
    pub(crate) flow: Flow,
    pub(crate) pair: RoutePair,
    pub(crate) route: Route,
}

/// A flow that is installed, or parked.
#[derive(Debug)]
struct Entry {
    flow: Flow,
    /// What its packets leave by.
    to: RoutePair,
    /// What answers to its packets leave by. Its packets have to arrive by the same interface: others may be forged, and
    /// stay with the daemon, as far as the host lets them in (`rp_filter`).
    from: RoutePair,
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
    /// Those that leave by it, and those that arrive by its interface.
    flows: HashSet<FlowKey>,
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
    flows: HashMap<FlowKey, Entry>,
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
            flows: HashMap::new(),
            routes: HashMap::new(),
            hops: HashMap::new(),
            hop_keys: HopKeys::new(hops),
        }
    }

    /// Returns the number of installed sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.flows.len() / 2
    }

    pub(crate) fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// Returns true if there is no slot for the session that `key` is a direction of. An installed session has its own.
    pub(crate) fn is_full(&self, key: &FlowKey) -> bool {
        self.sessions() >= self.max_sessions && !self.flows.contains_key(key)
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

    /// Installs a session: both directions, the reverse one first.
    pub(crate) fn install(&mut self, directions: [Direction; 2]) -> Result<Vec<Update>, NotSteered> {
        for direction in &directions {
            self.check(&direction.route)?;
        }
        let [reverse, forward] = &directions;
        let new_hops = directions.iter().filter(|direction| !self.hops.contains_key(&hop_id(&direction.route)));
        if new_hops.count() > self.hop_keys.free() {
            return Err(NotSteered::Full);
        }
        let mut updates = self.revoke([forward.key, reverse.key]);
        if self.sessions() >= self.max_sessions {
            return Err(NotSteered::Full);
        }
        let pairs = directions.map(|direction| direction.pair);
        let keys = directions.map(|direction| direction.key);
        for Direction { pair, route, .. } in directions {
            self.routes.entry(pair).or_insert_with(|| RouteUse { route: None, flows: HashSet::new() });
            self.reroute(pair, Some(route), &mut updates);
            if let Some(used) = self.routes.get_mut(&pair) {
                used.flows.extend(keys);
            }
        }
        for (Direction { key, flow, .. }, [to, from]) in directions.into_iter().zip([pairs, [pairs[1], pairs[0]]]) {
            self.flows.insert(key, Entry { flow, to, from });
            self.write(key, &mut updates);
        }
        Ok(updates)
    }

    /// Removes a session: both directions, the forward one first.
    pub(crate) fn revoke(&mut self, keys: [FlowKey; 2]) -> Vec<Update> {
        let mut updates = Vec::new();
        for key in keys {
            let Some(Entry { to, from, .. }) = self.flows.remove(&key) else { continue };
            updates.push(Update::NoFlow(key));
            for pair in [to, from] {
                let Some(used) = self.routes.get_mut(&pair) else { continue };
                used.flows.remove(&key);
                if used.flows.is_empty() {
                    let route = used.route;
                    self.routes.remove(&pair);
                    self.release_hop(route, &mut updates);
                }
            }
        }
        updates
    }

    /// Changes an entry. Returns `None` if there is none.
    pub(crate) fn change(&mut self, key: FlowKey, change: impl FnOnce(&mut Flow)) -> Option<Vec<Update>> {
        change(&mut self.flows.get_mut(&key)?.flow);
        let mut updates = Vec::new();
        self.write(key, &mut updates);
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
        let flows = &self.flows;
        let concerned = |key: &&FlowKey| elsewhere || flows.get(key).is_some_and(|entry| entry.to == pair);
        let keys: Vec<FlowKey> = used.flows.iter().filter(concerned).copied().collect();
        if let Some(route) = route {
            self.acquire_hop(route, updates);
        }
        for key in keys {
            self.write(key, updates);
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
        let keys: HashSet<FlowKey> = there.flat_map(|used| used.flows.iter().copied()).collect();
        keys.into_iter().for_each(|key| self.write(key, updates));
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

    fn write(&mut self, key: FlowKey, updates: &mut Vec<Update>) {
        let Some(Entry { flow, to, from }) = self.flows.get_mut(&key) else { return };
        let route = |pair| self.routes.get(pair).and_then(|used| used.route);
        let way = route(to).zip(route(from)).and_then(|(to, from)| {
            let station = self.links.get(&from.interface)?.mac;
            Some((from.interface, station, to.interface, self.hops.get(&hop_id(&to))?.key))
        });
        updates.push(match way {
            Some(way) => {
                (flow.ingress, flow.station, flow.interface, flow.hop) = way;
                Update::Flow(key, *flow)
            }
            None => Update::Park(key),
        });
    }
}

fn hop_id(route: &Route) -> HopId {
    HopId { interface: route.interface, next: route.next, mtu: route.mtu }
}

#[cfg(test)]
mod tests;
