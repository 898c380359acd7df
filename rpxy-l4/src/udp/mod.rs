//! The UDP plane: datagrams are recognised, routed and relayed in sessions.
//!
//! [`session`] decides, without IO; [`Worker`] runs it: sockets, batches, logs. [`Snapshot`] is one configuration's
//! immutable view, replaced as a whole on reload; [`Shared`] is what all workers have in common and what outlives
//! reloads, [`affinity`] among it.

mod adopted;
pub mod affinity;
mod relay;
pub mod session;
mod steering;
mod worker;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use adopted::Adopted;
use affinity::Affinity;
pub use session::FlowLine;
pub use worker::{Control, Worker};

use crate::{
    config::model::{AccessLogFormat, Config, Udp},
    limit::{Bans, ConnLimit, LogThrottle, Sources},
    log::AccessLog,
    metrics::Metrics,
    offload::Offload,
    resolve::Resolver,
    route::{self, Targets, UdpRoutes},
};

/// How often the same shortage is spoken of.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// One configuration as the UDP plane uses it.
#[derive(Debug)]
pub struct Snapshot {
    settings: Udp,
    routes: UdpRoutes,
    /// Who may begin sessions; `None` where everybody may.
    sources: Option<Sources>,
    access_log_format: AccessLogFormat,
}

impl Snapshot {
    /// Compiles `config`; names begin to resolve.
    #[must_use]
    pub fn new(config: &Config, targets: &Targets, resolver: &Resolver) -> Self {
        Self {
            settings: config.udp.clone(),
            routes: UdpRoutes::new(config, targets, resolver),
            sources: config.udp.new_sessions.map(Sources::new),
            access_log_format: config.access_log_format,
        }
    }

    /// Whether a datagram has anywhere to go, so that listening makes sense.
    #[must_use]
    pub fn has_destination(&self) -> bool {
        !self.routes.is_empty()
    }

    /// How long connection IDs are remembered after their session.
    #[must_use]
    pub fn affinity_lifetime(&self) -> Duration {
        self.settings.quic_affinity_lifetime
    }

    /// Waits until every name has had its first answer, good or bad.
    pub async fn resolved(&self) {
        route::resolved(self.routes.endpoints()).await;
    }
}

/// What all workers and all configurations share.
#[derive(Debug)]
pub struct Shared {
    /// Sessions with a backend, or on their way to one.
    pub active: Arc<ConnLimit>,
    /// Which backend knows which connection.
    pub affinity: Arc<Affinity>,
    /// Whose datagrams are dropped.
    bans: Arc<Bans>,
    offload: Arc<dyn Offload>,
    /// Sessions that were taken over from an earlier daemon.
    adopted: Adopted,
    metrics: Arc<Metrics>,
    access: AccessLog,
    started: Instant,
    said_too_many: LogThrottle,
    said_no_port: LogThrottle,
    said_shortage: LogThrottle,
}

impl Shared {
    /// The state of a daemon that starts at `started` with `plane`.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        bans: Arc<Bans>,
        offload: Arc<dyn Offload>,
        metrics: Arc<Metrics>,
        access: AccessLog,
        started: Instant,
    ) -> Self {
        Self {
            active: Arc::default(),
            affinity: Arc::new(Affinity::new(snapshot.affinity_lifetime(), Arc::clone(&metrics))),
            bans,
            offload,
            adopted: Adopted::default(),
            metrics,
            access,
            started,
            said_too_many: LogThrottle::new(SAY_AGAIN),
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
