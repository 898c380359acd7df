//! Sessions that leave their backend: it refuses, it is silent, or its name has moved to another address.
//!
//! A backend that answers keeps its sessions. What one client meets moves that client alone; that its target is tried last
//! from now on takes a target that has not answered anybody meanwhile.

use std::{io, sync::Arc, time::Duration};

use super::{
    Command, Notice, Output, SessionId, Sessions,
    held::Held,
    state::{Opening, Session, Stage},
};
use crate::{
    metrics::{DatagramDrop, SessionEnd},
    resolve::Lookup,
    route::{Busy, Datagrams, Tried},
};

/// Slots looked through in one turn for sessions whose target's name has moved.
const COMPARED_AT_ONCE: usize = 4096;
/// How many of them move on in one turn: each costs system calls.
const FOLLOWED_AT_ONCE: usize = 256;
/// Time between two times that a session is taken back from the kernel, which costs system calls.
const TAKEN_BACK_AGAIN: Duration = Duration::from_secs(10);

/// Why a session leaves its backend.
#[derive(Debug, Clone, Copy)]
enum Cause<'a> {
    /// It refuses, and has never answered this client.
    RefusedAtOnce(&'a io::Error),
    /// It has refused for a while.
    Gone(&'a io::Error),
    /// It answers no handshakes.
    Silent,
    /// It is not where its name leads, and does not answer.
    NameMoved,
}

impl Sessions {
    /// An ICMP message or the kernel said that a session's backend cannot be reached. A session that was never answered moves
    /// on at once; another one when that goes on for a while, or when the target's name leads somewhere else.
    pub(crate) fn handle_refused(&mut self, session: SessionId, error: &io::Error, now: Duration, out: &mut Output) {
        let Some(state) = self.table.get_mut(session).filter(|state| state.is_open()) else { return };
        if state.is_unheard() {
            self.take_back(session, now, out);
            return;
        }
        let answered = state.evidence.is_answered();
        if state.doubt.refused(now) {
            self.move_on(session, Cause::Gone(error), now, out);
        } else if !answered {
            self.move_on(session, Cause::RefusedAtOnce(error), now, out);
        } else if state.has_left_name() {
            self.move_on(session, Cause::NameMoved, now, out);
        }
    }

    /// The client of a session begins a handshake, or repeats one. Returns the session that it goes on with.
    pub(super) fn handshake_on(&mut self, session: SessionId, now: Duration, out: &mut Output) -> SessionId {
        let Some(state) = self.table.get_mut(session).filter(|state| state.is_open()) else { return session };
        // Once its handshake was answered, a QUIC connection repeats parts of it for other reasons.
        let under_way = state.carries() == Datagrams::Quic && state.evidence.is_answered();
        if under_way || !state.doubt.shook_hands(now) {
            return session;
        }
        self.move_on(session, Cause::Silent, now, out).unwrap_or(session)
    }

    /// The kernel steers a session from now on, or does not.
    pub(crate) fn handle_installed(&mut self, session: SessionId, installed: bool) {
        if let Some(Stage::Open(reached)) = self.table.get_mut(session).map(|state| &mut state.stage) {
            reached.busy.set_unheard(installed);
        }
    }

    /// Looks through some sessions for those whose target's name leads elsewhere by now, and which are not answered.
    pub(super) fn follow_names(&mut self, now: Duration, out: &mut Output) {
        let wanted = |state: &Session| (state.is_unheard() || state.is_in_vain()) && state.has_left_name();
        let found = self.table.next_ids(&mut self.compared, COMPARED_AT_ONCE, wanted);
        // The rest is found again in the next round.
        for session in found.into_iter().take(FOLLOWED_AT_ONCE) {
            if self.table.get(session).is_some_and(Session::is_unheard) {
                self.take_back(session, now, out);
            } else {
                self.move_on(session, Cause::NameMoved, now, out);
            }
        }
    }

    /// Has the datagrams of a session come to the daemon again, to see whether it is answered; then the kernel gets it back.
    fn take_back(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        if let Some(state) = self.table.get_mut(session)
            && state.doubt.take_back(TAKEN_BACK_AGAIN, now)
            && state.unsteer()
        {
            out.commands.push_back(Command::RevokeFlow { session });
        }
    }

    /// Lets the client of a session go on with another address of its target, or with another target; `None` where there is
    /// none, or none that would know it.
    fn move_on(&mut self, session: SessionId, cause: Cause<'_>, now: Duration, out: &mut Output) -> Option<SessionId> {
        let retry = self.retry_of(session);
        let random = self.random();
        let state = self.table.get_mut(session)?;
        let (flow, since, answered) = (state.flow, state.doubt.since(), state.evidence.is_answered());
        let Stage::Open(reached) = &mut state.stage else { return None };
        let group = &reached.route.group;
        let endpoint = group.endpoint(reached.target)?;
        let mut tried = reached.tried.take().map(|tried| *tried).unwrap_or_default();
        tried.add_address(reached.address);
        let known = endpoint.lookup().and_then(Lookup::known);
        let has_others = known.is_some_and(|known| !tried.untried(known).is_empty());
        let at_once = matches!(cause, Cause::RefusedAtOnce(_));
        if at_once {
            endpoint.account.connect_failed();
        }
        let heard = !at_once && since.is_some_and(|since| endpoint.health.may_have_answered(since));
        if !heard {
            endpoint.missed(reached.address, now, retry);
        }
        if !has_others && !heard {
            let text = cause.describe();
            endpoint.health.failed_because(&text);
            if endpoint.failed(now, retry) {
                let text = format!("{} {text}; tried last for {retry:?}", endpoint.target);
                out.commands.push_back(Command::Log(Notice::Down(text)));
            }
        }
        if at_once && reached.fixed {
            return None;
        }
        let pick = |tried: &Tried| group.pick(flow.client, random, now, tried);
        let next = if has_others {
            Some(reached.target)
        } else {
            tried.add(reached.target);
            pick(&tried)
        };
        let next = match next {
            Some(next) => next,
            None if at_once => {
                reached.tried = Some(Box::new(tried));
                return None;
            }
            // All were tried: those that failed first may be back.
            None => {
                tried = Tried::default();
                tried.add(reached.target);
                let Some(next) = pick(&tried) else {
                    state.doubt.start_over();
                    return None;
                };
                next
            }
        };
        let busy = group.endpoint(next).map(|endpoint| Busy::new(&endpoint.health));
        let (route, left) = (Arc::clone(&reached.route), reached.address);
        let detail = reached.detail.take();
        let known_to_it = answered || reached.fixed;
        let (permit, of_rule, limit_of) = (state.permit.take(), state.of_rule.take(), state.limit_of.clone());
        let ids = if known_to_it { state.ids.anew() } else { std::mem::take(&mut state.ids) };
        let end = if at_once { SessionEnd::Refused } else { SessionEnd::Moved };
        self.end(session, end, DatagramDrop::Unreachable, now, out);
        let opening = Opening {
            route,
            held: Held::new(&self.opening_budget),
            tried,
            target: busy.map(|busy| (next, busy)),
            candidates: Vec::new(),
            address: None,
            fixed: false,
            by_source: false,
            detail,
        };
        let state = Session::new(flow, ids, Stage::Opening(Box::new(opening)), now);
        let session = self.insert(Session { permit, of_rule, limit_of, left: Some(Box::new(left)), ..state }, now, out);
        self.use_target(session, false, now, out);
        Some(session)
    }
}

impl Session {
    /// Returns whether its target is a name that no longer leads to its backend.
    fn has_left_name(&self) -> bool {
        let Some(reached) = self.reached() else { return false };
        let lookup = reached.route.group.endpoint(reached.target).and_then(|endpoint| endpoint.lookup());
        lookup.and_then(|lookup| lookup.leads_to(reached.address)) == Some(false)
    }

    /// Returns whether its client goes on without an answer. WireGuard may be silent for long, but answers handshakes.
    fn is_in_vain(&self) -> bool {
        match self.carries() {
            Datagrams::WireGuard => self.doubt.has_repeated_handshake(),
            Datagrams::Any | Datagrams::Quic => self.doubt.has_waited(),
        }
    }
}

impl Cause<'_> {
    fn describe(self) -> String {
        match self {
            Self::RefusedAtOnce(error) | Self::Gone(error) => format!("cannot be reached: {error}"),
            Self::Silent => "does not answer handshakes".to_owned(),
            Self::NameMoved => "does not answer at an address that its name has left".to_owned(),
        }
    }
}
