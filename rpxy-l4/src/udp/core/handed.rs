//! Sessions on their way from this process to its successor, which goes on with them where they stand.
//!
//! An open session goes with all that it knows. What waits for a decision goes as the datagrams that it holds, which the
//! successor takes as if they had just arrived. What is lost: a decrypted handshake under way, and what the affinity table
//! remembers of sessions that are over. It errs towards not taking over: then the session is over, and its client begins
//! anew.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Command, Flow, Output, SessionId, Sessions, Started,
    ids::{HandedIds, Ids},
    open::Admitted,
    state::{Reached, Stage},
};
use crate::{log::Detail, metrics::Carried, route::Busy, udp::affinity::Key};

/// A session, but for its client's end and its socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HandedSession {
    /// The backend.
    pub backend: SocketAddr,
    /// Its rule (`UdpRoute::mark`).
    mark: u16,
    fixed: bool,
    ids: HandedIds,
    age: Duration,
    idle: Duration,
    bytes_up: u64,
    bytes_down: u64,
    evidence: super::evidence::Evidence,
    detail: Option<Box<Detail>>,
    /// Of the detail.
    ech: Option<String>,
}

impl HandedSession {
    /// Adds what the kernel had forwarded.
    pub(crate) fn add_steered(&mut self, up: u64, down: u64) {
        self.bytes_up += up;
        self.bytes_down += down;
    }
}

impl Sessions {
    /// What is handed over, in an order in which the latest session of a flow is the last.
    pub(crate) fn to_hand_over(&self) -> Vec<SessionId> {
        self.table.by_flow().collect()
    }

    /// Takes all sessions back from the kernel, so that their datagrams wait in the daemon's sockets.
    pub(crate) fn handle_freeze(&mut self, out: &mut Output) {
        for session in self.to_hand_over() {
            self.unsteer(session, out);
        }
    }

    /// They stay: the kernel may have them again.
    pub(crate) fn handle_thaw(&mut self, out: &mut Output) {
        for session in self.to_hand_over() {
            self.steer(session, out);
        }
    }

    /// An open session as its successor gets it.
    pub(crate) fn handed(&self, session: SessionId, now: Duration) -> Option<HandedSession> {
        let state = self.table.get(session)?;
        let reached = state.reached()?;
        Some(HandedSession {
            backend: reached.address,
            mark: reached.route.mark(),
            fixed: reached.fixed,
            ids: state.ids.handed(),
            age: now.saturating_sub(state.born),
            idle: now.saturating_sub(state.last_seen),
            bytes_up: state.bytes_up,
            bytes_down: state.bytes_down,
            evidence: state.evidence.handed(now),
            detail: reached.detail.clone(),
            ech: reached.detail.as_ref().and_then(|detail| detail.ech).map(str::to_owned),
        })
    }

    /// Copies of the datagrams that a session holds until it is decided, each with its type of service.
    pub(crate) fn held_datagrams(&mut self, session: SessionId) -> Vec<(Box<[u8]>, u8)> {
        let held = self.table.get_mut(session).and_then(|state| state.held().map(|(held, _)| held.copies()));
        held.unwrap_or_default()
    }

    /// Goes on with a session of a predecessor on `flow`. `None` when the configuration gives it no place any more.
    pub(crate) fn take_over(
        &mut self,
        handed: &HandedSession,
        flow: Flow,
        now: Duration,
        out: &mut Output,
    ) -> Option<SessionId> {
        if self.refuses(&flow).is_some() {
            return None;
        }
        let (route, target) = self.at(&flow).routes.marked(handed.mark, handed.backend)?;
        let endpoint = route.group.endpoint(target)?;
        let (busy, carried) = (Busy::new(&endpoint.health), Carried::new(&route.account, &endpoint.account));
        let text = Arc::clone(&endpoint.text);
        let of = self.at(&flow).sessions.of.clone();
        let of_rule = route.connections.acquire(u32::MAX)?;
        let admitted = Admitted { permit: self.admissions.of(&of)?.acquire()?, of, of_rule };
        let HandedSession { backend, fixed, detail, ech, .. } = handed;
        let detail = detail.as_ref().map(|detail| Box::new(Detail::clone(detail).with_ech_named(ech.as_deref())));
        let carries = route.carries;
        let reached = Reached {
            route,
            since: now,
            address: *backend,
            target,
            busy,
            owner: None,
            fixed: *fixed,
            tried: None,
            detail: detail.clone(),
        };
        let ids = Ids::taken_over(&handed.ids, now);
        let keys = ids.keys();
        let mut state = admitted.session(flow, ids, Stage::Open(reached), now);
        // This process may not have run for as long.
        state.born = now.saturating_sub(handed.age);
        state.last_seen = now.saturating_sub(handed.idle);
        (state.bytes_up, state.bytes_down) = (handed.bytes_up, handed.bytes_down);
        let session = self.insert(state, now, out);
        if let Some(state) = self.table.get_mut(session) {
            // Not before: the kernel cannot have it until it has a socket.
            state.evidence = handed.evidence.taken_over(now);
            self.identity.remember_all(state, &keys, now);
            if state.evidence.is_answered() {
                self.admissions.answered(session, &self.table);
            }
        }
        let (destination, carried, resumed) = (*backend, Some(carried), Some(handed.age));
        let started = Started { session, flow, carries, target: text, destination, detail, carried, resumed };
        out.commands.push_back(Command::Started(Box::new(started)));
        Some(session)
    }

    /// The socket of a session that was taken over is there.
    pub(crate) fn handle_taken_over(&mut self, session: SessionId, out: &mut Output) {
        self.steer(session, out);
    }
}

impl super::identity::Identity {
    /// Has the table remember a session of a predecessor by all that it goes by.
    fn remember_all(&self, session: &mut super::state::Session, keys: &[Key], now: Duration) {
        for key in keys {
            match key {
                Key::Stated(_) | Key::Used(_) => self.remember(session, *key, now),
                Key::Index(index) => self.remember_index(session, *index, now),
            }
        }
    }
}
