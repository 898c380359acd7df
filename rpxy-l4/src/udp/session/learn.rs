//! Which connection IDs a session goes by: what its server chooses, what its client goes on to use.

use std::time::Duration;

use rpxy_l4_proto::quic::{ConnectionId, LongType, packets};

use super::{
    Command, Members, Output, SessionId, Sessions,
    ids::{Ids, QuicIds},
    state::Session,
};
use crate::udp::affinity::Key;

impl Sessions {
    /// Notes what a datagram of a backend tells of how it wants to be addressed.
    pub(super) fn learn_from_answer(&mut self, session: SessionId, datagram: &[u8], now: Duration, out: &mut Output) {
        match self.get(session).map(|state| &state.ids) {
            Some(Ids::Quic(_)) if datagram.first().is_some_and(|first| first & 0x80 != 0) => {
                self.learn_from_server(session, datagram, now, out);
            }
            Some(Ids::WireGuard(_)) => self.learn_index(session, datagram, now, out),
            Some(Ids::Quic(_) | Ids::None) | None => {}
        }
    }

    /// A short header of a session under way may carry an ID that the server gave the client in secret.
    pub(super) fn learn_from_client(&mut self, session: SessionId, datagram: &[u8], now: Duration) {
        let Some(state) = self.get(session) else { return };
        let Some(id) = state.ids.quic().and_then(|ids| ids.of_short(datagram)) else { return };
        // Of several connections, it could be any one's.
        if !self.flows.get(&state.flow).is_some_and(Members::is_single) {
            return;
        }
        // Before an answer nothing proves that the server knows of this connection.
        if !state.answered || !state.is_open() || !self.hold(session, id, now) {
            return;
        }
        let displaced = self.quic_ids_mut(session).and_then(|ids| ids.used.add(id));
        if let Some(displaced) = displaced {
            self.let_go(session, displaced, now);
        }
    }

    /// A long header told whose it is. The server's own ID in it shows that the client receives.
    pub(super) fn identified(&mut self, session: SessionId, destination: &[u8]) {
        if let Some(state) = self.get_mut(session)
            && let Ids::Quic(ids) = &state.ids
            && ids.server.iter().any(|id| id.as_bytes() == destination)
        {
            state.confirmed = true;
            self.prefer(session);
        }
    }

    /// A datagram was identified as this session's: what cannot be told goes to it from now on.
    pub(super) fn prefer(&mut self, session: SessionId) {
        let Some(state) = self.get_mut(session) else { return };
        state.confirmed |= state.answered;
        let flow = state.flow;
        if let Some(members) = self.flows.get_mut(&flow)
            && members.latest != session
        {
            members.earlier.retain(|earlier| *earlier != session);
            let before = std::mem::replace(&mut members.latest, session);
            members.earlier.push(before);
        }
    }

    /// The client of a session goes on with an ID that is not its last one.
    pub(super) fn note_current(&mut self, session: SessionId, datagram: &[u8], out: &mut Output) {
        let Some(ids) = self.get(session).and_then(|state| state.ids.quic()) else { return };
        match ids.of_short(datagram) {
            Some(id) if ids.current != Some(id) => self.set_current(session, id, out),
            Some(_) | None => {}
        }
    }

    fn set_current(&mut self, session: SessionId, cid: ConnectionId, out: &mut Output) {
        let Some(state) = self.get_mut(session) else { return };
        let steered = state.steered;
        if let Ids::Quic(ids) = &mut state.ids {
            ids.current = Some(cid);
            if steered {
                out.commands.push_back(Command::UpdateFlow { session, cid });
            }
        }
    }

    /// Long headers of the backend show the ID that it wants to be addressed by.
    fn learn_from_server(&mut self, session: SessionId, datagram: &[u8], now: Duration, out: &mut Output) {
        for packet in packets(datagram) {
            let id = packet.scid;
            let Some(ids) = self.quic_ids_mut(session) else { return };
            if ids.server.contains(id) {
                continue;
            }
            if packet.typ != LongType::Retry {
                ids.len = Some(id.len());
            } else if let Some(decryption) = &mut ids.decryption {
                decryption.retry(id);
            }
            let displaced = ids.server.add(id);
            if let Some(displaced) = displaced {
                self.let_go(session, displaced, now);
            }
            // An ID of a Retry is replaced by the handshake's own; until then it leads here as well.
            let _held = self.hold(session, id, now);
            if !id.is_empty() {
                self.set_current(session, id, out);
            }
        }
    }

    fn hold(&mut self, session: SessionId, id: ConnectionId, now: Duration) -> bool {
        let Some(backend) = self.backend(session) else { return false };
        let held = self.affinity.hold(Key::ConnectionId(id), &backend, now);
        if held && let Some(ids) = self.quic_ids_mut(session) {
            ids.held.push(id);
        }
        held
    }

    /// The IDs that a session was found by live as long as it does.
    pub(super) fn hold_known_ids(&mut self, session: SessionId, now: Duration) {
        let Some(ids) = self.get(session).and_then(|state| state.ids.quic()) else { return };
        let known: Vec<ConnectionId> = ids.server.iter().chain(ids.used.iter()).collect();
        for id in known {
            let _held = self.hold(session, id, now);
        }
    }

    fn let_go(&mut self, session: SessionId, id: ConnectionId, now: Duration) {
        let Some(backend) = self.backend(session) else { return };
        let Some(ids) = self.quic_ids_mut(session) else { return };
        if let Some(at) = ids.held.iter().position(|held| *held == id) {
            ids.held.swap_remove(at);
            // Whatever a client makes up must not stay longer than its session uses it.
            self.affinity.release(Key::ConnectionId(id), &backend, false, now);
        }
    }

    /// A session's IDs outlive it for a while, unless its client may never have been there.
    pub(super) fn release_ids(&self, state: &Session, now: Duration) {
        let (Some(ids), Some(backend)) =
            (state.ids.quic(), state.reached().and_then(|reached| reached.backend.as_ref()))
        else {
            return;
        };
        for id in &ids.held {
            self.affinity.release(Key::ConnectionId(*id), backend, state.confirmed, now);
        }
    }

    fn quic_ids_mut(&mut self, session: SessionId) -> Option<&mut QuicIds> {
        match &mut self.get_mut(session)?.ids {
            Ids::Quic(ids) => Some(ids),
            Ids::None | Ids::WireGuard(_) => None,
        }
    }
}
