//! The end of a connection whose target a check has found to be down.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use super::end::{End, Side};
use crate::{metrics::Outcome, route::Endpoint};

/// Tells when the target of a connection has gone down.
///
/// A relay is polled for every few packets, and what tells takes a lock: so it is asked only when it has something to say.
pub(super) struct Ending {
    down: Pin<Box<dyn Future<Output = ()> + Send>>,
    bell: Arc<Bell>,
    /// Wakes what the connection's task waits for.
    waker: Waker,
    /// Whom the bell wakes by now.
    task: Option<Waker>,
}

/// Remembers that it was rung, and wakes the connection's task.
#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Ending {
    /// For a connection to `address` of `endpoint`, to its path for `None`, that began at `since`; `None` where no check ends connections.
    pub(super) fn new(endpoint: &Endpoint, address: Option<SocketAddr>, since: Duration) -> Option<Box<Self>> {
        let active = endpoint.active.as_ref().filter(|active| active.check.close)?;
        Some(Box::new(Self::when(Arc::clone(&active.checked).fallen(address, since))))
    }

    fn when(down: impl Future<Output = ()> + Send + 'static) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::default() });
        Self { down: Box::pin(down), waker: Waker::from(Arc::clone(&bell)), bell, task: None }
    }

    /// Ready when the target has gone down.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            self.bell.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.task);
        }
        if !self.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.bell.rung.store(false, Ordering::Release);
        self.down.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

/// A connection that ends with its target.
#[derive(Debug)]
pub(super) struct Until<R> {
    /// Rare, so its state is not part of every task.
    pub(super) ending: Option<Box<Ending>>,
    /// Its relay, or what has it in the kernel plane.
    pub(super) relay: R,
}

impl<T: From<End>, R: Future<Output = T> + Unpin> Future for Until<R> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(ending) = &mut self.ending
            && ending.poll(cx).is_ready()
        {
            return Poll::Ready(End { outcome: Outcome::TargetDown, reset: Some(Side::Both) }.into());
        }
        Pin::new(&mut self.relay).poll(cx)
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    #[derive(Debug, Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_tells_is_asked_only_when_it_has_something_to_say() {
        let (notify, asked) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let mut ending = Ending::when({
            let (notify, asked) = (Arc::clone(&notify), Arc::clone(&asked));
            async move {
                let mut down = Box::pin(notify.notified());
                std::future::poll_fn(|cx| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    down.as_mut().poll(cx)
                })
                .await;
            }
        });
        let tasks: [Arc<Woken>; 2] = Default::default();
        let poll = |ending: &mut Ending, task: &Arc<Woken>| {
            ending.poll(&mut Context::from_waker(&Waker::from(Arc::clone(task)))).is_ready()
        };
        for _ in 0..5 {
            assert!(!poll(&mut ending, &tasks[0]));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(!poll(&mut ending, &tasks[1]), "another task goes on");
        notify.notify_waiters();
        let woken = tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1], "the one that waits now is woken");
        assert!(poll(&mut ending, &tasks[1]));
    }
}
