//! UDP: datagrams are recognised, routed and relayed in sessions.
//!
//! [`core`] decides, without IO; [`io`] runs it on the threads of its [`Worker`]s, which are told through their
//! [`mailbox`]. [`Snapshot`] is one configuration's
//! immutable view, replaced as a whole on reload; [`Shared`] is what all workers have in common and what outlives
//! reloads, [`affinity`] among it.

pub(crate) mod affinity;
pub(crate) mod core;
mod inherited;
mod io;
mod mailbox;
mod own;

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use self::core::FlowLine;
#[cfg(any(test, feature = "properties"))]
pub use self::core::udp_core;
use affinity::Affinity;
use inherited::InheritedSessions;
pub(crate) use io::Worker;
pub(crate) use mailbox::Control;
use own::OwnPorts;

use crate::{
    config::model::{Config, Udp},
    limit::{Bans, ConnLimit, LogThrottle, Sources},
    log::{AccessLines, AccessLog},
    metrics::Metrics,
    net,
    offload::Offload,
    resolve::Resolver,
    route::{self, Targets, UdpRoutes},
};

/// Interval between log messages of the same kind.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Sessions at once where nobody has said how many the machine has room for.
const FEW_SESSIONS: u32 = 1024;

/// One configuration as UDP uses it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    settings: Udp,
    /// Sessions at once, over all workers.
    max_sessions: u32,
    routes: UdpRoutes,
    /// Limits of new sessions by source; `None` where there are none.
    sources: Option<Sources>,
    access_lines: AccessLines,
}

impl Snapshot {
    /// Compiles `config`; names begin to resolve.
    #[must_use]
    pub(crate) fn new(config: &Config, targets: &Targets, resolver: &Resolver) -> Self {
        Self {
            settings: config.udp.clone(),
            max_sessions: config.udp.max_connections.map_or(FEW_SESSIONS, NonZeroU32::get),
            routes: UdpRoutes::new(config, targets, resolver),
            sources: config.udp.new_sessions.map(Sources::new),
            access_lines: AccessLines::of(config),
        }
    }

    /// Returns whether a datagram has anywhere to go, so that listening makes sense.
    #[must_use]
    pub(crate) fn has_destination(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Receive buffer of listening sockets, in bytes.
    fn receive_buffer(&self) -> u32 {
        self.settings.receive_buffer.map_or(net::udp::LISTENER_BUFFER, NonZeroU32::get)
    }

    /// Time for which connection IDs are remembered after their session.
    #[must_use]
    pub(crate) fn affinity_lifetime(&self) -> Duration {
        self.settings.quic_affinity_lifetime
    }

    /// Waits until every name has had its first answer, good or bad.
    pub(crate) async fn resolved(&self) {
        route::resolved(self.routes.endpoints()).await;
    }
}

/// State that all workers and all snapshots share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Sessions with a backend, or on their way to one.
    pub active: Arc<ConnLimit>,
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
    said_too_many: LogThrottle,
    said_no_port: LogThrottle,
    said_shortage: LogThrottle,
}

impl Shared {
    /// The state of a daemon that starts at `started` with `plane`.
    #[must_use]
    pub(crate) fn new(
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
            inherited: InheritedSessions::default(),
            ports: Arc::default(),
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
