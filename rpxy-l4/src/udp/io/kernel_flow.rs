//! The flow of a session in the kernel plane, and the sessions that wait for one.

use std::collections::VecDeque;

use rpxy_l4_proto::quic::ConnectionId;

use crate::{
    offload::{Installed, NotSteered, Offload, Steered, Usage},
    udp::core::SessionId,
};

/// Sessions to ask for again in one turn at most: each costs system calls.
const AT_ONCE: usize = 64;

/// A session's flow in the kernel.
#[derive(Debug)]
pub(super) enum KernelFlow {
    /// Its backend has not answered yet, or another session of its client's socket is steered.
    Unasked,
    /// It stays in the daemon.
    Not(NotSteered),
    /// It stays in the daemon for now.
    Waiting(Box<Steered>, NotSteered),
    /// The kernel has its entries.
    Installed(Installed),
}

impl KernelFlow {
    /// Asks the kernel to steer `flow`.
    pub(super) fn install(&mut self, offload: &dyn Offload, flow: Steered) {
        *self = match offload.install(&flow) {
            Ok(installed) => Self::Installed(installed),
            Err(reason) if reason.is_temporary() => Self::Waiting(Box::new(flow), reason),
            Err(reason) => Self::Not(reason),
        };
    }

    /// Asks again for a session that waits. Nothing for others.
    pub(super) fn retry(&mut self, offload: &dyn Offload) {
        match std::mem::replace(self, Self::Unasked) {
            Self::Waiting(flow, _) => self.install(offload, *flow),
            other @ (Self::Unasked | Self::Not(_) | Self::Installed(_)) => *self = other,
        }
    }

    /// Why it stays in the daemon, once that is known.
    pub(super) fn reason(&self) -> Option<NotSteered> {
        match self {
            Self::Not(reason) | Self::Waiting(_, reason) => Some(*reason),
            Self::Unasked | Self::Installed(_) => None,
        }
    }

    /// The client goes on with another connection ID or index.
    pub(super) fn update(&mut self, offload: &dyn Offload, cid: ConnectionId) {
        match self {
            Self::Installed(session) => offload.update_cid(*session, &cid),
            Self::Waiting(flow, _) => flow.cid = Some(cid),
            Self::Unasked | Self::Not(_) => {}
        }
    }

    /// A router has told of a smaller MTU on the way to the backend.
    pub(super) fn path_changed(&self, offload: &dyn Offload) {
        if let Self::Installed(session) = self {
            offload.path_changed(*session);
        }
    }

    /// Takes the session back; what the kernel has done for it.
    pub(super) fn revoke(&mut self, offload: &dyn Offload) -> Option<Usage> {
        let Self::Installed(session) = std::mem::replace(self, Self::Unasked) else { return None };
        // What arrives in between is counted by nobody.
        let usage = offload.usage(session);
        offload.revoke(session);
        usage
    }

    /// What the kernel has done so far.
    pub(super) fn usage(&self, offload: &dyn Offload) -> Option<Usage> {
        match self {
            Self::Installed(session) => offload.usage(*session),
            Self::Unasked | Self::Not(_) | Self::Waiting(..) => None,
        }
    }
}

/// Sessions that wait for a place in the kernel, or for a way.
///
/// They are tried again when something has changed that may let them in, in the order in which they came, and some at
/// a time. Sessions that have ended are skipped; the list has no more entries than there were installs.
#[derive(Debug, Default)]
pub(super) struct Retries {
    waiting: VecDeque<SessionId>,
    /// [`Offload::changes`] when they were tried last.
    seen: u64,
    /// How many of them have not been tried since.
    left: usize,
}

impl Retries {
    /// One more waits; at most twice as many are kept as there are `sessions`, since those that ended go when met.
    pub(super) fn add(&mut self, session: SessionId, sessions: usize, waits: impl Fn(SessionId) -> bool) {
        if self.waiting.len() > 2 * sessions + AT_ONCE {
            self.waiting.retain(|session| waits(*session));
            self.left = self.left.min(self.waiting.len());
        }
        self.waiting.push_back(session);
    }

    /// Tries some again, when `changes` has moved since. `retry` tries one, and says why it waits on.
    pub(super) fn run(&mut self, changes: u64, mut retry: impl FnMut(SessionId) -> Option<NotSteered>) {
        if std::mem::replace(&mut self.seen, changes) != changes {
            self.left = self.waiting.len();
        }
        for _ in 0..self.left.min(AT_ONCE) {
            let Some(session) = self.waiting.pop_front() else { break };
            self.left -= 1;
            match retry(session) {
                None => {}
                Some(NotSteered::Full) => {
                    // Nor is there a place for anybody behind.
                    self.waiting.push_front(session);
                    self.left = 0;
                    return;
                }
                Some(_) => self.waiting.push_back(session),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(index: u32) -> SessionId {
        SessionId { index, generation: 1 }
    }

    /// Runs a turn in which `full`, `away` (no route) and all others get in; the sessions that were tried.
    fn turn(retries: &mut Retries, changes: u64, full: &[u32], away: &[u32]) -> Vec<u32> {
        let mut tried = Vec::new();
        retries.run(changes, |SessionId { index, .. }| {
            tried.push(index);
            if full.contains(&index) {
                Some(NotSteered::Full)
            } else {
                away.contains(&index).then_some(NotSteered::NoRoute)
            }
        });
        tried
    }

    #[test]
    fn they_are_tried_when_something_has_changed_and_in_order() {
        let mut retries = Retries::default();
        (0..4).for_each(|index| retries.add(session(index), 4, |_| true));
        assert_eq!(turn(&mut retries, 0, &[], &[]), [0; 0], "nothing has changed");
        assert_eq!(turn(&mut retries, 1, &[2], &[0]), [0, 1, 2], "behind a full table nobody is tried");
        assert_eq!(turn(&mut retries, 1, &[], &[]), [0; 0], "once for each change");
        assert_eq!(turn(&mut retries, 2, &[], &[0]), [2, 3, 0]);
        assert_eq!(turn(&mut retries, 3, &[], &[]), [0]);
        assert_eq!(turn(&mut retries, 4, &[], &[]), [0; 0], "all are in");
    }

    #[test]
    fn a_turn_tries_some_and_the_next_one_goes_on() {
        let mut retries = Retries::default();
        let all: Vec<u32> = (0..150).collect();
        all.iter().for_each(|index| retries.add(session(*index), 150, |_| true));
        assert_eq!(turn(&mut retries, 1, &[], &all), all[..64]);
        assert_eq!(turn(&mut retries, 1, &[], &all), all[64..128]);
        assert_eq!(turn(&mut retries, 1, &[], &all), all[128..]);
        assert_eq!(turn(&mut retries, 1, &[], &all), [0; 0]);
    }

    #[test]
    fn those_that_have_ended_do_not_pile_up() {
        let mut retries = Retries::default();
        for index in 0..10_000 {
            retries.add(session(index), 1, |session| session.index + 1 == index);
        }
        assert!(retries.waiting.len() < 100, "{}", retries.waiting.len());
    }
}
