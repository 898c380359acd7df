//! What the kernel plane holds, and how it follows the network.
//!
//! Entries are written under one lock, which is taken for sessions (install, revoke, another connection ID), for events
//! of the network and for reloads, never for datagrams. Reading what an entry has counted takes none.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    NotSteered,
    attach::{Plane, Programs},
    maps::{Maps, Readers},
    netlink::{Event, Link, Netlink, Route},
    table::{Table, Way},
};
use crate::config::model::Ebpf;

/// What the thread shares.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) plane: Plane,
    wanted: Wanted,
    pub(super) readers: Readers,
    state: Mutex<State>,
    /// Counts what may let sessions in that were refused; see [`super::Offload::changes`].
    changes: AtomicU64,
}

/// What is written.
#[derive(Debug)]
pub(super) struct State {
    pub(super) table: Table,
    pub(super) maps: Maps,
    pub(super) programs: Programs,
    routes: Netlink,
    /// A session was refused for want of a place since one was freed last.
    pub(super) turned_away: bool,
}

/// Interfaces to attach to.
#[derive(Debug)]
pub(super) enum Wanted {
    Named(Vec<String>),
    Found,
}

impl Wanted {
    pub(super) fn new(config: &Ebpf) -> Self {
        if config.interfaces.is_empty() { Self::Found } else { Self::Named(config.interfaces.clone()) }
    }

    fn holds(&self, link: &Link, table: &Table) -> bool {
        match self {
            Self::Named(names) => link.up && !link.loopback && names.contains(&link.name),
            Self::Found => link.up && !link.loopback && link.ethernet && table.has_address(link.index),
        }
    }
}

/// The interfaces that `config` means, among those that there are.
pub(super) fn interfaces(config: &Ebpf, state: Vec<Event>) -> Vec<Link> {
    let mut table = Table::new(false, 0, 0);
    for event in state {
        table.learn(event);
    }
    let wanted = Wanted::new(config);
    let mut links: Vec<Link> = table.links().filter(|link| wanted.holds(link, &table)).cloned().collect();
    links.sort_unstable_by_key(|link| link.index);
    links
}

impl Inner {
    pub(super) fn new(wanted: Wanted, readers: Readers, state: State) -> Self {
        Self { plane: state.programs.plane, wanted, readers, state: Mutex::new(state), changes: AtomicU64::new(0) }
    }

    /// Sessions that were refused may be let in now.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the table usable: at worst an entry too many, which only costs time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes events in. Returns whether routes have to be asked for again.
    pub(super) fn learn(&self, events: Vec<Event>) -> bool {
        let state = &mut *self.state();
        let mut reroute = false;
        for event in events {
            if let Event::NoLink(index) = event {
                state.programs.forget(index);
            }
            let (updates, changed) = state.table.learn(event);
            state.maps.apply_all(&updates);
            reroute |= changed;
        }
        if reroute {
            self.attach_what_came(state);
            if let Err(error) = state.maps.set_local(state.table.addresses()) {
                tracing::debug!("kernel plane: addresses of this machine: {error}");
            }
        }
        reroute
    }

    /// Takes a whole picture of the network in, after events were lost.
    pub(super) fn relearn(&self, world: Vec<Event>) {
        {
            let state = &mut *self.state();
            state.table.forget_world();
        }
        self.learn(world);
        let state = &mut *self.state();
        let there: HashSet<u32> = state.table.links().map(|link| link.index).collect();
        state.programs.retain(&there);
        let updates = state.table.refresh_all();
        state.maps.apply_all(&updates);
    }

    /// A way may have another route now.
    pub(super) fn reroute(&self, way: Way, route: Option<Route>) {
        let state = &mut *self.state();
        let mut updates = Vec::new();
        state.table.reroute(way, route, &mut updates);
        state.maps.apply_all(&updates);
    }

    /// Interfaces that are wanted and were not there before.
    fn attach_what_came(&self, state: &mut State) {
        let wanted: Vec<Link> =
            state.table.links().filter(|link| self.wanted.holds(link, &state.table)).cloned().collect();
        for link in wanted {
            let attached = state.programs.attach_or_say(&link);
            state.table.set_attached(link.index, attached);
        }
    }
}

impl State {
    pub(super) fn new(table: Table, maps: Maps, programs: Programs, routes: Netlink) -> Self {
        Self { table, maps, programs, routes, turned_away: false }
    }

    /// Asks for the route of a way in use, whose MTU may be another one now: the kernel keeps what routers tell about it
    /// beside the routes, and sends no event.
    pub(super) fn ask_again(&mut self, way: Way) {
        if self.table.known_route(&way).is_none() {
            return;
        }
        if let Ok(route) = self.routes.route(way.destination, self.table.source(&way)) {
            let mut updates = Vec::new();
            self.table.reroute(way, Some(route), &mut updates);
            self.maps.apply_all(&updates);
        }
    }

    /// The route of a way, if packets may be steered along it.
    pub(super) fn route(&mut self, way: &Way) -> Result<Route, NotSteered> {
        if self.table.is_local(way.destination) || way.destination.is_loopback() {
            return Err(NotSteered::Loopback);
        }
        let route = match self.table.known_route(way) {
            Some(route) => route,
            None => self.routes.route(way.destination, self.table.source(way)).map_err(|error| {
                tracing::trace!("no route from {} to {}: {error}", way.source, way.destination);
                NotSteered::NoRoute
            })?,
        };
        self.table.check(&route).map(|()| route)
    }
}
