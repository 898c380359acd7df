//! What speaks against the backend of a session: refusals and handshakes without an answer since it answered last.
//!
//! One of them proves nothing: datagrams get lost, and a backend that is being restarted refuses for a moment. It takes
//! several, over a time, and any answer refutes them all. So it errs towards staying.

use std::{num::NonZeroU64, time::Duration};

/// Refusals, or handshakes without an answer, after which a backend counts as gone.
const SEVERAL: u8 = 3;
/// Time over which refusals have to come: a backend that restarts is back sooner.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// Time over which handshakes have to come. QUIC repeats itself after 1 s and 3 s (RFC 9002 section 6.2), WireGuard every
/// 5 s (section 6.1 of its paper).
const SILENT_FOR: Duration = Duration::from_millis(2500);
/// What comes closer together is one attempt, in several datagrams.
const APART: Duration = Duration::from_millis(200);
/// Time for which a client has to go on without an answer until the backend is not believed to be at its old address.
const WAITED_FOR: Duration = Duration::from_secs(5);

/// Evidence against a session's backend.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Doubt {
    refusals: Attempts,
    handshakes: Attempts,
    /// Datagrams of the client.
    asked: Attempts,
    /// When it was last taken back from the kernel, so that its answers are seen, in nanoseconds.
    taken_back: Option<NonZeroU64>,
    /// It has been taken back, and was not answered since.
    returns: bool,
}

/// Attempts without an answer. Every session has three of them.
#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    /// When the first was, in nanoseconds.
    first: u64,
    /// Milliseconds from that to the last.
    lasted: u32,
    times: u8,
}

impl Attempts {
    fn add(&mut self, now: Duration) {
        if self.times == 0 {
            self.first = nanoseconds(now);
        }
        let since = now.saturating_sub(self.first());
        if self.times > 0 && since < self.lasted().saturating_add(APART) {
            return;
        }
        self.lasted = u32::try_from(since.as_millis()).unwrap_or(u32::MAX);
        self.times = self.times.saturating_add(1);
    }

    fn first(&self) -> Duration {
        Duration::from_nanos(self.first)
    }

    fn lasted(&self) -> Duration {
        Duration::from_millis(self.lasted.into())
    }

    fn last_for(&self, time: Duration) -> bool {
        self.lasted() >= time
    }
}

/// The daemon's uptime in nanoseconds, for 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Doubt {
    /// The backend has answered; returns whether the kernel may have the session again.
    pub(super) fn answered(&mut self) -> bool {
        let returns = self.returns;
        *self = Self { taken_back: self.taken_back, ..Self::default() };
        returns
    }

    /// The client has sent a datagram.
    pub(super) fn asked(&mut self, now: Duration) {
        self.asked.add(now);
    }

    /// The backend has refused; returns whether it is gone.
    pub(super) fn refused(&mut self, now: Duration) -> bool {
        self.refusals.add(now);
        self.refusals.times >= SEVERAL && self.refusals.last_for(REFUSED_FOR)
    }

    /// The client has begun a handshake, or repeated it; returns whether the backend is silent.
    pub(super) fn shook_hands(&mut self, now: Duration) -> bool {
        self.handshakes.add(now);
        self.handshakes.times >= SEVERAL && self.handshakes.last_for(SILENT_FOR)
    }

    /// Returns whether a client has gone on for a while without an answer.
    pub(super) fn has_waited(&self) -> bool {
        self.asked.last_for(WAITED_FOR)
    }

    /// Returns whether a client has repeated a handshake without an answer.
    pub(super) fn has_repeated_handshake(&self) -> bool {
        self.handshakes.last_for(SILENT_FOR)
    }

    /// Since when there is something that speaks against the backend.
    pub(super) fn since(&self) -> Option<Duration> {
        [&self.refusals, &self.handshakes].into_iter().filter(|seen| seen.times > 0).map(Attempts::first).min()
    }

    /// Takes a session back from the kernel, so that its answers are seen; false if that was done less than `rest` ago.
    pub(super) fn take_back(&mut self, rest: Duration, now: Duration) -> bool {
        if self.taken_back.is_some_and(|at| now < Duration::from_nanos(at.get()).saturating_add(rest)) {
            return false;
        }
        let taken_back = NonZeroU64::new(nanoseconds(now).max(1));
        *self = Self { taken_back, returns: true, ..Self::default() };
        true
    }

    /// Returns whether it was taken back from the kernel and not answered since.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.returns
    }

    /// There is nowhere else to go: evidence is gathered anew.
    pub(super) fn start_over(&mut self) {
        *self = Self { taken_back: self.taken_back, returns: self.returns, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(1_000_000 + milliseconds)
    }

    #[test]
    fn it_takes_several_over_a_time_and_no_answer() {
        let rows: &[(&str, &[u64], bool)] = &[
            ("too soon", &[0, 500, 1999], false),
            ("just long enough", &[0, 500, 2000], true),
            ("long, but only two", &[0, 60_000], false),
            ("a burst is one", &[0, 1, 2, 3, 4, 199], false),
            ("a burst and another one", &[0, 1, 2, 3, 2500, 2501], false),
            ("many", &[0, 300, 600, 900, 1200, 1500, 1800, 2100], true),
        ];
        for (name, times, expected) in rows {
            let mut doubt = Doubt::default();
            let gone = times.iter().fold(false, |_, time| doubt.refused(at(*time)));
            assert_eq!(gone, *expected, "{name}");
            assert_eq!(doubt.since(), Some(at(0)), "{name}");
            let _returns = doubt.answered();
            assert!(!doubt.refused(at(100_000)) && doubt.since() == Some(at(100_000)), "{name}: an answer refutes it");
        }
    }

    #[test]
    fn handshakes_of_quic_and_wireguard_show_silence_after_the_second_repetition() {
        for (name, times) in [("QUIC", [0, 999, 2997]), ("WireGuard", [0, 5000, 10_000])] {
            let mut doubt = Doubt::default();
            assert_eq!(times.map(|time| doubt.shook_hands(at(time))), [false, false, true], "{name}");
        }
    }

    #[test]
    fn a_session_is_taken_back_seldom_and_given_back_once() {
        let mut doubt = Doubt::default();
        let rest = Duration::from_secs(10);
        assert!(!doubt.answered(), "the kernel has it");
        assert!(doubt.take_back(rest, at(0)));
        assert!(doubt.answered() && !doubt.answered());
        assert!(!doubt.take_back(rest, at(9999)) && doubt.take_back(rest, at(10_000)));
    }
}
