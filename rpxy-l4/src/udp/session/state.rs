//! One session, and where it stands.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rpxy_l4_proto::quic::InitialProbe;

use super::{
    Flow,
    held::{Held, Limit, OPENING, UNDECIDED},
    ids::Ids,
};
use crate::{
    limit::ConnPermit,
    log::Detail,
    route::{Busy, Tried, UdpRoute},
    udp::affinity::Backend,
};

/// A session. It holds no buffer, so that an idle one is small.
#[derive(Debug)]
pub(super) struct Session {
    /// Tells it from earlier ones in the same place.
    pub(super) generation: u32,
    pub(super) flow: Flow,
    pub(super) ids: Ids,
    pub(super) born: Duration,
    /// The last datagram in either direction.
    pub(super) last_seen: Duration,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    /// The backend has answered.
    pub(super) answered: bool,
    /// The client has sent an ID that only its server can have told it, so that its address is not forged.
    pub(super) confirmed: bool,
    /// The kernel has been asked to steer it.
    pub(super) steered: bool,
    /// Its place among the sessions that may be; `None` while undecided.
    pub(super) permit: Option<ConnPermit>,
    pub(super) stage: Stage,
}

/// How far a session has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// QUIC whose ClientHello is not complete.
    Undecided(Box<Undecided>),
    /// Routed; its socket is not connected yet.
    Opening(Box<Opening>),
    /// Datagrams flow.
    Open(Reached),
}

/// What is known of a hello.
#[derive(Debug)]
pub(super) struct Undecided {
    pub(super) probe: InitialProbe,
    pub(super) held: Held,
}

/// A destination being chosen.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) route: Arc<UdpRoute>,
    pub(super) held: Held,
    /// Targets that cannot be reached.
    pub(super) tried: Tried,
    /// Index of the target in its group, with its claim on it, once there is one.
    pub(super) target: Option<(usize, Busy)>,
    /// Further addresses of that target.
    pub(super) candidates: Vec<SocketAddr>,
    /// The address being tried.
    pub(super) address: Option<SocketAddr>,
    /// There is just this one backend: an earlier session's.
    pub(super) fixed: bool,
    pub(super) detail: Option<Box<Detail>>,
}

/// A destination.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) route: Arc<UdpRoute>,
    pub(super) address: SocketAddr,
    /// Index of the target in the route's group.
    pub(super) target: usize,
    /// Counts it as the target's, for `least_conn`.
    pub(super) _busy: Busy,
    /// For the affinity table, made when there is something to learn.
    pub(super) backend: Option<Arc<Backend>>,
    /// No other backend knows this connection.
    pub(super) fixed: bool,
    /// Targets that refused this client before, if any.
    pub(super) tried: Option<Box<Tried>>,
    /// For the access log of the next target, should this one refuse.
    pub(super) detail: Option<Box<Detail>>,
}

impl Session {
    pub(super) fn new(flow: Flow, ids: Ids, stage: Stage, now: Duration) -> Self {
        Self {
            generation: 0,
            flow,
            ids,
            born: now,
            last_seen: now,
            bytes_up: 0,
            bytes_down: 0,
            answered: false,
            confirmed: false,
            steered: false,
            permit: None,
            stage,
        }
    }

    /// The rule that it goes by; `None` while undecided.
    pub(super) fn route(&self) -> Option<&Arc<UdpRoute>> {
        match &self.stage {
            Stage::Undecided(_) => None,
            Stage::Opening(opening) => Some(&opening.route),
            Stage::Open(reached) => Some(&reached.route),
        }
    }

    /// The datagrams that wait, and how many may, if it is at a stage where they do.
    pub(super) fn held(&mut self) -> Option<(&mut Held, Limit)> {
        match &mut self.stage {
            Stage::Undecided(undecided) => Some((&mut undecided.held, UNDECIDED)),
            Stage::Opening(opening) => Some((&mut opening.held, OPENING)),
            Stage::Open(_) => None,
        }
    }

    pub(super) fn reached(&self) -> Option<&Reached> {
        match &self.stage {
            Stage::Open(reached) => Some(reached),
            Stage::Undecided(_) | Stage::Opening(_) => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.reached().is_some()
    }
}
