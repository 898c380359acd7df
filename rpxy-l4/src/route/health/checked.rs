//! What checks have found: of one address ([`Standing`]), and of a target with all its addresses ([`Checked`]).
//!
//! An address is that of a backend with its port, whatever port the check asks. Checkers write, balancing reads. It errs towards up: what was never checked counts as up, and a target is down only
//! when each of its addresses is.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::millis;

/// One address as one check sees it, shared by all targets that have it. Times are the daemon's uptime.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Since when it is down, in milliseconds; 0 when it is up.
    down_since: AtomicU64,
    passed: AtomicU64,
    failed: AtomicU64,
    /// What the last failed check met.
    reason: Mutex<Option<Arc<str>>>,
    wanted: Notify,
}

impl Standing {
    /// Another one that is as this is now.
    #[must_use]
    pub(crate) fn successor(&self) -> Self {
        let down_since = AtomicU64::new(self.down_since.load(Ordering::Acquire));
        Self { down_since, reason: Mutex::new(self.reason()), ..Self::default() }
    }

    /// A check has passed.
    pub(crate) fn passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// A check has failed for `reason`.
    pub(crate) fn failed(&self, reason: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut last = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(reason) {
            *last = Some(reason.into());
        }
    }

    /// It counts as down from `now` on.
    pub(crate) fn set_down(&self, now: Duration) {
        self.down_since.store(millis(now).max(1), Ordering::Release);
    }

    /// It counts as up again.
    pub(crate) fn set_up(&self) {
        self.down_since.store(0, Ordering::Release);
    }

    /// Since when it is down.
    #[must_use]
    pub(crate) fn down_since(&self) -> Option<Duration> {
        match self.down_since.load(Ordering::Acquire) {
            0 => None,
            since => Some(Duration::from_millis(since)),
        }
    }

    /// What the last failed check met.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks that passed, and that failed.
    #[must_use]
    fn counts(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Waits until somebody has reason to doubt it.
    pub(crate) async fn doubted(&self) {
        self.wanted.notified().await;
    }
}

/// What one check has found of one target.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    addresses: ArcSwap<Vec<(Option<SocketAddr>, Arc<Standing>)>>,
    /// Told when an address has gone down.
    fallen: watch::Sender<()>,
}

impl Checked {
    /// The addresses that are checked from now on.
    pub(crate) fn set(&self, addresses: Vec<(Option<SocketAddr>, Arc<Standing>)>) {
        self.addresses.store(Arc::new(addresses));
    }

    /// The addresses that are checked.
    #[must_use]
    pub(crate) fn addresses(&self) -> Arc<Vec<(Option<SocketAddr>, Arc<Standing>)>> {
        self.addresses.load_full()
    }

    /// Returns whether each of its addresses is down.
    #[must_use]
    pub(crate) fn is_down(&self) -> bool {
        let addresses = self.addresses.load();
        !addresses.is_empty() && addresses.iter().all(|(_, standing)| standing.down_since().is_some())
    }

    /// Since when `address` is down, the path of a unix socket for `None`; `None` when it is up, or not known.
    #[must_use]
    pub(crate) fn down_since(&self, address: Option<SocketAddr>) -> Option<Duration> {
        let addresses = self.addresses.load();
        let (_, standing) = addresses.iter().find(|(checked, _)| *checked == address)?;
        standing.down_since()
    }

    /// Checks that passed, and that failed, of the addresses that it has now.
    #[must_use]
    pub(crate) fn counts(&self) -> (u64, u64) {
        let each = self.addresses.load();
        let counts = each.iter().map(|(_, standing)| standing.counts());
        counts.fold((0, 0), |(passed, failed), (more, others)| (passed + more, failed + others))
    }

    /// What the last failed check of an address that is down has met.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        let addresses = self.addresses.load();
        let (_, down) = addresses.iter().find(|(_, standing)| standing.down_since().is_some())?;
        down.reason()
    }

    /// Connections give reason to doubt the target: it is checked soon.
    pub(crate) fn doubt(&self) {
        for (_, standing) in self.addresses.load().iter() {
            standing.wanted.notify_one();
        }
    }

    /// Tells those who wait in [`Checked::fallen`] that an address has gone down.
    pub(crate) fn tell_fallen(&self) {
        self.fallen.send_replace(());
    }

    /// Waits until `address` goes down after `since`.
    pub(crate) async fn fallen(self: Arc<Self>, address: Option<SocketAddr>, since: Duration) {
        let mut fallen = self.fallen.subscribe();
        while self.down_since(address).is_none_or(|at| at <= since) {
            // The sender is a part of `self`.
            drop(fallen.changed().await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked() -> (Arc<Checked>, [Arc<Standing>; 2]) {
        let checked = Arc::new(Checked::default());
        let standings = [Arc::default(), Arc::default()];
        checked.set([ip(1), ip(2)].into_iter().zip(standings.clone()).collect());
        (checked, standings)
    }

    fn ip(last: u8) -> Option<SocketAddr> {
        Some(([192, 0, 2, last], 443).into())
    }

    #[test]
    fn a_target_is_down_when_each_of_its_addresses_is() {
        let (checked, [one, two]) = checked();
        let at = Duration::from_secs;
        assert!(!Checked::default().is_down(), "of which nothing is known");
        assert!(!checked.is_down());
        one.set_down(at(5));
        assert!(!checked.is_down(), "the other address is up");
        assert_eq!((checked.down_since(ip(1)), checked.down_since(ip(2))), (Some(at(5)), None));
        assert_eq!(checked.down_since(ip(3)), None, "an address that is not checked");
        two.set_down(at(6));
        assert!(checked.is_down());
        one.set_up();
        assert!(!checked.is_down());
    }

    #[tokio::test]
    async fn who_waits_for_an_address_to_go_down_is_told_of_that_address_and_that_time() {
        let (checked, [one, two]) = checked();
        let at = Duration::from_secs;
        one.set_down(at(5));
        let mut later = waiting(Arc::clone(&checked).fallen(ip(1), at(6)));
        assert!(!later.is_over().await, "it was down when the connection began");
        two.set_down(at(7));
        checked.tell_fallen();
        assert!(!later.is_over().await, "another address");
        one.set_up();
        one.set_down(at(8));
        checked.tell_fallen();
        assert!(later.is_over().await);
    }

    struct Task(std::pin::Pin<Box<dyn Future<Output = ()>>>);

    fn waiting(future: impl Future<Output = ()> + 'static) -> Task {
        Task(Box::pin(future))
    }

    impl Task {
        async fn is_over(&mut self) -> bool {
            std::future::poll_fn(|cx| std::task::Poll::Ready(self.0.as_mut().poll(cx).is_ready())).await
        }
    }
}
