//! From a rule to a backend: room for a session, its target, the addresses of that, and the next one when one cannot be reached.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    Command, Flow, Notice, Output, SessionId, Sessions, Started,
    ids::Ids,
    state::{Reached, Session, Stage},
};
use crate::{
    config::model::LimitOf,
    limit::ConnPermit,
    metrics::{Carried, DatagramDrop, SessionEnd},
    resolve::NOT_OFFERED,
    route::{self, Busy, Endpoint, Health, UdpRoute},
    udp::SessionLimit,
};

/// The place of a session that has yet to begin.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) permit: ConnPermit,
    /// Whose limit it is.
    pub(super) of: LimitOf,
    /// The place among those of its rule.
    pub(super) of_rule: ConnPermit,
}

/// Whether the limits of a rule hold for a session: not if its connection or tunnel is one that there is already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    Anew,
    Known,
}

impl Admitted {
    /// The session.
    pub(super) fn session(self, flow: Flow, ids: Ids, stage: Stage, now: Duration) -> Session {
        let (permit, of_rule) = (Some(self.permit), Some(self.of_rule));
        Session { permit, of_rule, limit_of: self.of, ..Session::new(flow, ids, stage, now) }
    }
}

impl Sessions {
    /// The socket of a session is connected.
    pub(crate) fn handle_opened(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        let Some(state) = self.table.get_mut(session) else { return };
        let Stage::Opening(opening) = &mut state.stage else { return };
        let (Some((target, busy)), Some(address)) = (opening.target.take(), opening.address) else { return };
        let datagrams = opening.held.take();
        let route = Arc::clone(&opening.route);
        let detail = opening.detail.take();
        let fixed = opening.fixed;
        let tried = std::mem::take(&mut opening.tried);
        let tried = if tried.is_empty() { None } else { Some(Box::new(tried)) };
        let carries = route.carries;
        state.last_seen = now;
        if carries != route::Datagrams::Any && !fixed {
            // It begins with a handshake.
            let _once = state.doubt.shook_hands(now);
        }
        state.bytes_up += datagrams.iter().map(|(datagram, _)| datagram.len() as u64).sum::<u64>();
        let endpoint = route.group.endpoint(target);
        let carried = endpoint.map(|endpoint| Carried::new(&route.account, &endpoint.account));
        let text = endpoint.map(|endpoint| Arc::clone(&endpoint.text)).unwrap_or_default();
        let started = Started {
            session,
            flow: state.flow,
            carries,
            target: text,
            destination: address,
            detail: detail.clone(),
            carried,
            resumed: None,
        };
        state.stage =
            Stage::Open(Reached { route, since: now, address, target, busy, fixed, owner: None, tried, detail });
        self.identity.remember_found(state, now);
        let deadline = state.deadline();
        self.deadlines.add(deadline, session, &self.table);
        out.commands.push_back(Command::Started(Box::new(started)));
        for (datagram, tos) in datagrams {
            out.commands.push_back(Command::Send { session, datagram, tos });
        }
    }

    /// The first addresses of a name have come, or not.
    pub(crate) fn handle_resolved(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        if self.table.get(session).is_some_and(|state| matches!(&state.stage, Stage::Opening(o) if o.address.is_none()))
        {
            self.use_target(session, true, now, out);
        }
    }

    /// Makes room for one more session of a rule on a flow. Where there is none, one whose client has shown less gives way:
    /// so forged addresses cannot keep real clients out.
    pub(super) fn admit(
        &mut self,
        flow: &Flow,
        route: &UdpRoute,
        begins: Begins,
        now: Duration,
        out: &mut Output,
    ) -> Result<Admitted, DatagramDrop> {
        let of_rule = self.place_of_rule(route, begins, now, out).ok_or(DatagramDrop::RuleConnections)?;
        let of = self.at(flow).sessions.of.clone();
        let admission = self.admissions.of(&of).ok_or(DatagramDrop::TooMany)?;
        if let Some(permit) = admission.acquire() {
            return Ok(Admitted { permit, of, of_rule });
        }
        let SessionLimit { most, active, .. } = admission.limit();
        out.commands.push_back(Command::Log(Notice::TooMany {
            max: *most,
            of: of.clone(),
            active: Arc::clone(active),
        }));
        if let Some(session) = admission.gives_way_to(&route.share, &self.table, now) {
            self.end(session, SessionEnd::Evicted, DatagramDrop::TooMany, now, out);
            // A lowered limit may still be exceeded.
            let permit = self.admissions.of(&of).and_then(|admission| admission.acquire());
            return permit.map(|permit| Admitted { permit, of, of_rule }).ok_or(DatagramDrop::TooMany);
        }
        admission.ask_others();
        Err(DatagramDrop::TooMany)
    }

    /// The place of a session among those of its rule.
    fn place_of_rule(
        &mut self,
        route: &UdpRoute,
        begins: Begins,
        now: Duration,
        out: &mut Output,
    ) -> Option<ConnPermit> {
        let most = route.max_connections.filter(|_| begins == Begins::Anew).map_or(u32::MAX, NonZeroU32::get);
        if let Some(place) = route.connections.acquire(most) {
            return Some(place);
        }
        let rule = route.rule.clone().unwrap_or_default();
        out.commands.push_back(Command::Log(Notice::RuleFull { rule, max: most }));
        match self.admissions.least_proven_of(&route.share, &|_| true, &self.table, now) {
            Some(session) => self.end(session, SessionEnd::Evicted, DatagramDrop::RuleConnections, now, out),
            // Another worker may have one; the client will ask again.
            None => route.connections.want(),
        }
        route.connections.acquire(most)
    }

    /// The place of a session at the only target that will do.
    pub(super) fn place_at(
        &mut self,
        route: &UdpRoute,
        target: usize,
        now: Duration,
        out: &mut Output,
    ) -> Option<Busy> {
        let endpoint = route.group.endpoint(target)?;
        let place = || Busy::within(&endpoint.health, endpoint.target.max_connections);
        place().or_else(|| {
            self.make_room_at(route, std::slice::from_ref(&endpoint.health), now, out);
            place()
        })
    }

    /// Ends the session at one of `targets` whose client has shown the least, of those of the rule of `route`. False where none
    /// has to give way.
    fn make_room_at(&mut self, route: &UdpRoute, targets: &[Arc<Health>], now: Duration, out: &mut Output) -> bool {
        let there =
            |session: &Session| session.busy().is_some_and(|busy| targets.iter().any(|target| busy.is_of(target)));
        let least = self.admissions.least_proven_of(&route.share, &there, &self.table, now);
        if let Some(session) = least {
            self.end(session, SessionEnd::Evicted, DatagramDrop::TargetConnections, now, out);
        }
        least.is_some()
    }

    /// Makes the room that other workers have asked for, as far as there is any.
    pub(super) fn make_wanted_room(&mut self, now: Duration, out: &mut Output) {
        for of in self.admissions.limits() {
            while let Some(admission) = self.admissions.of(&of).filter(|admission| admission.owes_room()) {
                let session = admission.least_proven(&self.table, now);
                admission.granted();
                let Some(session) = session else { break };
                self.end(session, SessionEnd::Evicted, DatagramDrop::TooMany, now, out);
            }
        }
    }

    /// The same for rules with limits of their own.
    pub(super) fn make_wanted_room_of_rules(&mut self, now: Duration, out: &mut Output) {
        for route in self.admissions.rules_that_owe_room() {
            route.connections.give();
            if let Some(session) = self.admissions.least_proven_of(&route.share, &|_| true, &self.table, now) {
                self.end(session, SessionEnd::Evicted, DatagramDrop::RuleConnections, now, out);
            }
        }
    }

    /// Tries the next address of the target, then the next target; ends the session when there is none.
    pub(super) fn try_next(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        let random = self.random();
        let Some(state) = self.table.get_mut(session) else { return };
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
        // Those that were tried, and those that have no room.
        let mut passed = opening.tried.clone();
        let next = loop {
            let next = match (opening.fixed, opening.by_source) {
                (true, _) => None,
                (false, true) => group.pick_by_source(client, now, &passed),
                (false, false) => group.pick(client, random, now, &passed),
            };
            let Some((index, endpoint)) = next.and_then(|index| Some((index, group.endpoint(index)?))) else {
                break None;
            };
            if let Some(busy) = Busy::within(&endpoint.health, endpoint.target.max_connections) {
                break Some((index, busy));
            }
            endpoint.health.unclaim(now);
            passed.add(index);
        };
        if let Some(target) = next {
            opening.target = Some(target);
            self.use_target(session, false, now, out);
            return;
        }
        let untried = |(index, _): &(usize, &Endpoint)| !opening.fixed && !opening.tried.holds(*index);
        let full = group.full(now).filter(untried).map(|(_, endpoint)| Arc::clone(&endpoint.health));
        let full: Vec<Arc<Health>> = full.collect();
        let unhealthy = group.only_healthy() && opening.tried.is_empty() && !opening.fixed;
        let route = Arc::clone(&opening.route);
        let reason = if !full.is_empty() {
            if self.make_room_at(&route, &full, now, out) {
                self.try_next(session, now, out);
                return;
            }
            DatagramDrop::TargetConnections
        } else if unhealthy {
            DatagramDrop::Unhealthy
        } else {
            DatagramDrop::Unreachable
        };
        self.end(session, SessionEnd::Refused, reason, now, out);
    }

    /// Finds the addresses of the chosen target.
    pub(super) fn use_target(&mut self, session: SessionId, settled: bool, now: Duration, out: &mut Output) {
        let (random, retry) = (self.random(), self.retry_of(session));
        let Some(state) = self.table.get_mut(session) else { return };
        let client = state.flow.client;
        let Stage::Opening(opening) = &mut state.stage else { return };
        let Some(endpoint) = opening.target.as_ref().and_then(|(target, _)| opening.route.group.endpoint(*target))
        else {
            return;
        };
        let mut has_none = |why: &dyn std::fmt::Display| {
            endpoint.account.connect_failed();
            endpoint.health.failed_because(&why);
            if endpoint.failed(now, retry) {
                let text = format!("{} cannot be reached: {why}; tried last for {retry:?}", endpoint.target);
                out.commands.push_back(Command::Log(Notice::Down(text)));
            }
        };
        if let Some(address) = endpoint.address() {
            match address {
                Ok(address) => opening.candidates = vec![address],
                Err(error) => has_none(&error),
            }
        } else if let Some(lookup) = endpoint.lookup() {
            match lookup.known() {
                Some(known) if known.is_empty() => has_none(&NOT_OFFERED),
                Some(known) => {
                    let untried = opening.tried.untried(known);
                    let tiers = opening.route.group.order(endpoint, &untried, client, random, now);
                    opening.candidates = tiers.into_iter().flatten().collect();
                }
                None if !settled => {
                    let lookup = lookup.clone();
                    opening.address = None;
                    out.commands.push_back(Command::Resolve { session, lookup });
                    return;
                }
                // The resolver says why.
                None => {
                    endpoint.account.connect_failed();
                    endpoint.health.failed_because(&"the name does not resolve");
                    let _said_by_resolver = endpoint.failed(now, retry);
                }
            }
        }
        self.try_next(session, now, out);
    }
}
