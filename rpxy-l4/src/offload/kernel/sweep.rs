//! The end of spliced connections: those that have ended, were idle for too long, or are to be closed. On the thread
//! `network`.

use std::time::Duration;

use rpxy_l4_common::{
    map::Socket,
    tcp::flow::{Notes, seen},
};

use super::{
    spliced::{Readers, SpliceState, nanoseconds, now, usage},
    state::Inner,
};
use crate::{
    net::repair,
    offload::{
        maps,
        routes::{RoutePair, SpliceLink},
        splice::{Ending, Event, Place, Side},
    },
};

/// How long the entries of a connection that has ended stay, for what its ends send again (RFC 5382 section 5, REQ-5).
const LINGER: Duration = Duration::from_secs(240);
/// Connections that are reset at once: each takes system calls while nothing else is done.
const AT_ONCE: usize = 256;

/// A segment that resets an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reset {
    /// This machine's end, and the peer's.
    ends: [Socket; 2],
    /// The number that the peer expects.
    sequence: u32,
    /// The number that it may expect to have acknowledged.
    acknowledgement: u32,
}

/// What a sweep has found, to be carried out without the lock.
#[derive(Debug, Default)]
struct Swept {
    events: Vec<Event>,
    resets: Vec<Reset>,
    /// There is more to do at once.
    more: bool,
}

impl Swept {
    /// Takes a connection out of the kernel, and has both ends reset.
    fn close(&mut self, splice: &mut SpliceState, notes: &Notes, place: Place, why: Ending, now: u64) {
        let Some(connection) = splice.table.get(place) else { return };
        let (told, since) = (connection.told, connection.since);
        self.resets.extend(Side::BOTH.map(|side| reset(notes, connection.ends(side), side)));
        // Without entries, what comes meanwhile is answered by the network stack, with a reset as well.
        splice.remove(place);
        if !told {
            self.events.push(Event::Ended { place, why, usage: usage(notes, since, now) });
        }
        self.events.push(Event::Free(place));
    }

    /// Looks at a connection, and says when to look again.
    fn look(&mut self, splice: &mut SpliceState, notes: &Notes, place: Place, now: u64) -> Option<u64> {
        let connection = splice.table.get(place)?;
        let (told, since, silence) = (connection.told, connection.since, connection.silence);
        if notes.ended == 0 {
            let ended = notes.sides.map(|side| side.seen & seen::FIN != 0);
            let (limit, why) = silence.limit(ended);
            let silent_at = notes.last_seen.max(since).saturating_add(nanoseconds(limit));
            if silent_at > now {
                // Nobody tells when a side ends.
                let look_at = now.saturating_add(nanoseconds(silence.look_again()));
                return Some(if ended == [false; 2] { silent_at.min(look_at) } else { silent_at });
            }
            self.close(splice, notes, place, why, now);
            return None;
        }
        let free = notes.ended.saturating_add(nanoseconds(LINGER));
        if told && free <= now {
            splice.remove(place);
            self.events.push(Event::Free(place));
            return None;
        }
        if !told {
            for entry in splice.table.end(place).into_iter().flatten() {
                splice.put(&entry);
            }
            if let Some(connection) = splice.table.get_mut(place) {
                connection.told = true;
            }
            self.events.push(Event::Ended { place, why: ending(notes), usage: usage(notes, since, now) });
        }
        Some(free.max(now + 1))
    }

    fn sweep(&mut self, splice: &mut SpliceState, readers: &Readers, now: u64) {
        self.events.extend(splice.gone.drain(..).map(Event::Free));
        while let Some(slot) = splice.maps.next_ended() {
            if let Some(place) = splice.table.place(slot) {
                splice.due.insert((0, slot), place);
            }
        }
        let closing: Vec<Place> = splice.closing.iter().take(AT_ONCE).copied().collect();
        for place in closing {
            splice.closing.remove(&place);
            if let Some(notes) = readers.notes(place.slot) {
                self.close(splice, &notes, place, Ending::Closed, now);
            }
        }
        for _ in 0..AT_ONCE {
            let due = splice.due.first_key_value().map(|(key, place)| (*key, *place));
            let Some((key, place)) = due.filter(|((at, _), _)| *at <= now) else {
                self.more = !splice.closing.is_empty();
                return;
            };
            splice.due.remove(&key);
            let Some(notes) = readers.notes(place.slot) else { continue };
            if let Some(again) = self.look(splice, &notes, place, now) {
                splice.due.insert((again, place.slot), place);
            }
        }
        self.more = true;
    }
}

impl Inner {
    /// Looks at connections that are worth it. Returns true if there are more.
    pub(super) fn sweep(&self) -> bool {
        let Some(readers) = &self.splice else { return false };
        let mut swept = Swept::default();
        if let Some(splice) = &mut self.state().splice {
            swept.sweep(splice, readers, now());
        }
        let Swept { events, resets, more } = swept;
        resets.into_iter().for_each(send);
        if let Some(tell) = self.tell.get() {
            events.into_iter().for_each(tell);
        }
        more
    }

    /// Resets all connections: the daemon ends, and nothing forwards them any more.
    pub(super) fn close_all(&self) {
        if let Some(splice) = &mut self.state().splice {
            let live = splice.table.live_places();
            splice.closing.extend(live);
        }
        while self.sweep() {}
    }

    /// Has packets pass by the interfaces that routes lead to now.
    pub(super) fn reroute_spliced(&self, mut route: impl FnMut(RoutePair) -> Option<u32>) {
        let pairs = self.state().splice.as_ref().map(|splice| splice.table.pairs()).unwrap_or_default();
        for pair in pairs {
            // Looked up without the lock.
            let Some(interface) = route(pair) else { continue };
            let state = &mut *self.state();
            let Some(link) = state.link_of(interface) else { continue };
            state.set_splice_link(pair, link);
        }
    }
}

impl super::state::State {
    fn set_splice_link(&mut self, pair: RoutePair, link: SpliceLink) {
        let Some(splice) = &mut self.splice else { return };
        for entry in splice.table.reroute(pair, link) {
            splice.put(&entry);
        }
    }
}

/// How a connection ended that its ends have ended.
fn ending(notes: &Notes) -> Ending {
    let reset = Side::BOTH.into_iter().zip(notes.sides).find(|(_, noted)| noted.seen & seen::RST != 0);
    reset.map_or(Ending::Finished, |(side, _)| Ending::Reset(side))
}

/// The reset for one end: with the number that it has acknowledged last, the only one that it accepts for sure (RFC 5961
/// section 3.2).
fn reset(notes: &Notes, ends: [Socket; 2], side: Side) -> Reset {
    let [client, backend] = notes.sides;
    let of = if side == Side::Client { client } else { backend };
    Reset { ends, sequence: of.acknowledged, acknowledgement: of.next }
}

fn send(reset: Reset) {
    let Reset { ends: [local, peer], sequence, acknowledgement } = reset;
    let (Some(local), Some(peer)) = (maps::socket_address(&local), maps::socket_address(&peer)) else { return };
    if let Err(error) = repair::reset(local, peer, sequence, acknowledgement) {
        tracing::debug!("kernel plane: cannot reset {peer}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use rpxy_l4_common::tcp::flow;

    use super::*;
    use crate::offload::splice::{Silence, SplicedUsage};

    #[test]
    fn resets_have_the_number_that_each_end_expects() {
        let side = |next, acknowledged| flow::Side { next, acknowledged, ..flow::Side::default() };
        let notes = Notes { sides: [side(10, 20), side(30, 40)], ..Notes::default() };
        let of = |side| reset(&notes, [Socket::default(); 2], side);
        assert_eq!((of(Side::Client).sequence, of(Side::Client).acknowledgement), (20, 10));
        assert_eq!((of(Side::Backend).sequence, of(Side::Backend).acknowledgement), (40, 30));
    }

    #[test]
    fn an_end_is_told_by_what_was_seen() {
        let seen = |client, backend| {
            let mut notes = Notes::default();
            (notes.sides[0].seen, notes.sides[1].seen) = (client, backend);
            ending(&notes)
        };
        let fins = seen::FIN;
        assert_eq!(seen(fins, fins), Ending::Finished);
        assert_eq!(seen(0, seen::RST), Ending::Reset(Side::Backend));
        assert_eq!(seen(fins | seen::RST, fins), Ending::Reset(Side::Client));
    }

    #[test]
    fn silence_is_judged_by_who_has_ended() {
        let seconds = Duration::from_secs;
        let silence = Silence { idle: seconds(100), client_ended: seconds(50), backend_ended: seconds(10) };
        let long = Silence { client_ended: seconds(500), ..silence };
        for (row, silence, ended, expected) in [
            ("nobody", silence, [false, false], (seconds(100), Ending::Idle)),
            ("the client", silence, [true, false], (seconds(50), Ending::HalfClosed)),
            ("the backend", silence, [false, true], (seconds(10), Ending::HalfClosed)),
            ("both, not acknowledged", silence, [true, true], (seconds(50), Ending::HalfClosed)),
            ("the idle limit is shorter", long, [true, false], (seconds(100), Ending::Idle)),
        ] {
            assert_eq!(silence.limit(ended), expected, "{row}");
        }
        assert_eq!(silence.look_again(), seconds(5));
        let none = Silence { client_ended: Duration::MAX, backend_ended: Duration::MAX, ..silence };
        assert!(none.look_again() > seconds(1 << 40), "there is nothing to look for");
    }

    #[test]
    fn usage_is_of_both_sides() {
        let mut notes = Notes { last_seen: 5_000_000_000, ..Notes::default() };
        notes.counted[0] = flow::Forwarded { packets: 1, bytes: 2 };
        notes.counted[1] = flow::Forwarded { packets: 3, bytes: 4 };
        let expected =
            SplicedUsage { packets: 4, bytes_up: 2, bytes_down: 4, idle: Duration::from_secs(2), ended: false };
        assert_eq!(usage(&notes, 1, 7_000_000_000), expected);
        assert_eq!(usage(&notes, 6_000_000_000, 7_000_000_000).idle, Duration::from_secs(1), "since the hand-over");
    }
}
