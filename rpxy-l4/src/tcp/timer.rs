//! A deadline that moves with every byte: `tcp_idle_timeout`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires when nothing was noted for a while. Noting activity is one clock read; the timer itself is moved only when it
/// fires early, not for every byte.
#[derive(Debug)]
pub(super) struct IdleTimer {
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
    last: Instant,
}

impl IdleTimer {
    pub(super) fn new(limit: Duration) -> Self {
        let last = Instant::now();
        Self { sleep: Box::pin(sleep_until(last + limit)), limit, last }
    }

    /// Something happened.
    pub(super) fn note(&mut self) {
        self.last = Instant::now();
    }

    /// Ready when nothing was noted for the limit.
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let deadline = self.last + self.limit;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fires_one_limit_after_the_last_activity() {
        let limit = Duration::from_secs(10);
        let start = Instant::now();
        let mut timer = IdleTimer::new(limit);
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(7)).await;
            assert!(std::future::poll_fn(|cx| Poll::Ready(timer.poll_idle(cx).is_pending())).await);
            timer.note();
        }
        std::future::poll_fn(|cx| timer.poll_idle(cx)).await;
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(31) && waited < Duration::from_secs(32), "{waited:?}");
    }
}
