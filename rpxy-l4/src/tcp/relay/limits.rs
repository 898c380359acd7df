//! How long a connection may be silent, half-closed or at a standstill.

use std::time::Duration;

use tokio::net::TcpStream;

use super::{Half, Traffic};
use crate::{config::model::Tcp, metrics::Outcome, net};

/// Time limits of a relayed connection; `None` is never.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::tcp) struct Limits {
    /// Silence.
    pub(super) idle: Option<Duration>,
    /// Silence after the client has ended its side.
    pub(super) half_closed: Option<Duration>,
    /// Silence after the backend has ended its side.
    pub(super) backend_closed: Option<Duration>,
    /// Standstill of bytes that wait for a side.
    pub(super) stall: Option<Duration>,
}

impl Limits {
    /// The limits that `settings` tell.
    pub(in crate::tcp) fn of(settings: &Tcp) -> Self {
        Self {
            idle: settings.idle_timeout,
            half_closed: settings.half_closed_timeout,
            backend_closed: settings.backend_closed_timeout,
            stall: settings.stall_timeout,
        }
    }

    /// The longest silence of a connection with these sides ended, and what it is called.
    pub(super) fn silence(&self, client_ended: bool, backend_ended: bool) -> (Option<Duration>, Outcome) {
        let half_closed = match (client_ended, backend_ended) {
            (true, _) => self.half_closed,
            (false, true) => self.backend_closed,
            (false, false) => None,
        };
        match (self.idle, half_closed) {
            (idle, Some(half_closed)) if idle.is_none_or(|idle| half_closed < idle) => {
                (Some(half_closed), Outcome::HalfClosed)
            }
            (idle, _) => (idle, Outcome::Idle),
        }
    }
}

/// Looks at bytes that wait, by which a standstill is found.
///
/// A socket that takes no more from us may still deliver what it has, slowly. So what counts is what its peer has
/// acknowledged: a reader of a few bytes a second is slow, one of none at all has stalled.
#[derive(Debug, Default)]
pub(super) struct Looks {
    up: Look,
    down: Look,
    /// Bytes that had arrived at both sides when they were last found silent.
    arrived: (u64, u64),
}

#[derive(Debug, Default)]
struct Look {
    /// Bytes that had arrived, less a constant.
    arrived: u64,
    /// Looks in a row that found nothing new; 0 is no look yet.
    same: u8,
}

impl Looks {
    /// Looks within the time of a standstill.
    const MANY: u8 = 4;

    /// Interval of looking for standstills of `stall`.
    pub(super) fn interval(stall: Duration) -> Duration {
        stall / u32::from(Self::MANY)
    }

    /// Returns whether what has `arrived` at both sides has changed since the last call.
    pub(super) fn moves(&mut self, arrived: (u64, u64)) -> bool {
        std::mem::replace(&mut self.arrived, arrived) != arrived
    }

    /// Looks once; true if bytes of a half have waited for all the time of a standstill.
    pub(super) fn find(&mut self, halves: [(&Half, &TcpStream); 2], traffic: &Traffic) -> bool {
        let [(up, backend), (down, client)] = halves;
        let up = self.up.find(up.is_blocked().then(|| arrived(traffic.up, backend)));
        let down = self.down.find(down.is_blocked().then(|| arrived(traffic.down, client)));
        up || down
    }
}

impl Look {
    /// What has `arrived`, of a half that waits.
    fn find(&mut self, arrived: Option<u64>) -> bool {
        match arrived {
            Some(arrived) if self.same > 0 && arrived == self.arrived => self.same = self.same.saturating_add(1),
            Some(arrived) => *self = Self { arrived, same: 1 },
            None => *self = Self::default(),
        }
        self.same > Looks::MANY
    }
}

/// Bytes that have arrived of those `moved` to `sink`, less those of our own header.
pub(super) fn arrived(moved: u64, sink: &TcpStream) -> u64 {
    moved.wrapping_sub(net::undelivered(sink).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_limit_that_holds_names_the_end() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let limits = |idle| Limits { idle, half_closed: seconds(3600), backend_closed: seconds(60), stall: None };
        for (row, idle, client, backend, expected) in [
            ("open, no limit", None, false, false, (None, Outcome::Idle)),
            ("open", seconds(90), false, false, (seconds(90), Outcome::Idle)),
            ("the client has ended", None, true, false, (seconds(3600), Outcome::HalfClosed)),
            ("the client has ended, idle is shorter", seconds(90), true, false, (seconds(90), Outcome::Idle)),
            ("the backend has ended", None, false, true, (seconds(60), Outcome::HalfClosed)),
            ("the backend has ended, idle is longer", seconds(90), false, true, (seconds(60), Outcome::HalfClosed)),
        ] {
            assert_eq!(limits(idle).silence(client, backend), expected, "{row}");
        }
    }

    #[test]
    fn a_standstill_is_four_intervals_without_a_byte() {
        let (mut look, waiting) = (Look::default(), Some(7));
        let mut find = |arrived| look.find(arrived);
        for (row, arrived, expected) in [
            ("the first look", waiting, false),
            ("one interval", waiting, false),
            ("two", waiting, false),
            ("three", waiting, false),
            ("a byte", Some(8), false),
            ("one", Some(8), false),
            ("nothing waits", None, false),
            ("the first look again", Some(8), false),
            ("one", Some(8), false),
            ("two", Some(8), false),
            ("three", Some(8), false),
            ("four", Some(8), true),
        ] {
            assert_eq!(find(arrived), expected, "{row}");
        }
    }
}
