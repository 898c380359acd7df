//! From a rule to a backend: which target, which of its addresses, and what comes next when one cannot be had.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Command, Flow, Notice, OpenError, Output, SessionId, Sessions, Started,
    held::{Held, OPENING},
    ids::Ids,
    place::Arrival,
    state::{Opening, Reached, Session, Stage},
};
use crate::{
    limit::Permit,
    log::Detail,
    metrics::{DatagramDrop, SessionEnd},
    route::{Busy, Datagrams, Tried, UdpRoute},
    udp::affinity::Backend,
};

/// How long a session must have been quiet to make room for a new one.
const QUIET: Duration = Duration::from_secs(5);
/// How soon the quiet ones are looked through again.
const QUIET_AGAIN: Duration = Duration::from_millis(10);

/// Datagrams with their ECN bits.
type First<'a> = &'a [(&'a [u8], u8)];

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
}

impl Sessions {
    /// Begins a session of `route` with its first datagrams.
    #[expect(clippy::too_many_arguments, reason = "a session's beginning has as many sides")]
    pub(super) fn start(
        &mut self,
        flow: &Flow,
        route: Arc<UdpRoute>,
        ids: Ids,
        first: First<'_>,
        detail: Option<Box<Detail>>,
        now: Duration,
        out: &mut Output,
    ) {
        if self.plane.sources.as_ref().is_some_and(|sources| !sources.allow(flow.client.ip(), now)) {
            out.drop(DatagramDrop::SourceLimited, first.len());
            return;
        }
        let Some(permit) = self.admit(now, out) else {
            out.drop(DatagramDrop::TooMany, first.len());
            return;
        };
        let opening = self.opening(route, first, detail, out);
        self.begin(flow, ids, opening, permit, now, out);
    }

    /// Begins a session with the backend that an earlier one of the same client had.
    pub(super) fn start_known(&mut self, arrival: Arrival<'_>, backend: &Arc<Backend>, ids: Ids, out: &mut Output) {
        let Arrival { flow, datagram, ecn, now } = arrival;
        let Some((route, target)) = self.find_target(backend) else {
            // The configuration has changed since.
            self.orphan(arrival, out);
            return;
        };
        if !self.arrivals.allow(flow.client.ip(), now) {
            out.drop(DatagramDrop::RateLimited, 1);
            return;
        }
        let Some(permit) = self.admit(now, out) else {
            out.drop(DatagramDrop::TooMany, 1);
            return;
        };
        self.affinity.followed();
        let busy = route.group.endpoint(target).map(|endpoint| Busy::new(&endpoint.health));
        let mut opening = self.opening(route, &[(datagram, ecn)], None, out);
        opening.fixed = true;
        opening.target = busy.map(|busy| (target, busy));
        opening.candidates = vec![backend.address];
        self.begin(flow, ids, opening, permit, now, out);
    }

    /// The socket of a session is connected.
    pub fn handle_opened(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        let Some(state) = self.slab.get_mut(super::place(session)) else { return };
        if state.generation != session.generation {
            return;
        }
        let Stage::Opening(opening) = &mut state.stage else { return };
        let (Some((target, busy)), Some(address)) = (opening.target.take(), opening.address) else { return };
        let datagrams = opening.held.take(&mut self.opening_budget);
        let route = Arc::clone(&opening.route);
        let detail = opening.detail.take();
        let fixed = opening.fixed;
        let tried = std::mem::take(&mut opening.tried);
        let tried = if tried.is_empty() { None } else { Some(Box::new(tried)) };
        let carries = route.carries;
        state.last_seen = now;
        state.bytes_up += datagrams.iter().map(|(datagram, _)| datagram.len() as u64).sum::<u64>();
        let started = Started { session, flow: state.flow, carries, destination: address, detail: detail.clone() };
        state.stage = Stage::Open(Reached { route, address, target, _busy: busy, fixed, backend: None, tried, detail });
        let deadline = state.deadline();
        self.expect(deadline, session);
        out.commands.push_back(Command::Started(Box::new(started)));
        for (datagram, ecn) in datagrams {
            out.commands.push_back(Command::Send { session, datagram, ecn });
        }
        self.hold_known_ids(session, now);
        self.unconfirmed.push_back(session);
        self.tidy_unconfirmed();
    }

    /// The socket of a session could not be connected to the address asked for.
    pub fn handle_open_failed(&mut self, session: SessionId, error: OpenError, now: Duration, out: &mut Output) {
        let retry = self.plane.settings.target_retry;
        let Some(state) = self.get_mut(session) else { return };
        let Stage::Opening(opening) = &mut state.stage else { return };
        let endpoint = opening.target.as_ref().and_then(|(target, _)| opening.route.group.endpoint(*target));
        let reason = match error {
            OpenError::Unreachable(error) => {
                if opening.candidates.is_empty()
                    && let Some(endpoint) = endpoint
                    && endpoint.health.failed(now, retry)
                {
                    out.commands.push_back(Command::Say(Notice::Down(format!(
                        "{} cannot be reached: {error}; tried last for {retry:?}",
                        endpoint.target
                    ))));
                }
                self.try_next(session, now, out);
                return;
            }
            OpenError::NoPort(error) => {
                let target = endpoint.map(|endpoint| endpoint.target.to_string()).unwrap_or_default();
                out.commands.push_back(Command::Say(Notice::NoPort { what: format!("{target} from: {error}") }));
                DatagramDrop::NoPort
            }
            OpenError::Shortage(error) => {
                out.commands.push_back(Command::Say(Notice::Shortage(error)));
                DatagramDrop::Shortage
            }
        };
        // What is short here says nothing of the target.
        if let Some(endpoint) = endpoint {
            endpoint.health.unclaim(now);
        }
        self.end(session, SessionEnd::Refused, reason, now, out);
    }

    /// The first addresses of a name have come, or not.
    pub fn handle_resolved(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        if self.get(session).is_some_and(|state| matches!(&state.stage, Stage::Opening(o) if o.address.is_none())) {
            self.use_target(session, true, now, out);
        }
    }

    /// An ICMP message or the kernel said that a session's backend cannot be reached. Evidence against a target that
    /// has not answered this client: the session goes on with the next one, if there is one. Otherwise it just goes on.
    pub fn handle_refused(&mut self, session: SessionId, error: &std::io::Error, now: Duration, out: &mut Output) {
        let retry = self.plane.settings.target_retry;
        let random = self.random();
        let Some(state) = self.get_mut(session) else { return };
        if state.answered {
            return;
        }
        let flow = state.flow;
        let Stage::Open(reached) = &mut state.stage else { return };
        let group = &reached.route.group;
        let Some(endpoint) = group.endpoint(reached.target) else { return };
        if endpoint.health.failed(now, retry) {
            let text = format!("{} cannot be reached: {error}; tried last for {retry:?}", endpoint.target);
            out.commands.push_back(Command::Say(Notice::Down(text)));
        }
        if reached.fixed {
            return;
        }
        let mut tried = reached.tried.take().map(|tried| *tried).unwrap_or_default();
        tried.add(reached.target);
        let Some(next) = group.pick(flow.client, random, now, &tried) else {
            reached.tried = Some(Box::new(tried));
            return;
        };
        let busy = group.endpoint(next).map(|endpoint| Busy::new(&endpoint.health));
        let route = Arc::clone(&reached.route);
        let detail = reached.detail.take();
        let permit = state.permit.take();
        let ids = std::mem::take(&mut state.ids);
        self.end(session, SessionEnd::Refused, DatagramDrop::Unreachable, now, out);
        let opening = Opening {
            route,
            held: Held::default(),
            tried,
            target: busy.map(|busy| (next, busy)),
            candidates: Vec::new(),
            address: None,
            fixed: false,
            detail,
        };
        let state = Session { permit, ..Session::new(flow, ids, Stage::Opening(Box::new(opening)), now) };
        let session = self.insert(state, now, out);
        self.use_target(session, false, now, out);
    }

    /// What the affinity table shall know of a session's backend; the same value for all its IDs.
    pub(super) fn backend(&mut self, session: SessionId) -> Option<Arc<Backend>> {
        let Stage::Open(reached) = &mut self.get_mut(session)?.stage else { return None };
        if reached.backend.is_none() {
            let target = reached.route.group.endpoint(reached.target)?.target.clone();
            let rule = reached.route.rule.clone();
            reached.backend = Some(Arc::new(Backend { rule, target, address: reached.address }));
        }
        reached.backend.clone()
    }

    /// The session that a flow has with that backend already.
    pub(super) fn session_with(&self, flow: &Flow, backend: &Backend) -> Option<SessionId> {
        let same = |id: &SessionId| {
            let reached = self.get(*id).and_then(Session::reached);
            reached.is_some_and(|reached| reached.address == backend.address && reached.route.rule == backend.rule)
        };
        self.flows.get(flow)?.all().find(same)
    }

    /// Binds a session to the configuration in effect; false when its rule or its target is gone.
    pub(super) fn adopt(&mut self, session: SessionId) -> bool {
        let Some(state) = self.slab.get_mut(super::place(session)) else { return false };
        let (route, target) = match &mut state.stage {
            Stage::Undecided(_) => return true,
            Stage::Opening(opening) => {
                let target = opening.target.as_mut().map(|(target, _)| target);
                (&mut opening.route, target)
            }
            Stage::Open(reached) => (&mut reached.route, Some(&mut reached.target)),
        };
        let Some(new) = self.plane.routes.named(route.rule.as_deref()) else { return false };
        if new.carries != route.carries {
            return false;
        }
        if let Some(index) = target {
            let Some(old) = route.group.endpoint(*index) else { return false };
            let Some(found) = new.group.position(&old.target) else { return false };
            *index = found;
        }
        *route = Arc::clone(new);
        // Their places in the group may be others now.
        match &mut state.stage {
            Stage::Undecided(_) => {}
            Stage::Opening(opening) => opening.tried = Tried::default(),
            Stage::Open(reached) => reached.tried = None,
        }
        true
    }

    fn find_target(&self, backend: &Backend) -> Option<(Arc<UdpRoute>, usize)> {
        let route = self.plane.routes.named(backend.rule.as_deref())?;
        Some((Arc::clone(route), route.group.position(&backend.target)?))
    }

    fn opening(
        &mut self,
        route: Arc<UdpRoute>,
        first: First<'_>,
        detail: Option<Box<Detail>>,
        out: &mut Output,
    ) -> Opening {
        let mut held = Held::default();
        for (datagram, ecn) in first {
            let given_up = held.push(datagram, *ecn, OPENING, &mut self.opening_budget);
            out.drop(DatagramDrop::Overflow, given_up);
        }
        let (tried, candidates) = (Tried::default(), Vec::new());
        Opening { route, held, tried, target: None, candidates, address: None, fixed: false, detail }
    }

    fn begin(&mut self, flow: &Flow, ids: Ids, opening: Opening, permit: Permit, now: Duration, out: &mut Output) {
        let stage = Stage::Opening(Box::new(opening));
        let state = Session { permit: Some(permit), ..Session::new(*flow, ids, stage, now) };
        let session = self.insert(state, now, out);
        self.try_next(session, now, out);
    }

    /// Tries the next address of the target, then the next target; ends the session when there is none.
    fn try_next(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        let random = self.random();
        let Some(state) = self.get_mut(session) else { return };
        let client = state.flow.client;
        let Stage::Opening(opening) = &mut state.stage else { return };
        if !opening.candidates.is_empty() {
            let address = opening.candidates.remove(0);
            opening.address = Some(address);
            out.commands.push_back(Command::Open { session, address });
            return;
        }
        if let Some((target, _)) = opening.target.take() {
            opening.tried.add(target);
        }
        let group = &opening.route.group;
        let next = if opening.fixed { None } else { group.pick(client, random, now, &opening.tried) };
        let busy = next.and_then(|next| Some((next, Busy::new(&group.endpoint(next)?.health))));
        let Some(target) = busy else {
            self.end(session, SessionEnd::Refused, DatagramDrop::Unreachable, now, out);
            return;
        };
        opening.target = Some(target);
        self.use_target(session, false, now, out);
    }

    /// Finds the addresses of the chosen target.
    fn use_target(&mut self, session: SessionId, settled: bool, now: Duration, out: &mut Output) {
        let (random, retry) = (self.random(), self.plane.settings.target_retry);
        let Some(state) = self.get_mut(session) else { return };
        let client = state.flow.client;
        let Stage::Opening(opening) = &mut state.stage else { return };
        let Some(endpoint) = opening.target.as_ref().and_then(|(target, _)| opening.route.group.endpoint(*target))
        else {
            return;
        };
        if let Some(address) = endpoint.target.literal() {
            opening.candidates = vec![address];
        } else if let Some(name) = endpoint.name() {
            match name.known() {
                Some(known) => {
                    let port = endpoint.target.port;
                    let ordered = opening.route.group.order(&known, client, random);
                    opening.candidates = ordered.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
                }
                None if !settled => {
                    let name = Arc::clone(name);
                    opening.address = None;
                    out.commands.push_back(Command::Resolve { session, name });
                    return;
                }
                // The resolver says why.
                None => drop(endpoint.health.failed(now, retry)),
            }
        }
        self.try_next(session, now, out);
    }

    /// Room for one more session. Where there is none, one whose client has never shown that it receives gives way:
    /// so forged addresses cannot keep real clients out.
    fn admit(&mut self, now: Duration, out: &mut Output) -> Option<Permit> {
        let max = self.plane.settings.max_connections.get();
        if let Some(permit) = self.active.acquire(max) {
            return Some(permit);
        }
        out.commands.push_back(Command::Say(Notice::TooMany { max }));
        if self.evict(now, out) {
            // A lowered limit may still be exceeded.
            return self.active.acquire(max);
        }
        // Another worker may have one; the client will ask again.
        self.active.want();
        None
    }

    /// Makes the room that other workers have asked for, as far as there is any.
    pub(super) fn make_wanted_room(&mut self, now: Duration, out: &mut Output) {
        while self.active.is_wanted() {
            if self.active.count() < self.plane.settings.max_connections.get() || !self.evict(now, out) {
                // There is room by now, or whoever asked has to ask again.
                self.active.give();
                return;
            }
            self.active.give();
        }
    }

    /// Ends a session that is worth less than a new one: the oldest whose client has never shown that it receives, or,
    /// since most protocols show nothing, the one that has been quiet for the longest.
    fn evict(&mut self, now: Duration, out: &mut Output) -> bool {
        while let Some(oldest) = self.unconfirmed.pop_front() {
            let Some(state) = self.get(oldest).filter(|state| !state.confirmed) else { continue };
            if self.carries(oldest) == Some(Datagrams::Any) && state.answered {
                self.quiet.push(oldest);
                continue;
            }
            self.end(oldest, SessionEnd::Evicted, DatagramDrop::TooMany, now, out);
            return true;
        }
        self.evict_quiet(now, out)
    }

    /// Of those whose protocol shows nothing. To find it costs a look at each, so that is not done for every datagram.
    fn evict_quiet(&mut self, now: Duration, out: &mut Output) -> bool {
        if now < self.quiet_again {
            return false;
        }
        self.quiet_again = now.saturating_add(QUIET_AGAIN);
        let slab = &self.slab;
        let seen = |id: &SessionId| {
            let state = slab.get(super::place(*id)).filter(|state| state.generation == id.generation)?;
            Some(state.last_seen)
        };
        self.quiet.retain(|id| seen(id).is_some());
        let quiet = |id: &SessionId| seen(id).filter(|seen| seen.saturating_add(QUIET) <= now);
        let longest = self.quiet.iter().filter_map(|id| Some((quiet(id)?, *id))).min();
        let Some((_, session)) = longest else { return false };
        self.end(session, SessionEnd::Evicted, DatagramDrop::TooMany, now, out);
        true
    }

    /// Entries of sessions that are over or confirmed go when they are the majority.
    fn tidy_unconfirmed(&mut self) {
        if self.unconfirmed.len() > 2 * self.slab.len() + 64 {
            let slab = &self.slab;
            let live = |id: &SessionId| {
                slab.get(super::place(*id)).is_some_and(|state| state.generation == id.generation && !state.confirmed)
            };
            self.unconfirmed.retain(live);
        }
    }
}
