//! TCP: accept, recognise, route, connect, relay.
//!
//! A connection is one task on one worker from accept to end. [`Snapshot`] is one configuration's immutable view, replaced
//! as a whole on reload; [`Shared`] is what outlives reloads.

mod alert;
mod connect;
mod connection;
mod ech;
#[cfg(feature = "proxy-protocol")]
mod inbound;
mod listener;
#[cfg(feature = "proxy-protocol")]
mod outbound;
mod own;
mod ports;
mod probe;
mod record;
mod refused;
mod relay;
mod scratch;
mod share;
mod source;
mod timer;

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
pub(crate) use listener::accept;
use own::Own;
use relay::Limits;

use crate::{
    config::model::{Config, Tcp},
    limit::{AcceptBackoff, Bans, ConnLimit, Descriptors, LogThrottle, PerSource, Prefixes, Sources},
    log::{AccessLines, AccessLog},
    metrics::Metrics,
    net,
    resolve::Resolver,
    route::{self, Random, Targets, TcpRoutes},
};

/// Interval of log messages about the same exhaustion.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Pipes may take one of so many descriptors.
const PART_OF_PIPES: usize = 8;

/// One configuration as TCP uses it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    settings: Tcp,
    limits: Arc<Limits>,
    /// Rates of source networks.
    rates: Option<Sources>,
    own: Own,
    routes: TcpRoutes,
    access_lines: AccessLines,
}

impl Snapshot {
    /// Compiles `config`; names begin to resolve.
    #[must_use]
    pub(crate) fn new(config: &Config, targets: &Targets, resolver: &Resolver) -> Self {
        Self {
            settings: config.tcp.clone(),
            limits: Limits::of(&config.tcp).into(),
            rates: config.tcp.new_connections.map(Sources::new),
            own: Own::new(&config.listen),
            routes: TcpRoutes::new(config, targets, resolver),
            access_lines: AccessLines::of(config),
        }
    }

    /// Returns whether a TCP connection has a destination, so that listening makes sense.
    #[must_use]
    pub(crate) fn has_destination(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Waits until every name has had its first answer, good or bad.
    pub(crate) async fn resolved(&self) {
        route::resolved(self.routes.endpoints()).await;
    }
}

/// State that all workers and all configurations share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The configuration in effect; a connection keeps the one that it began with.
    pub snapshot: ArcSwap<Snapshot>,
    /// Connections open now.
    pub active: Arc<ConnLimit>,
    /// Connections for which there are file descriptors.
    pub descriptors: Descriptors,
    /// Connections by source network.
    per_source: Arc<PerSource>,
    /// Networks that may not connect.
    bans: Arc<Bans>,
    metrics: Arc<Metrics>,
    access: AccessLog,
    started: Instant,
    random: Random,
    /// Hellos of Encrypted Client Hello that did not open, by network.
    failed_hellos: Prefixes,
    backoff: AcceptBackoff,
    said_too_many: LogThrottle,
    said_source: LogThrottle,
    said_reaching: LogThrottle,
    said_rule: LogThrottle,
    said_no_port: LogThrottle,
}

impl Shared {
    /// The state of a daemon that starts at `started` with `snapshot`.
    #[must_use]
    pub(crate) fn new(
        snapshot: Snapshot,
        bans: Arc<Bans>,
        metrics: Arc<Metrics>,
        access: AccessLog,
        started: Instant,
    ) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            active: Arc::default(),
            descriptors: Descriptors::new(),
            per_source: Arc::new(PerSource::new()),
            bans,
            metrics,
            access,
            started,
            random: Random::new(RandomState::new().hash_one(std::process::id())),
            failed_hellos: Prefixes::new(RandomState::new().hash_one(started)),
            backoff: AcceptBackoff::new(SAY_AGAIN),
            said_too_many: LogThrottle::new(SAY_AGAIN),
            said_source: LogThrottle::new(SAY_AGAIN),
            said_reaching: LogThrottle::new(SAY_AGAIN),
            said_rule: LogThrottle::new(SAY_AGAIN),
            said_no_port: LogThrottle::new(SAY_AGAIN),
        }
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
