//! TCP: accept, recognise, route, connect, relay.
//!
//! A connection is one task on one worker from accept to end. [`Snapshot`] is one configuration's immutable view, a
//! [`Listener`] for each, replaced as a whole on reload; [`Shared`] is what outlives reloads.

mod accept;
mod alert;
mod connect;
mod connection;
mod ech;
mod ending;
mod explain;
#[cfg(feature = "proxy-protocol")]
mod inbound;
#[cfg(feature = "proxy-protocol")]
mod outbound;
mod own;
mod ports;
mod probe;
mod record;
mod refused;
mod registry;
mod relay;
mod scratch;
mod share;
mod source;
mod timer;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use accept::{Socket, accept};
use arc_swap::ArcSwap;
pub(crate) use explain::explain;
use own::Own;
pub(crate) use registry::{ConnectionKey, ConnectionLine, close, connections, enter_worker};
use relay::Limits;
use tokio::sync::watch;

use crate::{
    config::model::{self, Config, Tcp, Transport},
    limit::{
        AcceptBackoff, AccessList, Bans, ByListener, ConnLimit, Descriptors, LogThrottle, PerSource, Prefixes, Sources,
    },
    log::{AccessLines, AccessLog},
    metrics::{ListenerCount, Metrics},
    net::{self, Address},
    resolve::Resolver,
    route::{self, Endpoint, Random, Targets, TcpRoutes},
};

/// Interval of log messages about the same exhaustion.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Pipes may take one of so many descriptors.
const PART_OF_PIPES: usize = 8;

/// One configuration as TCP uses it.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// By the address of their sockets.
    listeners: HashMap<Address, Arc<Listener>>,
}

impl Snapshot {
    /// Compiles `config`, whose sockets have the addresses of `sockets` with the names of their listeners; names of
    /// targets begin to resolve.
    #[must_use]
    pub(crate) fn new(
        config: &Config,
        sockets: &[(Address, &str)],
        shared: &Shared,
        targets: &Targets,
        resolver: &Resolver,
    ) -> Self {
        let own = Arc::new(Own::new(config));
        let rates = ByListener::default();
        let compile = |listener: &model::Listener| {
            let settings = &listener.tcp;
            Arc::new(Listener {
                name: Arc::clone(&listener.name),
                path: listener.listen.unix.as_ref().map(|unix| Arc::clone(&unix.path)),
                limits: Limits::of(settings).into(),
                connections: shared.connections.of(&settings.max_connections_of, || ConnLimit::within(&shared.active)),
                sharers: config.sharers(&settings.max_connections_of),
                per_source: shared.per_source.of(&settings.max_connections_per_source_of, PerSource::new),
                rates: settings
                    .new_connections
                    .map(|limit| rates.of(&settings.new_connections_of, || Sources::new(limit))),
                accepted: shared.metrics.of_listener(&listener.name, Transport::Tcp),
                access: AccessList::new(&listener.access),
                own: Arc::clone(&own),
                routes: TcpRoutes::new(listener, targets, resolver),
                access_lines: AccessLines::of(config),
                settings: settings.clone(),
            })
        };
        let serves = |listener: &&model::Listener| listener.serves(Transport::Tcp);
        let listeners: HashMap<&str, Arc<Listener>> =
            config.listeners().filter(serves).map(|listener| (&*listener.name, compile(listener))).collect();
        let at = |(address, name): &(Address, &str)| Some((address.clone(), Arc::clone(listeners.get(name)?)));
        Self { listeners: sockets.iter().filter_map(at).collect() }
    }

    /// The listener whose socket has this address.
    fn at(&self, address: &Address) -> Option<&Arc<Listener>> {
        self.listeners.get(address)
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

/// One listener in one configuration.
#[derive(Debug)]
struct Listener {
    name: Arc<str>,
    /// Its unix socket, if it has one.
    path: Option<Arc<Path>>,
    settings: Tcp,
    limits: Arc<Limits>,
    /// Connections open now, of this listener or of all that share its limit.
    connections: Arc<ConnLimit>,
    /// Rules and default targets that share that limit.
    sharers: u32,
    /// Connections by source network, likewise.
    per_source: Arc<PerSource>,
    /// Rates of source networks, likewise.
    rates: Option<Arc<Sources>>,
    /// Counts its connections.
    accepted: ListenerCount,
    access: AccessList,
    own: Arc<Own>,
    routes: TcpRoutes,
    access_lines: AccessLines,
}

/// State that all workers and all configurations share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The configuration in effect; a connection keeps the listener that it began with.
    pub snapshot: ArcSwap<Snapshot>,
    /// Tells whoever waits for connections of another one.
    replaced: watch::Sender<()>,
    /// Connections open now.
    pub active: Arc<ConnLimit>,
    /// Connections for which there are file descriptors.
    pub descriptors: Descriptors,
    /// The same for each limit of listeners, within all.
    connections: ByListener<ConnLimit>,
    /// Connections by source network, likewise.
    per_source: ByListener<PerSource>,
    /// Networks that may not connect.
    bans: Arc<Bans>,
    metrics: Arc<Metrics>,
    access: AccessLog,
    started: Instant,
    random: Random,
    /// Hellos of Encrypted Client Hello that did not open, by network.
    failed_hellos: Prefixes,
    backoff: AcceptBackoff,
    said_reaching: LogThrottle,
    said_rule: LogThrottle,
    said_no_port: LogThrottle,
}

impl Shared {
    /// The state of a daemon that starts at `started`, still without a configuration.
    #[must_use]
    pub(crate) fn new(bans: Arc<Bans>, metrics: Arc<Metrics>, access: AccessLog, started: Instant) -> Self {
        Self {
            snapshot: ArcSwap::default(),
            replaced: watch::Sender::default(),
            active: Arc::default(),
            descriptors: Descriptors::new(),
            connections: ByListener::default(),
            per_source: ByListener::default(),
            bans,
            metrics,
            access,
            started,
            random: Random::new(RandomState::new().hash_one(std::process::id())),
            failed_hellos: Prefixes::new(RandomState::new().hash_one(started)),
            backoff: AcceptBackoff::new(SAY_AGAIN),
            said_reaching: LogThrottle::new(SAY_AGAIN),
            said_rule: LogThrottle::new(SAY_AGAIN),
            said_no_port: LogThrottle::new(SAY_AGAIN),
        }
    }

    /// Puts a configuration into effect; returns the one before.
    pub(crate) fn replace(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let before = self.snapshot.swap(Arc::new(snapshot));
        self.replaced.send_replace(());
        before
    }

    /// Connections open now under the limit `of`.
    pub(crate) fn active_of(&self, of: &model::LimitOf) -> u32 {
        self.connections.find(of).map_or(0, |limit| limit.count())
    }

    /// Divides the descriptors: `others` are open or promised to something else; of what is left, pipes of the `workers`
    /// get a part. Returns the number of connections for which there is room.
    pub(crate) fn divide_descriptors(&self, others: u64, workers: usize) -> u32 {
        const OF_PIPE: usize = 2;
        let limit = net::open_files_limit().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let pipes = (limit / PART_OF_PIPES / OF_PIPE / workers.max(1)).min(relay::MOST_PIPES);
        relay::fit_pipes(pipes);
        self.descriptors.set_others(others.saturating_add((pipes * OF_PIPE * workers) as u64));
        self.descriptors.room()
    }

    /// Time from the daemon's start to `now`, the clock of target health.
    fn uptime(&self, now: tokio::time::Instant) -> Duration {
        now.into_std().saturating_duration_since(self.started)
    }
}

impl Listener {
    /// A client as the access log shows it: one without an address by the socket that it came by.
    fn source(&self, source: SocketAddr) -> Address {
        match &self.path {
            Some(path) if is_unnamed(source) => Address::Unix(Arc::clone(path)),
            Some(_) | None => source.into(),
        }
    }
}

/// Descriptors of a worker's pipes, at most.
pub(crate) const PIPE_DESCRIPTORS: u64 = 2 * relay::MOST_PIPES as u64;

/// Stands for the peer of a unix socket, which has no address.
const UNNAMED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Returns whether this is a peer without an address. What is said of addresses (bans, access lists, limits of sources) is
/// not said of it.
fn is_unnamed(peer: SocketAddr) -> bool {
    peer == UNNAMED
}

/// The addresses that a connection is known by: the sockets' own, or what an inbound PROXY header says.
#[derive(Debug, Clone, Copy)]
struct Origin {
    source: SocketAddr,
    /// The address that the client connected to, where a header told it.
    #[cfg(feature = "proxy-protocol")]
    destination: Option<SocketAddr>,
}

/// The output of `future` if it has one already.
async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}
