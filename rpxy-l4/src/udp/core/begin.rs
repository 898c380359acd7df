//! The beginning of a session: whether it may begin, and where.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Flow, Output, Sessions,
    classify::Arrival,
    held::{Held, OPENING},
    ids::Ids,
    open::Begins,
    state::{Opening, Stage},
};
use crate::{
    log::Detail,
    metrics::DatagramDrop,
    route::{self, Busy, Tried, UdpRoute},
    udp::affinity::Backend,
};

/// Datagrams with their type of service.
type Datagrams<'a> = &'a [(&'a [u8], u8)];

fn name_of(detail: Option<&Detail>) -> Option<&str> {
    detail.and_then(|detail| detail.server_name.as_deref())
}

/// A session that is about to begin.
struct Beginning<'a> {
    route: Arc<UdpRoute>,
    ids: Ids,
    first: Datagrams<'a>,
    detail: Option<Box<Detail>>,
    place: Place,
}

/// Where a session begins.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At a target that its rule chooses.
    Balanced,
    /// At the target that the client's address gives, whatever the rule's balancing is.
    BySource,
    /// At the one target that can know it.
    At(usize),
    /// At the one that knows it, and the address that it had.
    Known { target: usize, address: SocketAddr },
}

impl Place {
    fn begins(self) -> Begins {
        match self {
            Self::Balanced | Self::BySource | Self::At(_) => Begins::Anew,
            Self::Known { .. } => Begins::Known,
        }
    }
}

impl Sessions {
    /// Begins a session of `route` with its first datagrams.
    #[expect(clippy::too_many_arguments, reason = "a session's beginning has as many sides")]
    pub(super) fn start(
        &mut self,
        flow: &Flow,
        route: Arc<UdpRoute>,
        ids: Ids,
        first: Datagrams<'_>,
        detail: Option<Box<Detail>>,
        now: Duration,
        out: &mut Output,
    ) {
        let beginning = Beginning { route, ids, first, detail, place: Place::Balanced };
        let _begun = self.begin(flow, beginning, now, out);
    }

    /// Begins a session at the target that the client's address gives.
    pub(super) fn start_by_source(&mut self, arrival: Arrival<'_>, route: Arc<UdpRoute>, ids: Ids, out: &mut Output) {
        let _begun = self.begin_at(Place::BySource, arrival, route, ids, out);
    }

    /// Begins a session with the one target that can know it.
    pub(super) fn start_at(
        &mut self,
        arrival: Arrival<'_>,
        route: Arc<UdpRoute>,
        target: usize,
        ids: Ids,
        out: &mut Output,
    ) {
        let _begun = self.begin_at(Place::At(target), arrival, route, ids, out);
    }

    /// Begins a session with the backend that an earlier one of the same client had.
    pub(super) fn start_known(&mut self, arrival: Arrival<'_>, backend: &Backend, ids: Ids, out: &mut Output) {
        let Arrival { flow, .. } = arrival;
        let found = self.find_target(flow, backend).filter(|(route, _)| route.from.holds(flow.client.ip()));
        let Some((route, target)) = found else {
            // The configuration has changed since, or the client is where the rule does not take it.
            let carries =
                if matches!(ids, Ids::WireGuard(_)) { route::Datagrams::WireGuard } else { route::Datagrams::Quic };
            self.stray(arrival, carries, out);
            return;
        };
        let place = Place::Known { target, address: backend.address };
        if self.begin_at(place, arrival, route, ids, out) {
            self.identity.followed();
        }
    }

    /// Begins a session with one datagram, unless it is refused.
    fn begin_at(
        &mut self,
        place: Place,
        arrival: Arrival<'_>,
        route: Arc<UdpRoute>,
        ids: Ids,
        out: &mut Output,
    ) -> bool {
        let Arrival { flow, datagram, tos, now } = arrival;
        let first = &[(datagram, tos)];
        self.begin(flow, Beginning { route, ids, first, detail: None, place }, now, out)
    }

    /// Begins a session, unless it is refused.
    fn begin(&mut self, flow: &Flow, beginning: Beginning<'_>, now: Duration, out: &mut Output) -> bool {
        let Beginning { route, ids, first, detail, place } = beginning;
        let count = first.len() + ids.waiting();
        if let Some(reason) = self.refusal(flow, place, now) {
            out.refuse_of(&route, flow, name_of(detail.as_deref()), reason, count);
            return false;
        }
        let admitted = match self.admit(flow, &route, place.begins(), now, out) {
            Ok(admitted) => admitted,
            Err(reason) => {
                out.refuse_of(&route, flow, name_of(detail.as_deref()), reason, count);
                return false;
            }
        };
        let busy = match place {
            Place::Balanced | Place::BySource => None,
            Place::At(target) => match self.place_at(&route, target, now, out) {
                Some(busy) => Some((target, busy)),
                None => {
                    out.refuse_of(&route, flow, None, DatagramDrop::TargetConnections, count);
                    return false;
                }
            },
            Place::Known { target, .. } => {
                route.group.endpoint(target).map(|endpoint| (target, Busy::new(&endpoint.health)))
            }
        };
        let mut opening = self.opening(route, first, detail, out);
        opening.by_source = matches!(place, Place::BySource);
        opening.fixed = matches!(place, Place::At(_) | Place::Known { .. });
        opening.target = busy;
        if let Place::Known { address, .. } = place {
            opening.candidates = vec![address];
        }
        let session = self.insert(admitted.session(*flow, ids, Stage::Opening(Box::new(opening)), now), now, out);
        if matches!(place, Place::At(_)) {
            self.use_target(session, false, now, out);
        } else {
            self.try_next(session, now, out);
        }
        true
    }

    /// Why a client may not begin a session now, whatever room there is. What comes back to where it was known has a limit
    /// of its own, so that forged beginnings do not use up what a network may begin.
    fn refusal(&mut self, flow: &Flow, place: Place, now: Duration) -> Option<DatagramDrop> {
        let client = flow.client.ip();
        match place {
            Place::At(_) | Place::Known { .. } => {
                (!self.arrivals.allow(client, now)).then_some(DatagramDrop::RateLimited)
            }
            Place::Balanced | Place::BySource if self.is_drained(flow) => Some(DatagramDrop::Drained),
            Place::Balanced | Place::BySource => {
                let limited = self.at(flow).sources.as_ref().is_some_and(|sources| !sources.allow(client, now));
                limited.then_some(DatagramDrop::SourceLimited)
            }
        }
    }

    fn opening(
        &mut self,
        route: Arc<UdpRoute>,
        first: Datagrams<'_>,
        detail: Option<Box<Detail>>,
        out: &mut Output,
    ) -> Opening {
        let mut held = Held::new(&self.opening_budget);
        for (datagram, tos) in first {
            let given_up = held.push(datagram, *tos, OPENING);
            out.discard(DatagramDrop::Overflow, given_up);
        }
        let (tried, candidates) = (Tried::default(), Vec::new());
        Opening { route, held, tried, target: None, candidates, address: None, fixed: false, by_source: false, detail }
    }
}
