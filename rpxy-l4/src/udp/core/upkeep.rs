//! Events other than datagrams: time passes, the configuration changes, sockets close, networks are banned.

use std::{sync::Arc, time::Duration};

use super::{
    Command, Flow, Output, SessionId, Sessions, at,
    state::{Session, Stage},
};
use crate::{
    limit::DrainedListeners,
    metrics::{DatagramDrop, SessionEnd},
    udp::{Listener, Snapshot},
};

/// Slots looked through in one turn for sessions that the kernel steers: each found costs two system calls.
const REFRESHED_AT_ONCE: usize = 4096;
/// The same before datagrams while there is no room, so that what has to give way is judged by what it does now.
const REFRESHED_BEFORE: usize = 256;
/// Interval of that.
const REFRESH_AGAIN: Duration = Duration::from_millis(10);

/// Interval of looks at the rules that have limits of their own: there may be many.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What the kernel has forwarded for a session that it steers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forwarded {
    /// When it last forwarded something, in either direction.
    pub last: Duration,
    /// Times that the client can have spoken after the backend had, at most.
    pub turns: u64,
}

impl Sessions {
    /// Does what is due at `now`. `steered` returns what the kernel has forwarded for a session that it steers.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Duration,
        steered: impl Fn(SessionId) -> Option<Forwarded>,
        out: &mut Output,
    ) {
        let looks = now >= self.look_again;
        if looks {
            self.look_again = now.saturating_add(LOOK_AGAIN);
        }
        if self.admissions.are_filled(2) || (looks && self.admissions.rules_are_filled(2)) {
            self.refresh_steered(REFRESHED_AT_ONCE, now, &steered);
        }
        self.follow_names(now, out);
        self.make_wanted_room(now, out);
        if looks {
            self.make_wanted_room_of_rules(now, out);
        }
        while let Some(session) = self.deadlines.pop_due(now) {
            let Some(state) = self.table.get_mut(session) else { continue };
            if let Some(seen) = state.steered.then(|| steered(session)).flatten()
                && seen.last > state.last_seen
            {
                state.last_seen = seen.last;
                state.evidence.was_steered(seen.turns);
            }
            // The kernel may have all that would show a handshake to be over, and a client may never go on with one.
            if state.ids.decryption().is_some_and(|decryption| decryption.until() <= now) {
                out.discard(DatagramDrop::Incomplete, state.ids.end_decryption());
            }
            let deadline = state.deadline();
            if deadline.is_none_or(|at| at > now) {
                self.deadlines.add(deadline, session, &self.table);
                continue;
            }
            let reason = match state.stage {
                Stage::Undecided(_) => DatagramDrop::Incomplete,
                Stage::Opening(_) | Stage::Open(_) => DatagramDrop::Unreachable,
            };
            self.end(session, SessionEnd::Idle, reason, now, out);
        }
    }

    /// Learns of sessions that the kernel steers before a datagram may cost one of them its place. `steered` returns what
    /// the kernel has forwarded for a session.
    pub(crate) fn before_datagrams(&mut self, now: Duration, steered: impl Fn(SessionId) -> Option<Forwarded>) {
        if now >= self.refresh_again && self.admissions.are_filled(1) {
            self.refresh_again = now.saturating_add(REFRESH_AGAIN);
            self.refresh_steered(REFRESHED_BEFORE, now, steered);
        }
    }

    /// The kernel does not tell what it forwards. Before sessions have to give way, some of those that it steers are asked
    /// about, so that a busy one is not taken for one that has proved nothing.
    fn refresh_steered(&mut self, slots: usize, now: Duration, steered: impl Fn(SessionId) -> Option<Forwarded>) {
        for session in self.table.next_ids(&mut self.refreshed, slots, |state| state.steered) {
            let (seen, Some(state)) = (steered(session), self.table.get_mut(session)) else { continue };
            if let Some(seen) = seen.filter(|seen| seen.last > state.last_seen && seen.last <= now) {
                state.last_seen = seen.last;
                state.evidence.was_steered(seen.turns);
            }
        }
    }

    /// Receives from a socket of `listener` from now on, which has this number.
    pub(crate) fn handle_listening(&mut self, number: u32, listener: Arc<Listener>) {
        let slot = usize::try_from(number).unwrap_or(usize::MAX);
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, || Arc::clone(&self.snapshot.nowhere));
        }
        if let Some(socket) = self.sockets.get_mut(slot) {
            *socket = listener;
        }
        self.admissions.set_limits(&self.sockets);
    }

    /// Continues under another configuration, in which each socket belongs to one of `listeners`: sessions whose rule and
    /// target are in it stay, others end, and so do those of clients that their listener does not take any more.
    pub(crate) fn handle_snapshot(
        &mut self,
        snapshot: Arc<Snapshot>,
        listeners: Vec<Arc<Listener>>,
        now: Duration,
        out: &mut Output,
    ) {
        self.snapshot = snapshot;
        self.named.forget();
        self.sockets = listeners;
        self.admissions.set_limits(&self.sockets);
        let denied = self
            .table
            .ids(|state| at(&self.sockets, &self.snapshot, &state.flow).access.refuses(state.flow.client.ip()));
        for session in denied {
            self.end(session, SessionEnd::Denied, DatagramDrop::Denied, now, out);
        }
        for session in self.table.ids(|_| true) {
            if !self.rebind(session) {
                self.end(session, SessionEnd::Withdrawn, DatagramDrop::Unreachable, now, out);
                continue;
            }
            let Some(state) = self.table.get(session) else { continue };
            if state.steered {
                // Which datagrams may be steered depends on the rules.
                let cid = state.ids.current();
                out.commands.push_back(Command::RevokeFlow { session });
                out.commands.push_back(Command::InstallFlow { session, cid });
            }
        }
        self.deadlines.rebuild(&self.table);
    }

    /// Ends all sessions of a listening socket, or all that there are.
    pub(crate) fn handle_closed(&mut self, listener: Option<u32>, end: SessionEnd, now: Duration, out: &mut Output) {
        let of_it = |state: &Session| listener.is_none_or(|listener| state.flow.listener == listener);
        for session in self.table.ids(of_it) {
            self.end(session, end, DatagramDrop::Unreachable, now, out);
        }
    }

    /// Lets no new sessions begin at these listeners. Clients of known connections may still change their address.
    pub(crate) fn set_drained(&mut self, drained: Arc<DrainedListeners>) {
        self.drained = drained;
    }

    /// Returns whether no new session may begin on `flow`.
    pub(super) fn is_drained(&self, flow: &Flow) -> bool {
        self.drained.contains(&self.at(flow).name)
    }

    /// Ends a session because an operator wants it; returns whether there is such a session.
    pub(crate) fn handle_close(&mut self, session: SessionId, now: Duration, out: &mut Output) -> bool {
        let there = self.table.get(session).is_some();
        self.end(session, SessionEnd::Admin, DatagramDrop::Unreachable, now, out);
        there
    }

    /// Ends the sessions of clients that are banned now.
    pub(crate) fn handle_bans(&mut self, now: Duration, out: &mut Output) {
        let bans = Arc::clone(&self.bans);
        for session in self.table.ids(|state| bans.refuses(state.flow.client.ip())) {
            self.end(session, SessionEnd::Banned, DatagramDrop::Banned, now, out);
        }
    }

    /// Ends the sessions whose backend a check has found to be down since they began, where the check says so.
    pub(crate) fn handle_fallen(&mut self, now: Duration, out: &mut Output) {
        let fallen = |state: &Session| state.fallen_since().is_some_and(|since| since >= state.born);
        for session in self.table.ids(fallen) {
            self.end(session, SessionEnd::TargetDown, DatagramDrop::Unreachable, now, out);
        }
    }
}
