//! A bound on connections and sessions, shared by all workers.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::LogThrottle;

/// Interval of messages about one limit.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The number of connections or sessions that exist now, bounded by a limit that may change on reload.
#[derive(Debug)]
pub(crate) struct ConnLimit {
    now: AtomicU32,
    /// Those that wait for a place.
    waiting: AtomicU32,
    freed: Notify,
    /// Requests that holders of less important permits give them up.
    wanted: AtomicU32,
    /// Tells that the limit is reached.
    said: LogThrottle,
    /// Another one in which all of these count as well.
    within: Option<Arc<Self>>,
}

/// The place of one connection in a [`ConnLimit`]; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct ConnPermit {
    limit: Arc<ConnLimit>,
}

impl Default for ConnLimit {
    fn default() -> Self {
        Self {
            now: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
            wanted: AtomicU32::new(0),
            said: LogThrottle::new(SAY_AGAIN),
            within: None,
        }
    }
}

impl ConnLimit {
    const MOST_WANTED: u32 = 16;

    /// A limit whose connections also count in `all`, without being bounded there.
    #[must_use]
    pub(crate) fn within(all: &Arc<Self>) -> Self {
        Self { within: Some(Arc::clone(all)), ..Self::default() }
    }

    /// Counts one more, unless there are `max` already.
    #[must_use]
    pub(crate) fn acquire(self: &Arc<Self>, max: u32) -> Option<ConnPermit> {
        // Workers race here; adding first keeps the bound exact without a loop.
        if self.now.fetch_add(1, Ordering::Relaxed) >= max {
            self.now.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if let Some(all) = &self.within {
            all.now.fetch_add(1, Ordering::Relaxed);
        }
        Some(ConnPermit { limit: Arc::clone(self) })
    }

    /// What lets the log say so often that the limit is reached, whatever happens at others.
    #[must_use]
    pub(crate) fn said(&self) -> &LogThrottle {
        &self.said
    }

    /// Asks the holder of a less important permit to give it up. At most 16 such requests are kept.
    pub(crate) fn want(&self) {
        let few = |wanted: u32| (wanted < Self::MOST_WANTED).then_some(wanted + 1);
        let _enough_are_open = self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, few);
    }

    /// Returns true while such a request is open.
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Answers one request: a permit was given up.
    pub(crate) fn give(&self) {
        let less = |wanted: u32| wanted.checked_sub(1);
        let _none_open = self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Resolves when a permit has come free since there were `most` or more; at once when there are fewer.
    pub(crate) async fn below(&self, most: u32) {
        let _waiting = Waiting::new(&self.waiting);
        let mut freed = pin!(self.freed.notified());
        freed.as_mut().enable();
        if self.now.load(Ordering::SeqCst) >= most {
            freed.await;
        }
    }

    fn release(&self) {
        // In order with what waits: it registers, then looks at the number.
        self.now.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Returns the number of permits.
    #[must_use]
    pub(crate) fn count(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }
}

impl Drop for ConnPermit {
    fn drop(&mut self) {
        self.limit.release();
        if let Some(all) = &self.limit.within {
            all.release();
        }
    }
}

struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_exceeded_and_dropped_permits_free_their_place() {
        let limit = Arc::new(ConnLimit::default());
        let first = limit.acquire(2).unwrap();
        let second = limit.acquire(2).unwrap();
        assert!(limit.acquire(2).is_none());
        assert_eq!(limit.count(), 2);
        drop(first);
        let third = limit.acquire(2);
        assert!(third.is_some());
        assert!(limit.acquire(1).is_none(), "a lowered limit holds for the next one");
        drop((second, third));
        assert_eq!(limit.count(), 0);
    }
}
