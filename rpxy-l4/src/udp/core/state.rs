//! One session, and where it stands.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rpxy_l4_proto::quic::InitialProbe;

use super::{
    Flow,
    decryption::Decryption,
    doubt::Doubt,
    evidence::{Evidence, Rank},
    held::{Held, Limit, OPENING, UNDECIDED},
    ids::Ids,
};
use crate::{
    config::model::LimitOf,
    limit::ConnPermit,
    log::Detail,
    route::{Busy, Datagrams, Tried, UdpRoute},
    udp::affinity::{Backend, Network, Owner},
};

/// A session. It holds no buffer, so that an idle one is small.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) flow: Flow,
    pub(super) ids: Ids,
    pub(super) born: Duration,
    /// The last datagram in either direction.
    pub(super) last_seen: Duration,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    pub(super) evidence: Evidence,
    /// What speaks against its backend.
    pub(super) doubt: Doubt,
    /// The backend that an earlier session of this client had to leave for this one.
    pub(super) left: Option<Box<SocketAddr>>,
    /// The kernel has been asked to steer it.
    pub(super) steered: bool,
    /// Counts it as one of `udp_max_connections`; `None` while undecided.
    pub(super) permit: Option<ConnPermit>,
    /// Counts it as one of its rule, likewise.
    pub(super) of_rule: Option<ConnPermit>,
    /// Whose limit that is.
    pub(super) limit_of: LimitOf,
    pub(super) stage: Stage,
}

/// The stage of a session.
#[derive(Debug)]
pub(super) enum Stage {
    /// QUIC whose ClientHello is not complete.
    Undecided(Box<PendingHello>),
    /// Routed; its socket is not connected yet.
    Opening(Box<Opening>),
    /// Datagrams flow.
    Open(Reached),
}

/// An incomplete hello, and the datagrams that brought it.
#[derive(Debug)]
pub(super) struct PendingHello {
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
    /// The client's address decides, whatever the rule's balancing is.
    pub(super) by_source: bool,
    pub(super) detail: Option<Box<Detail>>,
}

/// A destination.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) route: Arc<UdpRoute>,
    /// When its first datagrams went there.
    pub(super) since: Duration,
    pub(super) address: SocketAddr,
    /// Index of the target in the route's group.
    pub(super) target: usize,
    /// Counts it as the target's.
    pub(super) busy: Busy,
    /// Its backend in the affinity table, once there is something to learn.
    pub(super) owner: Option<Arc<Owner>>,
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
            flow,
            ids,
            born: now,
            last_seen: now,
            bytes_up: 0,
            bytes_down: 0,
            evidence: Evidence::default(),
            doubt: Doubt::default(),
            left: None,
            steered: false,
            permit: None,
            of_rule: None,
            limit_of: None,
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

    /// What counts it as its target's, once there is one.
    pub(super) fn busy(&self) -> Option<&Busy> {
        match &self.stage {
            Stage::Undecided(_) => None,
            Stage::Opening(opening) => opening.target.as_ref().map(|(_, busy)| busy),
            Stage::Open(reached) => Some(&reached.busy),
        }
    }

    /// The target that it goes to, as the file writes it, once there is one.
    pub(super) fn target(&self) -> Option<&Arc<str>> {
        let index = match &self.stage {
            Stage::Undecided(_) => None,
            Stage::Opening(opening) => opening.target.as_ref().map(|(target, _)| *target),
            Stage::Open(reached) => Some(reached.target),
        };
        Some(&self.route()?.group.endpoint(index?)?.text)
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

    /// Since when its backend is down by a check that ends sessions.
    pub(super) fn fallen_since(&self) -> Option<Duration> {
        let reached = self.reached()?;
        reached.route.group.endpoint(reached.target)?.fallen_since(reached.address)
    }

    pub(super) fn is_open(&self) -> bool {
        self.reached().is_some()
    }

    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.stage, Stage::Undecided(_))
    }

    /// What it carries; undecided ones can only become QUIC.
    pub(super) fn carries(&self) -> Datagrams {
        self.route().map_or(Datagrams::Quic, |route| route.carries)
    }

    /// When it has to be looked at; `None` is never.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let (from, limit) = match &self.stage {
            Stage::Undecided(_) => (self.born, Some(HELLO_TIMEOUT)),
            Stage::Opening(_) => (self.born, Some(RESOLVE_TIMEOUT)),
            Stage::Open(reached) => (self.last_seen, reached.route.idle),
        };
        let end = limit.map(|limit| from.saturating_add(limit));
        let decryption = self.ids.decryption().map(Decryption::until);
        end.into_iter().chain(decryption).min()
    }

    /// The network that its client is in.
    pub(super) fn network(&self) -> Network {
        self.flow.client.ip().into()
    }

    /// Its place in the order of giving way.
    pub(super) fn rank(&self) -> Rank {
        self.evidence.rank(self.ids.are_without_secret())
    }

    /// Returns whether it leads to that backend, or to the one that took its place.
    pub(super) fn leads_to(&self, backend: &Backend) -> bool {
        let address = self.reached().map(|reached| reached.address);
        let same = address == Some(backend.address) || self.left.as_deref() == Some(&backend.address);
        same && self.route().is_some_and(|route| route.rule == backend.rule)
    }

    /// Returns whether the kernel has it, so that its answers are not seen.
    pub(super) fn is_unheard(&self) -> bool {
        self.reached().is_some_and(|reached| reached.busy.is_unheard())
    }

    /// The kernel steers it no more; returns whether it had been asked to.
    pub(super) fn unsteer(&mut self) -> bool {
        if let Stage::Open(reached) = &mut self.stage {
            reached.busy.set_unheard(false);
        }
        std::mem::take(&mut self.steered)
    }
}

/// How long a ClientHello may take to arrive (a client repeats itself after 1 s, RFC 9002 section 6.2.2).
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the first addresses of a name may take.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
