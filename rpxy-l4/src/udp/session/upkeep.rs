//! What happens to sessions without a datagram: time passes, the configuration changes, sockets close, bans come.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::{
    Command, Output, SessionId, Sessions,
    decryption::Decryption,
    id,
    state::{Session, Stage},
};
use crate::{
    metrics::{DatagramDrop, SessionEnd},
    udp::Snapshot,
};

/// How long a ClientHello may take to arrive (a client repeats itself after 1 s, RFC 9002 section 6.2.2).
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the first addresses of a name may take.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

impl Sessions {
    /// Does what is due at `now`. `steered` tells when the kernel last forwarded something for a session that it steers.
    pub fn handle_timeout(&mut self, now: Duration, steered: impl Fn(SessionId) -> Option<Duration>, out: &mut Output) {
        self.make_wanted_room(now, out);
        while let Some(Reverse((at, session))) = self.deadlines.peek().copied() {
            if at > now {
                return;
            }
            self.deadlines.pop();
            let Some(state) = self.get_mut(session) else { continue };
            if let Some(seen) = state.steered.then(|| steered(session)).flatten() {
                state.last_seen = state.last_seen.max(seen);
            }
            // The kernel may have all that would show a handshake to be over, and a client may never go on with one.
            if state.ids.decryption().is_some_and(|decryption| decryption.until() <= now) {
                out.drop(DatagramDrop::Incomplete, state.ids.end_decryption());
            }
            match state.deadline() {
                None => {}
                Some(at) if at > now => self.deadlines.push(Reverse((at, session))),
                Some(_) => match state.stage {
                    Stage::Undecided(_) => self.end(session, SessionEnd::Idle, DatagramDrop::Incomplete, now, out),
                    Stage::Opening(_) => self.end(session, SessionEnd::Idle, DatagramDrop::Unreachable, now, out),
                    Stage::Open(_) => self.end(session, SessionEnd::Idle, DatagramDrop::Unreachable, now, out),
                },
            }
        }
    }

    /// When [`Sessions::handle_timeout`] has something to do next, if nothing else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// Goes on under another configuration: sessions whose rule and target are in it stay, others end.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>, now: Duration, out: &mut Output) {
        self.snapshot = snapshot;
        let ids: Vec<SessionId> = self.slab.iter().map(|(index, state)| id(index, state.generation)).collect();
        self.deadlines.clear();
        for session in ids {
            if !self.adopt(session) {
                self.end(session, SessionEnd::Withdrawn, DatagramDrop::Unreachable, now, out);
                continue;
            }
            let Some(state) = self.get(session) else { continue };
            let (steered, cid) = (state.steered, state.ids.current());
            if let Some(at) = state.deadline() {
                self.deadlines.push(Reverse((at, session)));
            }
            if steered {
                // Which datagrams may be steered depends on the rules.
                out.commands.push_back(Command::RevokeFlow { session });
                out.commands.push_back(Command::InstallFlow { session, cid });
            }
        }
    }

    /// Ends all sessions of a listening socket, or all that there are.
    pub fn handle_closed(&mut self, listener: Option<u32>, end: SessionEnd, now: Duration, out: &mut Output) {
        let of_it = |state: &Session| listener.is_none_or(|listener| state.flow.listener == listener);
        for session in self.those(of_it) {
            self.end(session, end, DatagramDrop::Unreachable, now, out);
        }
    }

    /// Ends the sessions of clients that are banned now.
    pub fn handle_bans(&mut self, now: Duration, out: &mut Output) {
        let bans = Arc::clone(&self.bans);
        for session in self.those(|state| bans.refuses(state.flow.client.ip())) {
            self.end(session, SessionEnd::Banned, DatagramDrop::Banned, now, out);
        }
    }

    fn those(&self, wanted: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        let wanted = self.slab.iter().filter(|(_, state)| wanted(state));
        wanted.map(|(index, state)| id(index, state.generation)).collect()
    }
}

impl Session {
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
}
