//! The one timer of a connection, moved from stage to stage.
//!
//! Making a timer costs a lock and, in the wrong moment, a wake-up of the worker's own event loop; moving one to a later
//! time costs an atomic store. So a connection has one for the deadlines of its beginning, which then tells the relay
//! that the connection is no longer young, and goes on for the limits of silence and standstill where there are any.

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

    /// Makes sure that it is over at `deadline`, or sooner.
    fn set_by(&mut self, deadline: Instant) {
        if self.sleep.as_ref().is_none_or(|sleep| sleep.deadline() > deadline) {
            self.set(deadline);
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
    /// Longest silence.
    limit: Option<Duration>,
    last: Instant,
    /// When to look at what stands still.
    look: Option<Instant>,
    young: bool,
}

/// An event of a connection's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The connection has lived for some seconds. Told once.
    Grown,
    /// Nothing was noted for the limit. Told again and again until something is.
    Silent,
    /// The time of [`Age::look_after`] is over.
    Look,
}

impl Age {
    /// Age at which a connection counts as grown, if its timer is not set to something sooner already.
    const YOUTH: Duration = Duration::from_secs(5);

    /// Goes on with the timer of the stages before. Without a `limit` it never tells [`Event::Silent`].
    pub(super) fn new(mut timer: Timer, limit: Option<Duration>) -> Self {
        let last = Instant::now();
        // What is left of a connect deadline is as good a moment as any.
        timer.set_by(last + limit.map_or(Self::YOUTH, |limit| limit.min(Self::YOUTH)));
        Self { timer, limit, last, look: None, young: true }
    }

    /// Something happened.
    pub(super) fn note(&mut self) {
        if self.limit.is_some() {
            self.last = Instant::now();
        }
    }

    /// From now on, silence means nothing noted for `limit`.
    pub(super) fn limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
        if let Some(limit) = limit {
            self.last = Instant::now();
            self.timer.set_by(self.last + limit);
        }
    }

    /// Tells [`Event::Look`] once, `after` now. A time that runs already stays as it is, which costs nothing.
    pub(super) fn look_after(&mut self, after: Duration) {
        if self.look.is_none() {
            let at = Instant::now() + after;
            self.look = Some(at);
            self.timer.set_by(at);
        }
    }

    /// Returns the next event.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            ready!(self.timer.poll(cx));
            let now = Instant::now();
            let deadline = self.limit.map(|limit| self.last + limit);
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.last = now;
                return Poll::Ready(Event::Silent);
            }
            if self.look.is_some_and(|look| look <= now) {
                self.look = None;
                return Poll::Ready(Event::Look);
            }
            match [deadline, self.look].into_iter().flatten().min() {
                Some(next) => self.timer.set(next),
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
    async fn silence_is_one_limit_after_the_last_activity() {
        let mut age = Age::new(Timer::default(), Some(Duration::from_secs(20)));
        assert_eq!(next(&mut age).await.0, Event::Grown);
        tokio::time::advance(Duration::from_secs(10)).await;
        age.note();
        let (event, after) = next(&mut age).await;
        assert!(event == Event::Silent && about(20_000).contains(&after), "{event:?} after {after}");
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
    async fn a_new_limit_counts_from_now_and_tells_again() {
        let mut age = Age::new(Timer::default(), None);
        age.limit(Some(Duration::from_secs(2)));
        for (time, expected, millis) in [
            ("first", Event::Silent, 2000),
            ("a timer that is over is as good a moment as any", Event::Grown, 0),
            ("second", Event::Silent, 2000),
        ] {
            let (event, after) = next(&mut age).await;
            assert!(event == expected && about(millis).contains(&after), "{time}: {event:?} after {after}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_told_once_and_a_second_wish_does_not_delay_it() {
        let mut age = Age::new(Timer::default(), Some(Duration::from_secs(60)));
        assert_eq!(next(&mut age).await.0, Event::Grown);
        age.look_after(Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(2)).await;
        age.look_after(Duration::from_secs(3));
        let (event, after) = next(&mut age).await;
        assert!(event == Event::Look && about(1000).contains(&after), "{event:?} after {after}");
        let (event, after) = next(&mut age).await;
        assert!(event == Event::Silent && about(52_000).contains(&after), "{event:?} after {after}");
    }
}
