//! Sessions inherited from an earlier daemon, and the workers that have them.
//!
//! The kernel spreads clients over the sockets of the workers and does not tell how. The datagrams of an inherited
//! session may arrive at the socket of another worker than the one that has the session: they are handed over. Few are,
//! since the kernel steers the rest. Only flows from before the restart are in here.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::mailbox::{ClientEnd, Control, Handover, InFlight, Mailbox};

/// The worker of each inherited session.
#[derive(Debug, Default)]
pub(super) struct InheritedSessions {
    /// Number of owners, so that nobody takes the lock when there are none.
    count: AtomicUsize,
    owners: Mutex<HashMap<ClientEnd, Mailbox>>,
    in_flight: Arc<AtomicUsize>,
}

impl InheritedSessions {
    /// A worker has inherited a session.
    pub(super) fn add(&self, end: ClientEnd, owner: Mailbox) {
        self.with(|owners| drop(owners.insert(end, owner)));
    }

    /// It has ended.
    pub(super) fn remove(&self, end: &ClientEnd) {
        self.with(|owners| drop(owners.remove(end)));
    }

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Hands datagrams to the worker that has their session; `None` when none has. Returns whether there was room.
    pub(super) fn hand_over(&self, end: ClientEnd, bytes: &[u8], segment: usize, tos: u8) -> Option<bool> {
        let owner = self.with(|owners| owners.get(&end).cloned())?;
        let in_flight = InFlight::acquire(&self.in_flight);
        let handed = in_flight.map(|in_flight| Handover::new(end, bytes, segment, tos, in_flight));
        Some(handed.map(|handover| owner.send(Control::Handover(handover))).is_some())
    }

    fn with<T>(&self, action: impl FnOnce(&mut HashMap<ClientEnd, Mailbox>) -> T) -> T {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let done = action(&mut owners);
        self.count.store(owners.len(), Ordering::Relaxed);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::poller::Poller;

    #[test]
    fn datagrams_are_handed_to_whoever_has_the_session_as_far_as_there_is_room() {
        let poller = Poller::new().unwrap();
        let (mailbox, inbox) = Mailbox::new(&poller);
        let end = |port| ClientEnd {
            listener: ([0, 0, 0, 0], 443).into(),
            client: ([192, 0, 2, 1], port).into(),
            local: None,
        };
        let inherited = InheritedSessions::default();
        assert!(inherited.is_empty());
        assert_eq!(inherited.hand_over(end(1), b"x", 1, 0), None);
        inherited.add(end(1), mailbox);
        assert!(!inherited.is_empty());
        assert_eq!(inherited.hand_over(end(2), b"x", 1, 0), None, "of somebody else");
        for round in 0..InFlight::MOST {
            assert_eq!(inherited.hand_over(end(1), b"xyz", 2, 1), Some(true), "{round}");
        }
        assert_eq!(inherited.hand_over(end(1), b"x", 1, 0), Some(false), "full");
        let Ok(Control::Handover(handover)) = inbox.try_recv() else { panic!("nothing was handed over") };
        assert_eq!((&*handover.bytes, handover.segment, handover.tos, handover.end), (&b"xyz"[..], 2, 1, end(1)));
        drop(handover);
        assert_eq!(inherited.hand_over(end(1), b"x", 1, 0), Some(true), "one has arrived");
        inherited.remove(&end(1));
        assert!(inherited.is_empty());
        assert_eq!(inherited.hand_over(end(1), b"x", 1, 0), None);
    }
}
