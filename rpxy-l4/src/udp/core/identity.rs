//! Connection IDs and indices that a session goes by: those that its server states, those that its client goes on to use.
//!
//! The one place where sessions meet the affinity table, and where a secret of the server is recognised in what the client
//! says. Invariant kept here: whatever the table remembers for a session is given back when the session ends or the ID is
//! displaced.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::{
    quic::{LongType, packets},
    wireguard::{self, Message, Reserved},
};

use super::{
    Flow, Output, SessionId, Sessions,
    evidence::Rank,
    ids::{Ids, Ownership},
    state::{Session, Stage},
};
use crate::udp::affinity::{Affinity, Backend, Key, Network, Owner};

/// Time for which datagrams of one client socket may overtake each other. An ID that two sessions share is of the other
/// one when a session is known to go on with its own after that.
const REORDERING: Duration = Duration::from_millis(200);

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

    /// The backend that a stated ID or an index leads to.
    pub(super) fn find(&self, key: Key, now: Duration) -> Option<Arc<Owner>> {
        self.affinity.find(key, now)
    }

    /// The backends that a short header leads to, and the ID that told them. IDs that clients went on to use lead only from
    /// `network`, if there is one.
    pub(super) fn find_short(
        &self,
        datagram: &[u8],
        network: Option<Network>,
        now: Duration,
    ) -> Option<(Key, Vec<Arc<Owner>>)> {
        self.affinity.find_short(datagram, network, now)
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
                self.forget(session, Key::Stated(displaced), now);
            }
            // An ID of a Retry is replaced by the handshake's own; until then it leads here as well.
            self.remember(session, Key::Stated(id), now);
            if !id.is_empty()
                && let Some(ids) = session.ids.quic_mut()
            {
                ids.set_current(id);
                changed = true;
            }
        }
        changed
    }

    /// An index is learned when it answers an initiation of the client on this session.
    fn learn_index(&self, session: &mut Session, datagram: &[u8], now: Duration) -> bool {
        let Ids::WireGuard(indices) = &mut session.ids else { return false };
        match wireguard::parse(datagram, Reserved::Any) {
            Some(Message::Response { sender, receiver }) if indices.answer(receiver, sender) => {
                let changed = indices.set_current(sender);
                self.remember_index(session, sender, now);
                changed
            }
            Some(Message::Initiation { sender }) => {
                // The client uses it once it has answered.
                indices.offer(sender);
                false
            }
            Some(Message::Response { .. } | Message::CookieReply { .. } | Message::Transport { .. }) | None => false,
        }
    }

    pub(super) fn remember_index(&self, session: &mut Session, index: u32, now: Duration) {
        if let Some(owner) = self.owner(session) {
            self.affinity.learn_index(index, &owner, now);
        }
    }

    /// Learns an ID from a short header of a session under way, which the server may have given the client in secret; since
    /// `shared`, it may be another session's of the same socket.
    fn learn_from_client(&self, session: &mut Session, datagram: &[u8], shared: Option<Duration>, now: Duration) {
        let Some(ids) = session.ids.quic() else { return };
        let Some(id) = ids.of_short(datagram) else { return };
        // Before an answer nothing proves that the server knows of this connection.
        if !session.evidence.is_answered() || !session.is_open() || ids.owns_short(datagram) != Ownership::Unknown {
            return;
        }
        // Those that follow others hold nothing themselves.
        if ids.found_by().is_none() {
            self.remember(session, Key::Used(id), now);
        }
        if let Some(displaced) = session.ids.quic_mut().and_then(|ids| ids.add_used(id, shared)) {
            self.forget(session, Key::Used(displaced), now);
        }
    }

    /// Has the table remember the ID that a session was found by for as long as it lives, if a server stated it.
    pub(super) fn remember_found(&self, session: &mut Session, now: Duration) {
        if let Some(key @ Key::Stated(_)) = session.ids.quic().and_then(super::ids::QuicIds::found_by) {
            self.remember(session, key, now);
        }
    }

    /// Has the table remember the ID of an inherited session, of which is only known that its client used it.
    pub(super) fn remember_inherited(&self, session: &mut Session, now: Duration) {
        if let Some(key @ Key::Used(_)) = session.ids.quic().and_then(super::ids::QuicIds::found_by) {
            self.remember(session, key, now);
        }
    }

    /// Gives back all that the table remembers for a session. If it `lingers`, stated IDs outlive it for a while, given that
    /// its client has shown that it is there.
    pub(super) fn release(&self, session: &Session, lingers: bool, now: Duration) {
        let owner = session.reached().and_then(|reached| reached.owner.as_ref());
        let (Some(ids), Some(owner)) = (session.ids.quic(), owner) else { return };
        let lingers = lingers && session.rank() > Rank::Unproven;
        for key in ids.remembered() {
            self.affinity.release(*key, owner, session.network(), lingers, now);
        }
    }

    pub(super) fn remember(&self, session: &mut Session, key: Key, now: Duration) {
        let Some(owner) = self.owner(session) else { return };
        if self.affinity.hold(key, &owner, session.flow.client, now)
            && let Some(ids) = session.ids.quic_mut()
        {
            ids.remember(key);
        }
    }

    fn forget(&self, session: &mut Session, key: Key, now: Duration) {
        let Some(owner) = self.owner(session) else { return };
        if session.ids.quic_mut().is_some_and(|ids| ids.forget(key)) {
            // Whatever a client makes up must not stay longer than its session uses it.
            self.affinity.release(key, &owner, session.network(), false, now);
        }
    }

    /// The backend of a session in the table; the same value for all its IDs. `None` where the rule does without affinity.
    fn owner(&self, session: &mut Session) -> Option<Arc<Owner>> {
        let Stage::Open(reached) = &mut session.stage else { return None };
        if reached.owner.is_none() && reached.route.affinity {
            let target = reached.route.group.endpoint(reached.target)?.target.clone();
            let rule = reached.route.rule.clone();
            reached.owner = Some(self.affinity.owner(Backend { rule, target, address: reached.address }));
        }
        reached.owner.clone()
    }
}

/// The sessions of a client socket that a short header goes to.
#[derive(Debug, Default)]
pub(super) struct ShortOwners {
    /// Those that own its ID, certainly or together with others.
    pub(super) owners: Vec<SessionId>,
    pub(super) certain: bool,
}

impl Sessions {
    /// The sessions of a flow that a short header is of by its ID.
    pub(super) fn owners_of_short(&self, flow: &Flow, datagram: &[u8]) -> ShortOwners {
        let mut found = ShortOwners::default();
        let Some(members) = self.table.members(flow) else { return found };
        for id in members.all() {
            let ids = self.table.get(id).and_then(|state| state.ids.quic());
            match ids.map_or(Ownership::Unknown, |ids| ids.owns_short(datagram)) {
                Ownership::Certain => return ShortOwners { owners: vec![id], certain: true },
                Ownership::Shared => found.owners.push(id),
                Ownership::Unknown => {}
            }
        }
        found
    }

    /// A short header with an ID that nobody on its socket is known by may be of any of these sessions.
    pub(super) fn share_short(&mut self, sessions: &[SessionId], datagram: &[u8], now: Duration) {
        let shared = (sessions.len() > 1).then_some(now);
        let rank = |session: SessionId| self.table.get(session).map(Session::rank);
        // A connection that was begun from a forged address gets a copy, and may not go by the ID.
        let proven = sessions.iter().any(|session| rank(*session) > Some(Rank::Unproven));
        let learns = |session: &&SessionId| !proven || rank(**session) > Some(Rank::Unproven);
        let learning: Vec<SessionId> = sessions.iter().filter(learns).copied().collect();
        for session in learning {
            if let Some(state) = self.table.get_mut(session) {
                self.identity.learn_from_client(state, datagram, shared, now);
            }
        }
    }

    /// A short header was of this session for certain.
    pub(super) fn identified_short(&mut self, session: SessionId, datagram: &[u8], now: Duration, out: &mut Output) {
        let Some(state) = self.table.get_mut(session) else { return };
        let Some(ids) = state.ids.quic_mut() else { return };
        let id = ids.of_short(datagram);
        let proven = id.is_some_and(|id| ids.is_secret(id.as_bytes())) && state.evidence.repeated_secret();
        let others = ids.drop_shared(now.saturating_sub(REORDERING));
        for id in others {
            self.identity.forget(state, Key::Used(id), now);
        }
        self.table.prefer(session);
        self.note_current(session, datagram, out);
        if proven {
            self.steer_proven(session, out);
        }
    }

    /// A long header was of this session. The server's own ID in it shows that the client receives.
    pub(super) fn identified_long(&mut self, session: SessionId, destination: &[u8], out: &mut Output) {
        if let Some(state) = self.table.get_mut(session)
            && let Some(ids) = state.ids.quic().filter(|ids| ids.is_stated(destination))
        {
            let proven = ids.is_secret(destination) && state.evidence.repeated_secret();
            self.table.prefer(session);
            if proven {
                self.steer_proven(session, out);
            }
        }
    }

    /// A WireGuard message of the client carried this index of the server.
    pub(super) fn identified_index(
        &mut self,
        session: SessionId,
        message: &Message,
        index: u32,
        now: Duration,
        out: &mut Output,
    ) {
        self.table.prefer(session);
        let Some(state) = self.table.get_mut(session) else { return };
        let Ids::WireGuard(indices) = &mut state.ids else { return };
        let accepts = matches!(message, Message::Response { .. }) && indices.accept(index);
        let proven = indices.is_stated(index) && state.evidence.repeated_secret();
        let changed = indices.set_current(index);
        if accepts {
            self.identity.remember_index(state, index, now);
        }
        if changed {
            self.steer_by_current(session, out);
        }
        if proven {
            self.steer_proven(session, out);
        }
    }

    /// The client of a session goes on with the ID of this short header.
    pub(super) fn note_current(&mut self, session: SessionId, datagram: &[u8], out: &mut Output) {
        let Some(ids) = self.table.get_mut(session).and_then(|state| state.ids.quic_mut()) else { return };
        if ids.of_short(datagram).is_some_and(|id| ids.set_current(id)) {
            self.steer_by_current(session, out);
        }
    }
}
