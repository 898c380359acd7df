//! Which connection IDs and indices a session goes by: what its server states, what its client goes on to use.
//!
//! The one place where sessions meet the affinity table. Invariant kept here: whatever a session has the table remember
//! is given back when the session ends or the ID is displaced.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::{
    quic::{ConnectionId, LongType, packets},
    wireguard::{self, Message, Reserved},
};

use super::{Output, SessionId, Sessions, command::Command, ids::Ids, state::Session};
use crate::udp::affinity::{Affinity, Backend, Key};

/// The affinity table as sessions use it.
#[derive(Debug)]
pub(super) struct Identity {
    affinity: Arc<Affinity>,
}

impl Identity {
    pub(super) fn new(affinity: Arc<Affinity>) -> Self {
        Self { affinity }
    }

    pub(super) fn affinity(&self) -> &Arc<Affinity> {
        &self.affinity
    }

    /// The backend that `key` leads to.
    pub(super) fn find(&self, key: Key, now: Duration) -> Option<Arc<Backend>> {
        self.affinity.find(key, now)
    }

    /// The backend that a short header leads to, and the ID that told it.
    pub(super) fn find_short(&self, datagram: &[u8], now: Duration) -> Option<(ConnectionId, Arc<Backend>)> {
        self.affinity.find_short(datagram, now)
    }

    /// Counts a session that found its backend in the table.
    pub(super) fn followed(&self) {
        self.affinity.followed();
    }

    /// Learns from a datagram of the backend how it wants to be addressed; returns whether the ID that the client uses is
    /// another one now.
    pub(super) fn learn_from_answer(&self, session: &mut Session, datagram: &[u8], now: Duration) -> bool {
        match &session.ids {
            Ids::Quic(_) if datagram.first().is_some_and(|first| first & 0x80 != 0) => {
                self.learn_from_server(session, datagram, now)
            }
            // Transport messages, the bulk, tell nothing.
            Ids::WireGuard(_) if datagram.first() != Some(&4) => self.learn_index(session, datagram, now),
            Ids::Quic(_) | Ids::WireGuard(_) | Ids::None => false,
        }
    }

    /// Long headers of the backend show the ID that it wants to be addressed by.
    fn learn_from_server(&self, session: &mut Session, datagram: &[u8], now: Duration) -> bool {
        let mut changed = false;
        for packet in packets(datagram) {
            let id = packet.scid;
            let Some(ids) = session.ids.quic_mut() else { break };
            if ids.is_stated(id.as_bytes()) {
                continue;
            }
            if packet.typ != LongType::Retry {
                ids.set_len(id.len());
            } else if let Some(decryption) = &mut ids.decryption {
                decryption.retry(id);
            }
            if let Some(displaced) = ids.add_stated(id) {
                self.forget(session, displaced, now);
            }
            // An ID of a Retry is replaced by the handshake's own; until then it leads here as well.
            let _remembered = self.remember(session, id, now);
            if !id.is_empty()
                && let Some(ids) = session.ids.quic_mut()
            {
                ids.set_current(id);
                changed = true;
            }
        }
        changed
    }

    fn learn_index(&self, session: &mut Session, datagram: &[u8], now: Duration) -> bool {
        let (sender, in_use) = match wireguard::parse(datagram, Reserved::Any) {
            Some(Message::Response { sender, .. }) => (sender, true),
            // The client uses it once it has answered, which shows when it does.
            Some(Message::Initiation { sender }) => (sender, false),
            Some(Message::CookieReply { .. } | Message::Transport { .. }) | None => return false,
        };
        let Some(backend) = session.backend() else { return false };
        self.affinity.learn_index(sender, &backend, now);
        let Ids::WireGuard(indices) = &mut session.ids else { return false };
        indices.add(sender);
        in_use && indices.set_current(sender)
    }

    /// Learns an ID from a short header of a session under way, which the server may have given the client in secret.
    pub(super) fn learn_from_client(&self, session: &mut Session, datagram: &[u8], now: Duration) {
        let Some(id) = session.ids.quic().and_then(|ids| ids.of_short(datagram)) else { return };
        // Before an answer nothing proves that the server knows of this connection.
        if !session.answered || !session.is_open() || !self.remember(session, id, now) {
            return;
        }
        if let Some(displaced) = session.ids.quic_mut().and_then(|ids| ids.add_used(id)) {
            self.forget(session, displaced, now);
        }
    }

    /// Has the table remember the IDs that a session was found by, for as long as it lives.
    pub(super) fn remember_all(&self, session: &mut Session, now: Duration) {
        let known: Vec<ConnectionId> = session.ids.quic().map(|ids| ids.all().collect()).unwrap_or_default();
        for id in known {
            let _remembered = self.remember(session, id, now);
        }
    }

    /// Gives back all that the table remembers for a session. IDs outlive it for a while, unless its client may never have
    /// been there.
    pub(super) fn release(&self, session: &Session, now: Duration) {
        let backend = session.reached().and_then(|reached| reached.backend.as_ref());
        let (Some(ids), Some(backend)) = (session.ids.quic(), backend) else { return };
        for id in ids.remembered() {
            self.affinity.release(Key::ConnectionId(*id), backend, session.confirmed, now);
        }
    }

    fn remember(&self, session: &mut Session, id: ConnectionId, now: Duration) -> bool {
        let Some(backend) = session.backend() else { return false };
        let taken = self.affinity.hold(Key::ConnectionId(id), &backend, now);
        if taken && let Some(ids) = session.ids.quic_mut() {
            ids.remember(id);
        }
        taken
    }

    fn forget(&self, session: &mut Session, id: ConnectionId, now: Duration) {
        let Some(backend) = session.backend() else { return };
        if session.ids.quic_mut().is_some_and(|ids| ids.forget(id)) {
            // Whatever a client makes up must not stay longer than its session uses it.
            self.affinity.release(Key::ConnectionId(id), &backend, false, now);
        }
    }
}

impl Sessions {
    /// A long header told whose it is. The server's own ID in it shows that the client receives.
    pub(super) fn identified(&mut self, session: SessionId, destination: &[u8]) {
        if let Some(state) = self.table.get_mut(session)
            && state.ids.quic().is_some_and(|ids| ids.is_stated(destination))
        {
            state.confirmed = true;
            self.prefer(session);
        }
    }

    /// A datagram was identified as this session's: what cannot be told goes to it from now on.
    pub(super) fn prefer(&mut self, session: SessionId) {
        let Some(state) = self.table.get_mut(session) else { return };
        state.confirmed |= state.answered;
        self.table.prefer(session);
    }

    /// The client of a session goes on with the ID of this short header.
    pub(super) fn note_current(&mut self, session: SessionId, datagram: &[u8], out: &mut Output) {
        let Some(ids) = self.table.get_mut(session).and_then(|state| state.ids.quic_mut()) else { return };
        if ids.of_short(datagram).is_some_and(|id| ids.set_current(id)) {
            self.current_changed(session, out);
        }
    }

    /// The client of a session goes on with this index.
    pub(super) fn note_index(&mut self, session: SessionId, index: u32, out: &mut Output) {
        let Some(Ids::WireGuard(indices)) = self.table.get_mut(session).map(|state| &mut state.ids) else { return };
        if indices.set_current(index) {
            self.current_changed(session, out);
        }
    }

    /// The kernel compares with the ID that the client uses.
    pub(super) fn current_changed(&mut self, session: SessionId, out: &mut Output) {
        let Some(state) = self.table.get(session) else { return };
        match state.ids.current() {
            Some(cid) if state.steered => out.commands.push_back(Command::UpdateFlow { session, cid }),
            // Until now it was answered with a cookie only.
            Some(_) if state.answered && matches!(state.ids, Ids::WireGuard(_)) => self.steer(session, out),
            Some(_) | None => {}
        }
    }
}
