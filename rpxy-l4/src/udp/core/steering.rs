//! The session of a client socket that the kernel steers. It has one entry for a socket's datagrams, so one at most.
//!
//! It errs towards the daemon: a session is steered beside others of its socket only while the kernel can tell their
//! datagrams from its own. What has shown nothing of itself costs no session its place: one forged datagram would do.

use rpxy_l4_proto::quic::ConnectionId;

use super::{Command, Flow, Output, SessionId, Sessions, evidence::Rank, ids::Ids, state::Session};
use crate::udp::affinity::{SHORTEST, is_unmistakable};

/// Bytes of a connection ID or index from which on no other one begins with it by chance.
const DISTINCT: usize = 4;

impl Sessions {
    /// Lets the kernel steer a session that has been answered, unless it could not tell whose the datagrams are.
    pub(super) fn steer(&mut self, session: SessionId, out: &mut Output) {
        // One that was taken back to see whether it is answered has to be answered first.
        let may_be =
            |state: &&Session| state.evidence.is_answered() && !state.steered && !state.doubt.waits_for_answer();
        let Some(state) = self.table.get(session).filter(may_be) else { return };
        let cid = state.ids.current();
        // Answered with a cookie only.
        let unknown = matches!(state.ids, Ids::WireGuard(_)) && cid.is_none();
        if !unknown
            && state.is_open()
            && self.is_told_apart(session)
            && !self.members_of(&state.flow).iter().any(|other| self.is_steered(*other))
            && let Some(state) = self.table.get_mut(session)
        {
            state.steered = true;
            out.commands.push_back(Command::InstallFlow { session, cid });
        }
    }

    /// The sessions of a client socket have changed, or one has shown more of itself: what the kernel could confuse is
    /// taken back, and where nothing is steered any more another one may be.
    pub(super) fn steer_again(&mut self, flow: &Flow, out: &mut Output) {
        let members = self.members_of(flow);
        for session in &members {
            if self.is_steered(*session) && !self.is_told_apart(*session) {
                self.unsteer(*session, out);
            }
        }
        members.into_iter().for_each(|session| self.steer(session, out));
    }

    /// The client of a session has shown that it receives. Of several connections of one socket it is the youngest, which
    /// goes on when the others may be over, and so it takes the place of the one that is steered.
    pub(super) fn steer_proven(&mut self, session: SessionId, out: &mut Output) {
        let Some(flow) = self.table.get(session).map(|state| state.flow) else { return };
        if self.table.is_alone(session) {
            return;
        }
        if self.is_told_apart(session) {
            for other in self.members_of(&flow) {
                if other != session && self.is_steered(other) {
                    self.unsteer(other, out);
                }
            }
            self.steer(session, out);
        }
        self.steer_again(&flow, out);
    }

    /// The kernel compares with the ID that the client of a session uses, which is another one now.
    pub(super) fn steer_by_current(&mut self, session: SessionId, out: &mut Output) {
        let Some(state) = self.table.get(session) else { return };
        let Some(cid) = state.ids.current() else { return };
        if !state.steered {
            // Until now it was answered with a cookie only, or could not be told from others.
            self.steer(session, out);
        } else if self.is_told_apart(session) {
            out.commands.push_back(Command::UpdateFlow { session, cid });
        } else {
            self.unsteer(session, out);
        }
    }

    pub(super) fn unsteer(&mut self, session: SessionId, out: &mut Output) {
        if self.table.get_mut(session).is_some_and(Session::unsteer) {
            out.commands.push_back(Command::RevokeFlow { session });
        }
    }

    /// All sessions of a client socket, the latest first.
    fn members_of(&self, flow: &Flow) -> Vec<SessionId> {
        self.table.members(flow).map(|members| members.all().collect()).unwrap_or_default()
    }

    fn is_steered(&self, session: SessionId) -> bool {
        self.table.get(session).is_some_and(|state| state.steered)
    }

    /// Returns whether the kernel can tell the datagrams of a session from those of all others of its socket.
    fn is_told_apart(&self, session: SessionId) -> bool {
        let Some(state) = self.table.get(session) else { return false };
        // A backend may have stated the constants of another protocol, which the client then speaks from the same socket.
        let is_long = |id: &ConnectionId| id.len() >= SHORTEST;
        if state.ids.quic().is_some() && state.ids.current().filter(is_long).is_some_and(|id| !is_unmistakable(&id)) {
            return false;
        }
        if self.table.is_alone(session) {
            return true;
        }
        let members = self.members_of(&state.flow);
        let mut others = members.iter().filter(|other| **other != session).filter_map(|other| self.table.get(*other));
        match state.ids.current().filter(|id| id.len() >= DISTINCT) {
            Some(id) => !others.any(|other| other.ids.may_be_of(&id)),
            None => others.all(begins_with_handshakes),
        }
    }
}

/// Returns whether all that the client of a session can send next is what the kernel leaves to the daemon.
fn begins_with_handshakes(session: &Session) -> bool {
    match &session.ids {
        // It carries an ID of its server in a long header before it may send short ones (RFC 9001 section 4.1.1).
        Ids::Quic(ids) => session.rank() == Rank::Unproven && ids.begin_with_long(),
        // Only who has the key of a known peer is answered.
        Ids::WireGuard(indices) => !session.evidence.is_answered() && indices.begin_with_initiation(),
        Ids::None => false,
    }
}
