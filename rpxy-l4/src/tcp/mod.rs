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
mod probe;
mod record;
mod relay;
mod scratch;
mod timer;

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
pub(crate) use listener::accept;
use relay::Limits;

use crate::{
    config::model::{AccessLogFormat, Config, Tcp},
    limit::{AcceptBackoff, Bans, ConnLimit, LogThrottle, Prefixes},
    log::AccessLog,
    metrics::Metrics,
    resolve::Resolver,
    route::{self, Random, Targets, TcpRoutes},
};

/// Interval of log messages about the same exhaustion.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// One configuration as TCP uses it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    settings: Tcp,
    limits: Arc<Limits>,
    routes: TcpRoutes,
    access_log_format: AccessLogFormat,
}

impl Snapshot {
    /// Compiles `config`; names begin to resolve.
    #[must_use]
    pub(crate) fn new(config: &Config, targets: &Targets, resolver: &Resolver) -> Self {
        Self {
            settings: config.tcp.clone(),
            limits: Limits::of(&config.tcp).into(),
            routes: TcpRoutes::new(config, targets, resolver),
            access_log_format: config.access_log_format,
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
            bans,
            metrics,
            access,
            started,
            random: Random::new(RandomState::new().hash_one(std::process::id())),
            failed_hellos: Prefixes::new(RandomState::new().hash_one(started)),
            backoff: AcceptBackoff::new(SAY_AGAIN),
            said_too_many: LogThrottle::new(SAY_AGAIN),
            said_no_port: LogThrottle::new(SAY_AGAIN),
        }
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
