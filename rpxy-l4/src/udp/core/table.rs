//! The sessions of a worker, and the client sockets that they belong to.
//!
//! Invariants kept here: a [`SessionId`] is never used twice; every session is a member of its flow exactly once, and
//! every member is a session.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use slab::Slab;

use super::{Flow, SessionId, state::Session};

/// Sessions by ID and by flow.
#[derive(Debug, Default)]
pub(super) struct Table {
    slab: Slab<Entry>,
    /// By the flow that their sessions have: it is kept once.
    flows: HashTable<Members>,
    hasher: RandomState,
    generation: u32,
}

#[derive(Debug)]
struct Entry {
    /// Tells a session from earlier ones in the same slot.
    generation: u32,
    session: Session,
}

/// The sessions of one client socket.
#[derive(Debug)]
pub(super) struct Members {
    /// The one that a datagram was last known to be of, or the youngest.
    latest: SessionId,
    /// Those before it, in order; most client sockets have none.
    earlier: Vec<SessionId>,
}

impl Members {
    /// All of them, the latest first.
    pub(super) fn all(&self) -> impl Iterator<Item = SessionId> + '_ {
        std::iter::once(self.latest).chain(self.earlier.iter().rev().copied())
    }

    /// All but the latest, the oldest first.
    pub(super) fn earlier(&self) -> &[SessionId] {
        &self.earlier
    }

    pub(super) fn latest(&self) -> SessionId {
        self.latest
    }

    pub(super) fn is_single(&self) -> bool {
        self.earlier.is_empty()
    }
}

impl Table {
    /// An empty table whose IDs continue where those of `self` end.
    pub(super) fn successor(&self) -> Self {
        Self { generation: self.generation, ..Self::default() }
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        let entry = self.slab.get(slot(id)).filter(|entry| entry.generation == id.generation)?;
        Some(&entry.session)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let entry = self.slab.get_mut(slot(id)).filter(|entry| entry.generation == id.generation)?;
        Some(&mut entry.session)
    }

    /// Adds a session, which becomes its flow's latest.
    pub(super) fn insert(&mut self, session: Session) -> SessionId {
        self.generation = self.generation.wrapping_add(1);
        let flow = session.flow;
        let id = id(self.slab.insert(Entry { generation: self.generation, session }), self.generation);
        match self.members_mut(&flow) {
            Some(members) => members.earlier.push(std::mem::replace(&mut members.latest, id)),
            None => {
                let Self { slab, flows, hasher, .. } = self;
                let members = Members { latest: id, earlier: Vec::new() };
                let hash = |members: &Members| flow_of(slab, members).map_or(0, |flow| hasher.hash_one(flow));
                flows.insert_unique(hasher.hash_one(flow), members, hash);
            }
        }
        id
    }

    /// All sessions, those of a flow together and the latest last.
    pub(super) fn by_flow(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.flows.iter().flat_map(|members| members.earlier.iter().copied().chain([members.latest]))
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let flow = self.get(id)?.flow;
        let Self { slab, flows, hasher, .. } = self;
        // Before the session goes, by which its flow is found.
        let found = flows.find_entry(hasher.hash_one(flow), |members| flow_of(slab, members) == Some(&flow));
        if let Ok(mut entry) = found {
            let members = entry.get_mut();
            if members.latest != id {
                members.earlier.retain(|earlier| *earlier != id);
            } else if let Some(before) = members.earlier.pop() {
                members.latest = before;
            } else {
                entry.remove();
            }
        }
        Some(self.slab.try_remove(slot(id))?.session)
    }

    /// Makes a session its flow's latest.
    pub(super) fn prefer(&mut self, id: SessionId) {
        let Some(flow) = self.get(id).map(|session| session.flow) else { return };
        if let Some(members) = self.members_mut(&flow)
            && members.latest != id
        {
            members.earlier.retain(|earlier| *earlier != id);
            members.earlier.push(std::mem::replace(&mut members.latest, id));
        }
    }

    pub(super) fn members(&self, flow: &Flow) -> Option<&Members> {
        let hash = self.hasher.hash_one(flow);
        self.flows.find(hash, |members| flow_of(&self.slab, members) == Some(flow))
    }

    fn members_mut(&mut self, flow: &Flow) -> Option<&mut Members> {
        let Self { slab, flows, hasher, .. } = self;
        flows.find_mut(hasher.hash_one(flow), |members| flow_of(slab, members) == Some(flow))
    }

    /// Returns the latest session of a flow that is `wanted`.
    pub(super) fn find(&self, flow: &Flow, wanted: impl Fn(&Session) -> bool) -> Option<SessionId> {
        self.members(flow)?.all().find(|id| self.get(*id).is_some_and(&wanted))
    }

    /// Returns whether a session has its client socket to itself.
    pub(super) fn is_alone(&self, id: SessionId) -> bool {
        self.get(id).and_then(|session| self.members(&session.flow)).is_some_and(Members::is_single)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.slab.iter().map(|(slot, entry)| (id(slot, entry.generation), &entry.session))
    }

    /// Returns sessions that are `wanted` among the next `count` slots from `cursor` on, which moves there.
    pub(super) fn next_ids(
        &self,
        cursor: &mut usize,
        count: usize,
        wanted: impl Fn(&Session) -> bool,
    ) -> Vec<SessionId> {
        let slots = self.slab.capacity();
        if *cursor >= slots {
            *cursor = 0;
        }
        let range = *cursor..slots.min(*cursor + count);
        *cursor = range.end;
        range
            .filter_map(|slot| {
                let entry = self.slab.get(slot).filter(|entry| wanted(&entry.session))?;
                Some(id(slot, entry.generation))
            })
            .collect()
    }

    /// Returns the IDs of all sessions that are `wanted`.
    pub(super) fn ids(&self, wanted: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        self.iter().filter(|(_, session)| wanted(session)).map(|(id, _)| id).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    #[cfg(test)]
    pub(super) fn flows(&self) -> usize {
        self.flows.len()
    }
}

/// The flow of these sessions.
fn flow_of<'a>(slab: &'a Slab<Entry>, members: &Members) -> Option<&'a Flow> {
    Some(&slab.get(slot(members.latest))?.session.flow)
}

fn slot(id: SessionId) -> usize {
    usize::try_from(id.index).unwrap_or(usize::MAX)
}

/// The limits on sessions are 32 bits wide.
fn id(slot: usize, generation: u32) -> SessionId {
    SessionId { index: u32::try_from(slot).unwrap_or(u32::MAX), generation }
}
