//! The kernel plane at work: the loaded object, its maps, and the thread that keeps next hops fresh.
//!
//! Entries are written under one lock, which is taken for sessions (install, revoke, another connection ID), for events
//! of the network and for reloads, never for datagrams. Reading what an entry has counted takes none.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use aya::EbpfLoader;
use ipnet::IpNet;
use rpxy_l4_common::{
    map::{Flow, FlowKey, name},
    verdict::Counter,
};
use rpxy_l4_proto::quic::ConnectionId;
use rustix::time::{ClockId, clock_gettime};

use super::{
    NotSteered, Offload, Steered, Unavailable, Usage,
    attach::{self, Plane, Programs},
    encode, explain,
    machine::Machine,
    maps::{self, Maps, Readers},
    netlink::{self, Event, Events, Link, Netlink, Route},
    table::{Direction, Table, Way, is_link_local},
    watch,
};
use crate::config::model::{Ebpf, EbpfMode};

/// Room for neighbours and for listening sockets, in entries.
const MOST_HOPS: u32 = 1 << 16;

/// The kernel plane.
#[derive(Debug)]
pub struct Kernel {
    inner: Arc<Inner>,
    /// Closed when the thread is to end.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread shares.
#[derive(Debug)]
pub(super) struct Inner {
    plane: Plane,
    wanted: Wanted,
    readers: Readers,
    state: Mutex<State>,
}

/// What is written.
#[derive(Debug)]
pub(super) struct State {
    pub(super) table: Table,
    maps: Maps,
    programs: Programs,
    routes: Netlink,
}

/// Interfaces to attach to.
#[derive(Debug)]
enum Wanted {
    Named(Vec<String>),
    Found,
}

impl Wanted {
    fn new(config: &Ebpf) -> Self {
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
    let mut table = Table::new(false, 0);
    for event in state {
        table.learn(event);
    }
    let wanted = Wanted::new(config);
    let mut links: Vec<Link> = table.links().filter(|link| wanted.holds(link, &table)).cloned().collect();
    links.sort_unstable_by_key(|link| link.index);
    links
}

pub(super) fn start(config: &Ebpf) -> Result<Kernel, Unavailable> {
    let machine = Machine::read();
    if config.mode == EbpfMode::Off {
        return Err(unavailable("switched off", "set ebpf.mode = \"auto\""));
    }
    let Some(object) = super::object() else {
        return Err(unavailable(
            "this program was built without the eBPF object",
            "run `cargo xtask build-ebpf` before the build",
        ));
    };
    if !machine.missing().is_empty() || machine.user_namespace {
        let (what, remedy) = machine.why_refused();
        return Err(Unavailable { what, remedy });
    }
    if machine.jit == Some(false) {
        tracing::warn!("kernel plane: programs are interpreted, which is slow: set net.core.bpf_jit_enable = 1");
    }
    let network = |error: io::Error| explain::unavailable("cannot follow the network (rtnetlink)", &error, &machine);
    // Listened to before the first look, so that nothing falls in between.
    let events = Events::open().map_err(network)?;
    let mut routes = Netlink::open().map_err(network)?;
    let world = routes.state().map_err(network)?;
    let links = interfaces(config, world.clone());

    let entries = config.max_flows.get().saturating_mul(2);
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(name::FLOWS, entries)
        .map_max_entries(name::HOPS, entries.min(MOST_HOPS))
        .load(object)
        .map_err(|error| explain::unavailable("cannot load the eBPF object", &error, &machine))?;
    let (maps, readers) = maps::take(&mut ebpf)
        .map_err(|error| explain::unavailable("the eBPF object does not fit this program", &error, &machine))?;
    let mut programs = Programs::new(ebpf, &machine);
    attach(config, &mut programs, &links, &machine)?;

    let plane = programs.plane;
    let table = Table::new(plane != Plane::Tc, config.max_flows.get());
    let inner = Arc::new(Inner {
        plane,
        wanted: Wanted::new(config),
        readers,
        state: Mutex::new(State { table, maps, programs, routes }),
    });
    inner.learn(world);
    let (stopped, stop) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| network(error.into()))?;
    let asking = Netlink::open().map_err(network)?;
    let thread = watch::start(Arc::clone(&inner), events, asking, stopped).map_err(network)?;
    Ok(Kernel { inner, stop: Some(stop), thread: Some(thread) })
}

fn unavailable(what: &str, remedy: &str) -> Unavailable {
    Unavailable { what: what.to_owned(), remedy: remedy.to_owned() }
}

/// Attaches by the first of the possible planes that all interfaces take; with TC, to those that take it.
fn attach(config: &Ebpf, programs: &mut Programs, links: &[Link], machine: &Machine) -> Result<(), Unavailable> {
    for name in config.interfaces.iter().filter(|name| !links.iter().any(|link| link.name == **name)) {
        tracing::warn!("ebpf.interfaces: {name} is not there or not up; it is taken when it comes");
    }
    for plane in attach::candidates(config.mode, links) {
        let result = match plane {
            Plane::Tc => programs.attach_some(*plane, links),
            Plane::Xdp | Plane::XdpGeneric => programs.attach_all(*plane, links),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(error) if *plane == Plane::Tc => {
                return Err(Unavailable { what: error, remedy: explain::old_kernel(machine) });
            }
            Err(error) if config.mode == EbpfMode::Auto => {
                tracing::info!("kernel plane: no {}, TC is taken instead: {error}", plane.name());
            }
            Err(error) => tracing::warn!("kernel plane: no {}, TC is taken instead: {error}", plane.name()),
        }
    }
    Ok(())
}

impl Inner {
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
    /// The route of a way, if packets may be steered along it.
    fn route(&mut self, way: &Way) -> Result<Route, NotSteered> {
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

/// Keys of both directions, the forward one first.
fn keys(flow: &Steered) -> [FlowKey; 2] {
    [
        FlowKey { source: encode::socket(flow.client), destination: encode::socket(flow.local) },
        FlowKey { source: encode::socket(flow.backend), destination: encode::socket(flow.upstream) },
    ]
}

/// The address ways and families are judged by.
fn ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

fn with_cid(mut entry: Flow, flow: &Steered) -> Flow {
    let id = flow.cid.as_ref().map(ConnectionId::as_bytes).unwrap_or_default();
    entry.cid = [0; 20];
    entry.cid.iter_mut().zip(id).for_each(|(byte, from)| *byte = *from);
    entry.cid_len = u8::try_from(id.len()).unwrap_or_default();
    entry
}

impl Offload for Kernel {
    fn install(&self, flow: &Steered) -> Result<(), NotSteered> {
        let addresses = [flow.client, flow.local, flow.upstream, flow.backend].map(ip);
        if addresses.iter().any(|address| address.is_ipv4() != addresses[0].is_ipv4()) {
            return Err(NotSteered::Family);
        }
        // A link-local address alone does not tell whose it is.
        if addresses.iter().any(|address| is_link_local(*address) || !netlink::is_plain(*address)) {
            return Err(NotSteered::Address);
        }
        let [client, local, upstream, backend] = addresses;
        let [forward, reverse] = keys(flow);
        let there = Way { source: upstream, destination: backend };
        let back = Way { source: local, destination: client };

        let state = &mut *self.inner.state();
        let route_there = state.route(&there)?;
        let route_back = state.route(&back)?;
        let entry = |source, destination| Flow {
            source: encode::socket(source),
            destination: encode::socket(destination),
            kind: flow.kind,
            ..Flow::default()
        };
        let reply = Direction { key: reverse, flow: entry(flow.local, flow.client), way: back, route: route_back };
        let request = Direction {
            key: forward,
            flow: with_cid(entry(flow.upstream, flow.backend), flow),
            way: there,
            route: route_there,
        };
        let updates = state.table.install([reply, request])?;
        let Err(error) = state.maps.apply(&updates) else { return Ok(()) };
        let undo = state.table.revoke([forward, reverse]);
        state.maps.apply_all(&undo);
        match explain::os_error(&error).and_then(io::Error::raw_os_error) {
            Some(libc::E2BIG | libc::ENOMEM) => Err(NotSteered::Full),
            _ => {
                tracing::debug!("kernel plane: cannot install {flow:?}: {error}");
                Err(NotSteered::Failed)
            }
        }
    }

    fn update_cid(&self, flow: &Steered) {
        let [forward, _] = keys(flow);
        let state = &mut *self.inner.state();
        if let Some(updates) = state.table.change(forward, |entry| *entry = with_cid(*entry, flow)) {
            state.maps.apply_all(&updates);
        }
    }

    fn revoke(&self, flow: &Steered) {
        let state = &mut *self.inner.state();
        let updates = state.table.revoke(keys(flow));
        state.maps.apply_all(&updates);
    }

    fn usage(&self, flow: &Steered) -> Option<Usage> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?);
        usage(keys(flow).map(|key| self.inner.readers.counted(&key)), now)
    }
}

/// What an entry has counted: last seen, packets, bytes.
type Counted = (u64, u64, u64);
/// Of both directions.
type Both = [Option<Counted>; 2];

/// What the entries of both directions say at `now`, that towards the backend first.
fn usage(counted: Both, now: Duration) -> Option<Usage> {
    let [up, down] = counted;
    up.or(down)?;
    let (up, down) = (up.unwrap_or_default(), down.unwrap_or_default());
    let seen = up.0.max(down.0);
    let idle = (seen > 0).then(|| now.saturating_sub(Duration::from_nanos(seen)));
    Some(Usage { packets: up.1 + down.1, bytes_up: up.2, bytes_down: down.2, idle })
}

impl Kernel {
    /// Which hook is used: `tc`, `xdp` or `xdp-generic`.
    #[must_use]
    pub fn plane(&self) -> &'static str {
        self.inner.plane.name()
    }

    /// The interfaces that a program stands on, each with how.
    #[must_use]
    pub fn attachments(&self) -> Vec<(String, &'static str)> {
        self.inner.state().programs.attachments()
    }

    /// The sockets that the daemon listens on, wildcards among them, each with bits of `map::drop`: replaces those of
    /// before.
    pub fn set_listeners(&self, listeners: &[(SocketAddr, u32)]) {
        let wanted: HashMap<_, _> = listeners.iter().map(|(address, drop)| (encode::socket(*address), *drop)).collect();
        if let Err(error) = self.inner.state().maps.set_listeners(wanted) {
            tracing::warn!(
                "kernel plane: not all listening sockets are known to it, early_drop and ban miss them: {error}"
            );
        }
    }

    /// The networks whose datagrams to listening sockets are dropped: replaces those of before.
    pub fn set_bans(&self, networks: &[IpNet]) {
        let wanted: HashSet<IpNet> = networks.iter().map(IpNet::trunc).collect();
        if let Err(error) = self.inner.state().maps.set_banned(wanted) {
            tracing::warn!("kernel plane: not all banned networks are known to it: {error}");
        }
    }

    /// Packets by outcome, over all interfaces, since the start.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        counter_names().filter_map(|(index, name)| Some((name, self.inner.readers.counter(index)?))).collect()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("kernel plane: the thread that follows the network has failed");
        }
    }
}

/// Indices and names of `COUNTERS`.
fn counter_names() -> impl Iterator<Item = (u32, &'static str)> {
    Counter::ALL.iter().map(|counter| (counter.index(), counter.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_that_of_both_directions() {
        let now = Duration::from_secs(10);
        let second = 1_000_000_000;
        let idle = Duration::from_secs;
        let rows: &[(&str, Both, Option<Usage>)] = &[
            ("not installed", [None, None], None),
            ("nothing yet", [Some((0, 0, 0)), Some((0, 0, 0))], Some(Usage::default())),
            (
                "the later one counts",
                [Some((7 * second, 2, 300)), Some((9 * second, 1, 50))],
                Some(Usage { packets: 3, bytes_up: 300, bytes_down: 50, idle: Some(idle(1)) }),
            ),
            (
                "one direction",
                [Some((7 * second, 2, 300)), None],
                Some(Usage { packets: 2, bytes_up: 300, bytes_down: 0, idle: Some(idle(3)) }),
            ),
            (
                "seen after the clock was read",
                [Some((11 * second, 1, 1)), None],
                Some(Usage { packets: 1, bytes_up: 1, bytes_down: 0, idle: Some(Duration::ZERO) }),
            ),
        ];
        for (name, counted, expected) in rows {
            assert_eq!(usage(*counted, now), *expected, "{name}");
        }
    }
}
