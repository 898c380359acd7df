//! The one timer of a connection, moved from stage to stage.
//!
//! Making a timer costs a lock and, in the wrong moment, a wake-up of the worker's own event loop; moving one to a later
//! time costs an atomic store. So a connection has one for the deadlines of its beginning, which then tells the relay
//! that the connection is no longer young, and goes on as its idle timer where there is one.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is made when it is first waited for.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// The output of `future`, or `None` if `deadline` passes first.
    pub(super) async fn limit<T>(&mut self, deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut set = false;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if !set {
                set = true;
                self.set(deadline);
            }
            self.poll(cx).map(|()| None)
        })
        .await
    }

    fn set(&mut self, deadline: Instant) {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline),
            None => self.sleep = Some(Box::pin(sleep_until(deadline))),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

/// A relayed connection's view of time.
#[derive(Debug)]
pub(super) struct Age {
    timer: Timer,
    idle: Option<Duration>,
    last: Instant,
    young: bool,
}

/// An event of a connection's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The connection has lived for some seconds. Told once.
    Grown,
    /// Nothing was noted for the idle limit.
    Idle,
}

impl Age {
    /// Age at which a connection counts as grown, if its timer is not set to something sooner already.
    const YOUTH: Duration = Duration::from_secs(5);

    /// Goes on with the timer of the stages before. Without an `idle` limit it never tells [`Event::Idle`].
    pub(super) fn new(mut timer: Timer, idle: Option<Duration>) -> Self {
        let last = Instant::now();
        let first = idle.map_or(Self::YOUTH, |idle| idle.min(Self::YOUTH));
        // What is left of a connect deadline is as good a moment as any.
        if timer.sleep.as_ref().is_none_or(|sleep| sleep.deadline() > last + first) {
            timer.set(last + first);
        }
        Self { timer, idle, last, young: true }
    }

    /// Something happened.
    pub(super) fn note(&mut self) {
        if self.idle.is_some() {
            self.last = Instant::now();
        }
    }

    /// From now on, idle means nothing noted for `limit`.
    pub(super) fn limit_idle(&mut self, limit: Duration) {
        self.idle = Some(limit);
        self.last = Instant::now();
        self.timer.set(self.last + limit);
    }

    /// Returns the next event.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            ready!(self.timer.poll(cx));
            let deadline = self.idle.map(|idle| self.last + idle);
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Poll::Ready(Event::Idle);
            }
            match deadline {
                Some(deadline) => self.timer.set(deadline),
                None => self.timer = Timer::default(),
            }
            if self.young {
                self.young = false;
                return Poll::Ready(Event::Grown);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(age: &mut Age) -> (Event, u64) {
        let start = Instant::now();
        let event = poll_fn(|cx| age.poll(cx)).await;
        (event, u64::try_from(start.elapsed().as_millis()).unwrap())
    }

    fn about(millis: u64) -> std::ops::RangeInclusive<u64> {
        millis..=millis + 10
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_in_time_needs_no_timer_and_a_late_one_is_given_up() {
        let mut timer = Timer::default();
        let soon = Instant::now() + Duration::from_secs(1);
        assert_eq!(timer.limit(soon, async { 7 }).await, Some(7));
        assert!(timer.sleep.is_none());
        assert_eq!(timer.limit(soon, std::future::pending::<()>()).await, None);
        assert!(about(0).contains(&u64::try_from((Instant::now() - soon).as_millis()).unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_idle_limit_growing_up_is_the_last_event() {
        let mut age = Age::new(Timer::default(), None);
        let (event, after) = next(&mut age).await;
        assert!(event == Event::Grown && about(5000).contains(&after), "{event:?} after {after}");
        assert!(poll_fn(|cx| Poll::Ready(age.poll(cx).is_pending())).await);
        assert!(age.timer.sleep.is_none(), "a grown connection holds no timer");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_one_limit_after_the_last_activity() {
        let mut age = Age::new(Timer::default(), Some(Duration::from_secs(20)));
        assert_eq!(next(&mut age).await.0, Event::Grown);
        tokio::time::advance(Duration::from_secs(10)).await;
        age.note();
        let (event, after) = next(&mut age).await;
        assert!(event == Event::Idle && about(20_000).contains(&after), "{event:?} after {after}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_left_over_is_used_as_it_is() {
        let mut timer = Timer::default();
        let left_over = Instant::now() + Duration::from_secs(3);
        let pending_once = async {
            tokio::task::yield_now().await;
        };
        assert_eq!(timer.limit(left_over, pending_once).await, Some(()));
        let (event, after) = next(&mut Age::new(timer, None)).await;
        assert!(event == Event::Grown && about(3000).contains(&after), "{event:?} after {after}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_limit_counts_from_now() {
        let mut age = Age::new(Timer::default(), None);
        age.limit_idle(Duration::from_secs(2));
        let (event, after) = next(&mut age).await;
        assert!(event == Event::Idle && about(2000).contains(&after), "{event:?} after {after}");
    }
}
