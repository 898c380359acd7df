//! Sessions that were taken over from an earlier daemon, and the workers that have them.
//!
//! The kernel spreads clients over the sockets of the workers as it likes, and does not tell how. A session that was
//! taken over may be with another worker than the one whose socket its client's datagrams arrive at: they are handed on.
//! Few are, since the kernel steers the rest. Flows of before the restart alone are in here.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::worker::{Commands, Control};
use crate::net::udp::Local;

/// Datagrams on their way to another worker, at most; further ones are lost.
const MOST_ON_THE_WAY: usize = 1024;

/// The client's end of a session, whichever worker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct End {
    /// The address of the listening socket.
    pub(super) listener: SocketAddr,
    /// The client.
    pub(super) client: SocketAddr,
    /// The address that it used, where the socket has several.
    pub(super) local: Option<Local>,
}

/// A buffer of datagrams that arrived at another worker.
#[derive(Debug)]
pub struct Passed {
    pub(super) end: End,
    pub(super) bytes: Box<[u8]>,
    /// Length of each datagram but the last.
    pub(super) segment: usize,
    pub(super) ecn: u8,
    /// Counts it as on the way.
    _on_the_way: OnTheWay,
}

#[derive(Debug)]
struct OnTheWay(Arc<AtomicUsize>);

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who has which.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    /// How many there are, so that nobody takes the lock when there is none.
    count: AtomicUsize,
    owners: Mutex<HashMap<End, Commands>>,
    on_the_way: Arc<AtomicUsize>,
}

impl Adopted {
    /// A worker has taken over a session.
    pub(super) fn add(&self, end: End, owner: Commands) {
        self.with(|owners| drop(owners.insert(end, owner)));
    }

    /// It has ended.
    pub(super) fn remove(&self, end: &End) {
        self.with(|owners| drop(owners.remove(end)));
    }

    /// Whether there may be any.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Hands datagrams to the worker that has their session; `None` when none has. Otherwise whether it was done.
    pub(super) fn pass(&self, end: End, bytes: &[u8], segment: usize, ecn: u8) -> Option<bool> {
        let owner = self.with(|owners| owners.get(&end).cloned())?;
        if self.on_the_way.fetch_add(1, Ordering::Relaxed) >= MOST_ON_THE_WAY {
            self.on_the_way.fetch_sub(1, Ordering::Relaxed);
            return Some(false);
        }
        let _on_the_way = OnTheWay(Arc::clone(&self.on_the_way));
        owner.send(Control::Passed(Passed { end, bytes: bytes.into(), segment, ecn, _on_the_way }));
        Some(true)
    }

    fn with<T>(&self, action: impl FnOnce(&mut HashMap<End, Commands>) -> T) -> T {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let done = action(&mut owners);
        self.count.store(owners.len(), Ordering::Relaxed);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::poller::Poller, udp::worker::inbox};

    #[test]
    fn datagrams_are_handed_to_whoever_has_the_session_as_far_as_there_is_room() {
        let poller = Poller::new().unwrap();
        let (commands, inbox) = inbox(&poller);
        let end =
            |port| End { listener: ([0, 0, 0, 0], 443).into(), client: ([192, 0, 2, 1], port).into(), local: None };
        let adopted = Adopted::default();
        assert!(adopted.is_empty());
        assert_eq!(adopted.pass(end(1), b"x", 1, 0), None);
        adopted.add(end(1), commands);
        assert!(!adopted.is_empty());
        assert_eq!(adopted.pass(end(2), b"x", 1, 0), None, "of somebody else");
        for round in 0..MOST_ON_THE_WAY {
            assert_eq!(adopted.pass(end(1), b"xyz", 2, 1), Some(true), "{round}");
        }
        assert_eq!(adopted.pass(end(1), b"x", 1, 0), Some(false), "full");
        let Ok(Control::Passed(passed)) = inbox.try_recv() else { panic!("nothing was passed") };
        assert_eq!((&*passed.bytes, passed.segment, passed.ecn, passed.end), (&b"xyz"[..], 2, 1, end(1)));
        drop(passed);
        assert_eq!(adopted.pass(end(1), b"x", 1, 0), Some(true), "one has arrived");
        adopted.remove(&end(1));
        assert!(adopted.is_empty());
        assert_eq!(adopted.pass(end(1), b"x", 1, 0), None);
    }
}
