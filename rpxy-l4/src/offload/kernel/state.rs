//! The state of the kernel plane, and how it follows the network.
//!
//! One lock protects all that is written. It is taken for sessions (install, revoke, another connection ID), for events
//! of the network and for reloads, never for datagrams. Reading counters takes no lock.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::spliced::{self, SpliceState};
use crate::config::model::Ebpf;
use crate::offload::{
    api::{NotSteered, Unavailable},
    loader::{self, HookMode, Programs, Wanted},
    maps::{Maps, Readers},
    routes::{Event, Netlink, Route, RoutePair, Table},
    splice::Tell,
};

/// State that `Kernel` and the thread of `watch` share.
pub(super) struct Inner {
    wanted: Wanted,
    pub(super) readers: Readers,
    /// What is noted of spliced connections; `None` where there are none.
    pub(super) splice: Option<spliced::Readers>,
    /// Who is told of their ends.
    pub(super) tell: OnceLock<Tell>,
    state: Mutex<State>,
    /// See [`crate::offload::Offload::changes`].
    changes: AtomicU64,
    /// The daemon ends and its flows stay in the kernel.
    pub(super) leaving: AtomicBool,
}

/// State under the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) table: Table,
    pub(super) maps: Maps,
    pub(super) programs: Programs,
    netlink: Netlink,
    /// Spliced TCP, if there is any.
    pub(super) splice: Option<SpliceState>,
    /// A session was refused for lack of a slot since one was freed last.
    pub(super) turned_away: bool,
}

impl Inner {
    pub(super) fn new(wanted: Wanted, readers: Readers, splice: Option<spliced::Readers>, state: State) -> Self {
        let tell = OnceLock::new();
        Self {
            wanted,
            readers,
            splice,
            tell,
            state: Mutex::new(state),
            changes: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
        }
    }

    /// Announces that refused sessions may be accepted now.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what is in the kernel outlives the daemon.
    pub(super) fn stays(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether spliced connections outlive the daemon, which ends.
    pub(super) fn keeps_spliced(&self) -> bool {
        self.stays() && self.state().programs.pins_splice()
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // After a panic elsewhere the table is still usable: at worst it has an entry too many, which only costs time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in events. Returns true if routes have to be looked up again.
    pub(super) fn learn(&self, events: Vec<Event>) -> bool {
        let state = &mut *self.state();
        let mut reroute = false;
        for event in events {
            if let Event::NoLink(index) = event {
                state.programs.forget(index);
                if let Some(splice) = &mut state.splice {
                    splice.table.set_attached(index, false);
                }
            }
            let (updates, changed) = state.table.learn(event);
            state.maps.apply_all(&updates);
            reroute |= changed;
        }
        if reroute {
            self.attach_new_links(state);
            if let Err(error) = state.maps.set_local(state.table.addresses()) {
                tracing::debug!("kernel plane: cannot set the addresses of this machine: {error}");
            }
        }
        reroute
    }

    /// Attaches the programs, which a predecessor has waited with, as `config` says.
    pub(super) fn take_hooks(&self, config: &Ebpf, network: Vec<Event>) -> Result<(), Unavailable> {
        {
            let state = &mut *self.state();
            loader::take_hooks(config, &mut state.programs, network.clone())?;
            state.table.set_needs_mac(state.programs.hook() != HookMode::Tc);
        }
        self.relearn(network);
        {
            let state = &mut *self.state();
            state.programs.inherit(&state.maps.flows_data);
        }
        self.changed();
        Ok(())
    }

    /// Takes in the whole state of the network, after events were lost.
    pub(super) fn relearn(&self, network: Vec<Event>) {
        {
            let state = &mut *self.state();
            state.table.forget_network();
            if let Some(splice) = &mut state.splice {
                splice.table.forget_attached();
            }
        }
        self.learn(network);
        let state = &mut *self.state();
        let there: HashSet<u32> = state.table.links().map(|link| link.index).collect();
        state.programs.retain(&there);
        let updates = state.table.refresh_all();
        state.maps.apply_all(&updates);
    }

    /// Sets the route of a pair; `None` if it has none.
    pub(super) fn reroute(&self, pair: RoutePair, route: Option<Route>) {
        let state = &mut *self.state();
        let mut updates = Vec::new();
        state.table.reroute(pair, route, &mut updates);
        state.maps.apply_all(&updates);
    }

    fn attach_new_links(&self, state: &mut State) {
        for link in self.wanted.links(&state.table) {
            let attached = state.programs.attach_or_warn(&link);
            state.table.set_attached(link.index, attached);
            let splices = state.programs.attach_splice_or_warn(&link);
            if let Some(splice) = &mut state.splice {
                splice.table.set_attached(link.index, splices);
            }
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(
        table: Table,
        maps: Maps,
        programs: Programs,
        netlink: Netlink,
        splice: Option<SpliceState>,
    ) -> Self {
        Self { table, maps, programs, netlink, splice, turned_away: false }
    }

    /// Looks up the route of a pair in use again. The kernel keeps path MTUs apart from routes and sends no event for them.
    pub(super) fn refresh_route(&mut self, pair: RoutePair) {
        if self.table.known_route(&pair).is_none() {
            return;
        }
        if let Ok(route) = self.netlink.route(pair.destination, self.table.source(&pair)) {
            let mut updates = Vec::new();
            self.table.reroute(pair, Some(route), &mut updates);
            self.maps.apply_all(&updates);
        }
    }

    /// Returns the route of a pair, if packets may be steered by it.
    pub(super) fn route(&mut self, pair: &RoutePair) -> Result<Route, NotSteered> {
        if self.table.is_local(pair.destination) || pair.destination.is_loopback() {
            return Err(NotSteered::Loopback);
        }
        let route = match self.table.known_route(pair) {
            Some(route) => route,
            None => self.netlink.route(pair.destination, self.table.source(pair)).map_err(|error| {
                tracing::trace!("no route from {} to {}: {error}", pair.source, pair.destination);
                NotSteered::NoRoute
            })?,
        };
        self.table.check(&route).map(|()| route)
    }
}
