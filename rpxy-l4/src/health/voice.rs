//! Which changes of a target's health the log tells: each address seldom, and all together so many at most, since a
//! network that breaks takes hundreds of targets with it.

use std::time::Duration;

/// Interval of log messages about one address that falls.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Messages in one interval about all addresses together.
const MOST_LINES: u32 = 50;

/// What the log has been told of one address. Times are the daemon's uptime.
#[derive(Debug, Default)]
pub(super) struct Told {
    quiet_until: Duration,
    said_down: bool,
}

/// What the log has been told of all.
#[derive(Debug, Default)]
pub(super) struct Voice {
    since: Duration,
    lines: u32,
    withheld: u32,
}

impl Voice {
    /// The address has gone down at `now`; returns whether to say so, and how many messages were withheld before.
    pub(super) fn fallen(&mut self, told: &mut Told, now: Duration) -> Option<u32> {
        if now < told.quiet_until {
            return None;
        }
        told.quiet_until = now.saturating_add(SAY_AGAIN);
        let withheld = self.speak(now)?;
        told.said_down = true;
        Some(withheld)
    }

    /// The address is up again; the log says so of those that it has called down.
    pub(super) fn risen(&mut self, told: &mut Told, now: Duration) -> Option<u32> {
        if std::mem::replace(&mut told.said_down, false) { self.speak(now) } else { None }
    }

    /// The messages withheld in an interval that is over and in which none came to tell of them.
    pub(super) fn owed(&mut self, now: Duration) -> Option<u32> {
        let over = now >= self.since.saturating_add(SAY_AGAIN);
        (over && self.withheld > 0).then(|| std::mem::take(&mut self.withheld))
    }

    fn speak(&mut self, now: Duration) -> Option<u32> {
        if now >= self.since.saturating_add(SAY_AGAIN) {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines >= MOST_LINES {
            self.withheld = self.withheld.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_address_is_spoken_of_once_a_minute_and_risen_as_often_as_fallen() {
        let (mut voice, mut told, mut said) = (Voice::default(), Told::default(), (0, 0));
        for second in 0..120 {
            let now = Duration::from_secs(second);
            said.0 += u32::from(voice.fallen(&mut told, now).is_some());
            said.1 += u32::from(voice.risen(&mut told, now).is_some());
        }
        assert_eq!(said, (2, 2));
    }

    #[test]
    fn many_addresses_at_once_are_counted_beyond_a_bound() {
        let mut voice = Voice::default();
        let mut fall = |seconds| voice.fallen(&mut Told::default(), Duration::from_secs(seconds));
        assert!((0..MOST_LINES).all(|_| fall(1) == Some(0)));
        assert_eq!((fall(1), fall(59)), (None, None));
        assert_eq!((fall(60), fall(60)), (Some(2), Some(0)), "told with the next one");
        assert!((0..MOST_LINES - 2).all(|_| fall(61) == Some(0)) && fall(62).is_none());
        let at = Duration::from_secs;
        assert_eq!([119, 120, 121].map(|seconds| voice.owed(at(seconds))), [None, Some(1), None], "or by itself");
    }
}
