//! How many sessions that nothing speaks for may begin while datagrams come faster than they are read.
//!
//! Beginning a session takes tens of times what forwarding a datagram does. Without more, a flood of what any address can
//! make up has the queue of the listening socket overflow, and the kernel drops everybody's datagrams alike. So such
//! beginnings are thinned until the queue is read to its end again: what is established, a hello that selects a rule and
//! a WireGuard initiation wait behind nothing. At least [`LEAST`] begin whatever comes, since clients of a default target
//! cannot be told from the flood.

use std::time::Duration;

/// A queue that has not been read to its end for so long is one that does not become shorter by itself. Also how often the
/// allowance changes.
pub(super) const STANDING: Duration = Duration::from_millis(50);
/// Beginnings in [`STANDING`] that are allowed whatever comes.
pub(super) const LEAST: u32 = 10;
/// An allowance that is no limit any more: more than a processor begins in [`STANDING`].
const ENOUGH: u32 = 8192;

/// The allowance, which is halved while a queue stands and grows by an eighth while none does.
#[derive(Debug, Default)]
pub(super) struct Overload {
    /// Beginnings in each [`STANDING`]; `None` without a limit.
    allowed: Option<u32>,
    /// Beginnings since the allowance was last looked at.
    begun: u32,
    /// A queue has stood since.
    stood: bool,
    /// When it is looked at again.
    next: Duration,
}

impl Overload {
    /// A listening socket holds more than was read, and has since `since`.
    pub(super) fn stands(&mut self, since: Duration, now: Duration) {
        self.stood |= now.saturating_sub(since) >= STANDING;
        self.look(now);
    }

    /// Takes one beginning out of the allowance; false where none is left.
    pub(super) fn allows(&mut self, now: Duration) -> bool {
        self.look(now);
        let allows = self.allowed.is_none_or(|allowed| self.begun < allowed);
        self.begun = self.begun.saturating_add(u32::from(allows));
        allows
    }

    fn look(&mut self, now: Duration) {
        if now < self.next {
            return;
        }
        self.allowed = match self.allowed {
            // What is allowed beyond what came did no harm.
            allowed if self.stood => Some((self.begun.min(allowed.unwrap_or(ENOUGH)) / 2).max(LEAST)),
            Some(allowed) => Some(allowed + allowed.div_ceil(8)).filter(|allowed| *allowed < ENOUGH),
            None => None,
        };
        (self.begun, self.stood) = (0, false);
        self.next = now.saturating_add(STANDING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is begun in one interval when `asked` want to, on a machine that can begin `most` without a queue. The queue
    /// has stood for `stood` by the end.
    fn interval(overload: &mut Overload, asked: u32, most: u32, stood: &mut Duration, now: &mut Duration) -> u32 {
        let begun = (0..asked).filter(|_| overload.allows(*now)).count();
        let begun = u32::try_from(begun).unwrap();
        *stood = if begun > most { *stood + STANDING } else { Duration::ZERO };
        *now += STANDING;
        if begun > most {
            overload.stands(now.saturating_sub(*stood), *now);
        }
        begun
    }

    #[test]
    fn a_worker_that_keeps_up_refuses_nobody() {
        let (mut overload, mut stood, mut now) = (Overload::default(), Duration::ZERO, Duration::ZERO);
        for asked in [1, 100, 2 * ENOUGH] {
            assert_eq!(interval(&mut overload, asked, u32::MAX, &mut stood, &mut now), asked);
        }
    }

    #[test]
    fn a_queue_stands_after_a_while_only() {
        for (row, since, refuses) in [("a burst", Duration::from_nanos(1), false), ("longer", Duration::ZERO, true)] {
            let mut overload = Overload::default();
            assert!(overload.allows(Duration::ZERO));
            overload.stands(since, STANDING);
            let refused = (0..=LEAST).any(|_| !overload.allows(STANDING));
            assert_eq!(refused, refuses, "{row}");
        }
    }

    #[test]
    fn a_flood_gets_what_the_worker_can_begin() {
        let (mut overload, mut stood, mut now) = (Overload::default(), Duration::ZERO, Duration::ZERO);
        let mut begun: Vec<u32> = Vec::new();
        for _ in 0..200 {
            begun.push(interval(&mut overload, 5_000, 300, &mut stood, &mut now));
        }
        let settled = &begun[20..];
        let most = settled.iter().max().unwrap();
        let mean = settled.iter().sum::<u32>() / u32::try_from(settled.len()).unwrap();
        assert!(*most < 400 && (150..300).contains(&mean), "{most} {mean}: {settled:?}");
        // And soon after it everybody.
        let after = (0..100).position(|_| {
            now += STANDING;
            (0..ENOUGH).all(|_| overload.allows(now))
        });
        assert!(after.is_some());
    }

    #[test]
    fn some_begin_whatever_comes() {
        let (mut overload, mut stood, mut now) = (Overload::default(), Duration::ZERO, Duration::ZERO);
        let last = (0..100).map(|_| interval(&mut overload, 100_000, 0, &mut stood, &mut now)).last();
        assert_eq!(last, Some(LEAST));
    }
}
