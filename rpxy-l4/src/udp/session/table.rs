//! The table of sessions: by place, by client socket, by deadline.

use std::{cmp::Reverse, time::Duration};

use super::{
    Command, Flow, Members, Output, SessionId, Sessions,
    state::{Session, Stage},
};
use crate::metrics::{DatagramDrop, SessionEnd};

impl Members {
    pub(super) fn all(&self) -> impl Iterator<Item = SessionId> + '_ {
        std::iter::once(self.latest).chain(self.earlier.iter().rev().copied())
    }

    pub(super) fn is_single(&self) -> bool {
        self.earlier.is_empty()
    }
}

impl Sessions {
    /// Adds a session, which becomes its flow's latest.
    pub(super) fn insert(&mut self, mut state: Session, now: Duration, out: &mut Output) -> SessionId {
        self.make_room_in(&state.flow, now, out);
        self.generation = self.generation.wrapping_add(1);
        state.generation = self.generation;
        let (flow, deadline, undecided) = (state.flow, state.deadline(), matches!(state.stage, Stage::Undecided(_)));
        let session = id(self.slab.insert(state), self.generation);
        match self.flows.get_mut(&flow) {
            Some(members) => {
                let before = std::mem::replace(&mut members.latest, session);
                members.earlier.push(before);
                self.unsteer(&flow, out);
            }
            None => drop(self.flows.insert(flow, Members { latest: session, earlier: Vec::new() })),
        }
        self.expect(deadline, session);
        if undecided {
            self.undecided_now += 1;
            self.undecided.push_back(session);
        }
        session
    }

    /// Has a session looked at. Entries of sessions that are over go when they are the majority.
    pub(super) fn expect(&mut self, at: Option<Duration>, session: SessionId) {
        let Some(at) = at else { return };
        if self.deadlines.len() > 4 * self.slab.len() + 64 {
            self.deadlines.clear();
            let all =
                self.slab.iter().filter_map(|(index, state)| Some((state.deadline()?, id(index, state.generation))));
            self.deadlines.extend(all.map(Reverse));
        }
        self.deadlines.push(Reverse((at, session)));
    }

    /// The kernel cannot tell the sessions of one client socket apart.
    fn unsteer(&mut self, flow: &Flow, out: &mut Output) {
        let Some(members) = self.flows.get(flow) else { return };
        let ids: Vec<SessionId> = members.all().collect();
        for session in ids {
            if self.get_mut(session).is_some_and(|state| std::mem::take(&mut state.steered)) {
                out.commands.push_back(Command::RevokeFlow { session });
            }
        }
    }

    /// Ends a session; what it holds is dropped for `reason`.
    pub(super) fn end(
        &mut self,
        session: SessionId,
        end: SessionEnd,
        reason: DatagramDrop,
        now: Duration,
        out: &mut Output,
    ) {
        if self.get(session).is_none() {
            return;
        }
        let mut state = self.slab.remove(place(session));
        let undecided = matches!(state.stage, Stage::Undecided(_));
        if let Some((held, _)) = state.held() {
            out.drop(reason, held.len());
        }
        if undecided {
            self.undecided_now -= 1;
        }
        out.drop(reason, state.ids.waiting());
        self.leave_flow(&state.flow, session);
        self.release_ids(&state, now);
        if state.steered {
            out.commands.push_back(Command::RevokeFlow { session });
        }
        if state.is_open() {
            let (bytes_up, bytes_down) = (state.bytes_up, state.bytes_down);
            out.commands.push_back(Command::Ended { session, end, bytes_up, bytes_down });
        }
    }

    fn leave_flow(&mut self, flow: &Flow, session: SessionId) {
        let Some(members) = self.flows.get_mut(flow) else { return };
        if members.latest != session {
            members.earlier.retain(|earlier| *earlier != session);
        } else if let Some(before) = members.earlier.pop() {
            members.latest = before;
        } else {
            self.flows.remove(flow);
        }
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Session> {
        self.slab.get(place(session)).filter(|state| state.generation == session.generation)
    }

    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.slab.get_mut(place(session)).filter(|state| state.generation == session.generation)
    }
}

pub(super) fn place(session: SessionId) -> usize {
    usize::try_from(session.index).unwrap_or(usize::MAX)
}

/// The limits on sessions are 32 bits wide.
pub(super) fn id(index: usize, generation: u32) -> SessionId {
    SessionId { index: u32::try_from(index).unwrap_or(u32::MAX), generation }
}
