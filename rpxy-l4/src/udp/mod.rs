//! UDP: datagrams are recognised, routed and relayed in sessions.
//!
//! [`core`] decides, without IO; [`io`] runs it on the threads of its [`Worker`]s, which are told through their
//! [`mailbox`]. [`Snapshot`] is one configuration's
//! immutable view, a [`Listener`] for each, replaced as a whole on reload; [`Shared`] is what all workers have in common and what outlives
//! reloads, [`affinity`] among it.

pub(crate) mod affinity;
pub(crate) mod core;
mod explain;
mod handed;
mod inherited;
mod io;
mod mailbox;
mod own;
mod rehearsal;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use self::core::TargetAddresses;
#[cfg(any(test, feature = "properties"))]
pub use self::core::udp_core;
pub(crate) use self::core::{FlowLine, SessionId};
use affinity::Affinity;
pub(crate) use explain::{State, explain};
pub(crate) use handed::{HandOver, Handed, TakenOver};
use inherited::InheritedSessions;
pub(crate) use io::Worker;
pub(crate) use mailbox::Control;
use own::OwnPorts;

use crate::{
    config::model::{self, Config, LimitOf, Transport},
    limit::{AccessList, Bans, ByListener, ConnLimit, LogThrottle, Sources},
    log::{AccessLines, AccessLog},
    metrics::Metrics,
    net,
    offload::Offload,
    resolve::Resolver,
    route::{self, Endpoint, Targets, UdpRoutes},
};

/// Interval between log messages of the same kind.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Sessions at once where nobody has said how many the machine has room for.
const FEW_SESSIONS: u32 = 1024;

/// One configuration as UDP uses it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// By the address of their sockets.
    listeners: HashMap<SocketAddr, Arc<Listener>>,
    /// For what arrives at a socket that this configuration has no more.
    nowhere: Arc<Listener>,
    access_lines: AccessLines,
    target_addresses: TargetAddresses,
}

impl Snapshot {
    /// Compiles `config`, whose sockets have the addresses of `sockets` with the names of their listeners; names of
    /// targets begin to resolve. Sessions are counted in `active`.
    #[must_use]
    pub(crate) fn new(
        config: &Config,
        sockets: &[(SocketAddr, &str)],
        active: &ByListener<ConnLimit>,
        targets: &Targets,
        resolver: &Resolver,
    ) -> Self {
        let sources = ByListener::default();
        let compile =
            |listener: &model::Listener| Arc::new(Listener::new(listener, (active, &sources), targets, resolver));
        let serves = |listener: &&model::Listener| listener.serves(Transport::Udp);
        let listeners: HashMap<&str, Arc<Listener>> =
            config.listeners().filter(serves).map(|listener| (&*listener.name, compile(listener))).collect();
        let at = |(address, name): &(SocketAddr, &str)| Some((*address, Arc::clone(listeners.get(name)?)));
        let target_addresses = TargetAddresses::of(listeners.values().flat_map(|listener| listener.routes.endpoints()));
        Self {
            listeners: sockets.iter().filter_map(at).collect(),
            nowhere: Arc::default(),
            access_lines: AccessLines::of(config),
            target_addresses,
        }
    }

    /// The listener whose socket has this address.
    fn at(&self, address: SocketAddr) -> &Arc<Listener> {
        self.listeners.get(&address).unwrap_or(&self.nowhere)
    }

    /// All targets, those of several rules more than once.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners.values().flat_map(|listener| listener.routes.endpoints())
    }

    /// Waits until every name has had its first answer, good or bad.
    pub(crate) async fn resolved(&self) {
        route::resolved(self.endpoints()).await;
    }
}

/// One listener in one configuration. The default leads nowhere.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    name: Arc<str>,
    routes: UdpRoutes,
    sessions: SessionLimit,
    /// Limits of new sessions by source, of this listener or of all that share them; `None` where there are none.
    sources: Option<Arc<Sources>>,
    access: AccessList,
    target_retry: Duration,
    /// Bytes, of each of its sockets.
    receive_buffer: u32,
}

impl Listener {
    /// Compiles `listener`, whose sessions are counted in `active` and `sources`.
    fn new(
        listener: &model::Listener,
        (active, sources): (&ByListener<ConnLimit>, &ByListener<Sources>),
        targets: &Targets,
        resolver: &Resolver,
    ) -> Self {
        let settings = &listener.udp;
        Self {
            name: Arc::clone(&listener.name),
            sessions: SessionLimit {
                of: settings.max_connections_of.clone(),
                most: settings.max_connections.map_or(FEW_SESSIONS, NonZeroU32::get),
                active: active.of(&settings.max_connections_of, ConnLimit::default),
            },
            sources: settings.new_sessions.map(|limit| sources.of(&settings.new_sessions_of, || Sources::new(limit))),
            access: AccessList::new(&listener.access),
            routes: UdpRoutes::new(listener, targets, resolver),
            target_retry: settings.target_retry,
            receive_buffer: settings.receive_buffer.map_or(net::udp::LISTENER_BUFFER, NonZeroU32::get),
        }
    }
}

/// A limit on sessions, over all workers.
#[derive(Debug, Clone, Default)]
struct SessionLimit {
    /// The listener whose own it is; `None` for all that say none.
    of: LimitOf,
    most: u32,
    /// Sessions with a backend, or on their way to one.
    active: Arc<ConnLimit>,
}

/// State that all workers and all snapshots share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Sessions with a backend, or on their way to one, by limit.
    pub active: ByListener<ConnLimit>,
    /// The backends that know connections.
    pub affinity: Arc<Affinity>,
    /// Networks whose datagrams are dropped.
    bans: Arc<Bans>,
    offload: Arc<dyn Offload>,
    /// Sessions inherited from an earlier daemon.
    inherited: InheritedSessions,
    /// Ports of the sockets of all workers.
    ports: Arc<OwnPorts>,
    metrics: Arc<Metrics>,
    access: AccessLog,
    started: Instant,
    said_rule: LogThrottle,
    said_no_port: LogThrottle,
    said_shortage: LogThrottle,
}

impl Shared {
    /// The state of a daemon that starts at `started` with `plane`; `affinity_lifetime` is that of connection IDs after
    /// their session.
    #[must_use]
    pub(crate) fn new(
        affinity_lifetime: Duration,
        bans: Arc<Bans>,
        offload: Arc<dyn Offload>,
        metrics: Arc<Metrics>,
        access: AccessLog,
        started: Instant,
    ) -> Self {
        Self {
            active: ByListener::default(),
            affinity: Arc::new(Affinity::new(affinity_lifetime, Arc::clone(&metrics))),
            bans,
            offload,
            inherited: InheritedSessions::default(),
            ports: Arc::default(),
            metrics,
            access,
            started,
            said_rule: LogThrottle::new(SAY_AGAIN),
            said_no_port: LogThrottle::new(SAY_AGAIN),
            said_shortage: LogThrottle::new(SAY_AGAIN),
        }
    }

    /// Time since the daemon's start, the clock of sessions and of target health.
    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn seed() -> u64 {
        RandomState::new().hash_one(std::process::id())
    }
}
