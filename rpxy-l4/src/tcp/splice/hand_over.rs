//! The hand-over of a connection from the daemon's sockets to the kernel plane, without IO: facts go in, commands come out.
//!
//! Errs towards the relay: what does not meet a condition is undone, and goes on as if nothing had been tried.
//! `docs/design/tcp-splice.md` has the reasons.

use crate::{
    net::repair::{Info, Numbers},
    offload::{LegNumbers, NotSpliced, Probe},
};

/// One leg as its socket tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Leg {
    pub(super) info: Info,
    pub(super) numbers: Numbers,
}

/// What to do next. [`HandOver::next`] wants to know what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Send the acknowledgements that wait, on both legs.
    Acknowledge,
    /// Silence both legs.
    Block,
    /// Begin repair on both legs, and read them.
    Read,
    /// End repair on both legs, with a probe from each if there are timestamps, and read what the probes told.
    Probe {
        /// The legs have timestamps.
        timestamps: bool,
    },
    /// Have the kernel forward from now on.
    Live([LegNumbers; 2]),
    /// Write the held bytes to the backend.
    Send,
    /// Begin repair on both legs again, so that they close in silence.
    Silence,
    /// The connection is spliced: close the client's socket, park the port of the backend's.
    Finish,
    /// The same, and reset both ends: one of them has reset the connection before it was live, where only the daemon saw it.
    Abandon,
    /// Let both legs be the daemon's again, each with a probe that repeats its acknowledgement, and relay on.
    Undo(NotSpliced),
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// Nothing was commanded yet.
    Begin,
    /// It is done.
    Done,
    /// It cannot be done.
    Failed(NotSpliced),
    /// Of [`Command::Read`]: both legs, client and backend.
    Legs([Leg; 2]),
    /// Of [`Command::Probe`].
    Probes([Option<Probe>; 2]),
    /// Of [`Command::Silence`]: a leg was reset meanwhile.
    Broken,
}

/// A hand-over under way.
#[derive(Debug)]
pub(super) struct HandOver {
    /// Bytes that were read from the client and wait for the backend. They are the client's own, as it sent them.
    held: u32,
    /// Bytes at the end of what client and backend have sent, read so far, that were passed on as they came, those held
    /// included.
    verbatim: [u64; 2],
    /// Bytes that client and backend had sent before those.
    before: [u64; 2],
    step: Step,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Acknowledging,
    Blocking,
    Reading,
    Probing([Leg; 2]),
    GoingLive,
    Sending,
    Silencing,
    Over,
}

impl HandOver {
    /// With held bytes the hand-over is of way A, without them of way B.
    pub(super) fn new(held: u32, verbatim: [u64; 2], before: [u64; 2]) -> Self {
        Self { held, verbatim, before, step: Step::Acknowledging }
    }

    /// The next command.
    pub(super) fn next(&mut self, fact: Fact) -> Command {
        let (step, command) = match (self.step, fact) {
            // What is held back is the promise that has not been made yet; without held bytes there may be the last
            // acknowledgement of a handshake.
            (Step::Acknowledging, Fact::Begin) if self.held == 0 => (Step::Blocking, Command::Acknowledge),
            (Step::Acknowledging, Fact::Begin) | (Step::Blocking, Fact::Done) => (Step::Reading, Command::Block),
            (Step::Reading, Fact::Done) => (Step::Reading, Command::Read),
            (Step::Reading, Fact::Legs(legs)) => match self.speaks_against(&legs) {
                Some(reason) => (Step::Over, Command::Undo(reason)),
                None => {
                    let [client, _] = &legs;
                    (Step::Probing(legs), Command::Probe { timestamps: client.info.timestamps })
                }
            },
            (Step::Probing(legs), Fact::Probes(probes)) => match self.numbers(&legs, probes) {
                Some(numbers) => (Step::GoingLive, Command::Live(numbers)),
                None => (Step::Over, Command::Undo(NotSpliced::NoProbe)),
            },
            (Step::GoingLive, Fact::Done) if self.held > 0 => (Step::Sending, Command::Send),
            // What was not written is the client's to send again: it has no acknowledgement of it.
            (Step::GoingLive, Fact::Done) | (Step::Sending, _) => (Step::Silencing, Command::Silence),
            (Step::Silencing, Fact::Broken) => (Step::Over, Command::Abandon),
            // There is no way back from here: both ends talk to each other.
            (Step::Silencing, _) => (Step::Over, Command::Finish),
            (_, Fact::Failed(reason)) => (Step::Over, Command::Undo(reason)),
            (_, _) => (Step::Over, Command::Undo(NotSpliced::Failed)),
        };
        self.step = step;
        command
    }

    /// Why legs like these are not handed over, if something speaks against it.
    fn speaks_against(&self, legs: &[Leg; 2]) -> Option<NotSpliced> {
        let [client, backend] = legs;
        alike(client, backend).err().or_else(|| {
            let up = keeps_promise(client, backend, self.held, self.verbatim[0]);
            let down = keeps_promise(backend, client, 0, self.verbatim[1]);
            // The kernel does not tell of bytes behind urgent ones that nobody has read (`tcp_inq()`), and a reader is not told
            // of the urgent ones: all that was received has to have been passed on, and nothing else.
            let [of_client, of_backend] = [0, 1].map(|side: usize| self.before[side] + self.verbatim[side]);
            let all = client.info.bytes_received == of_client && backend.info.bytes_received == of_backend;
            match (up && down, all) {
                (true, true) => None,
                (true, false) => Some(NotSpliced::Stream),
                (false, _) => Some(NotSpliced::Busy),
            }
        })
    }

    /// What the kernel has to know; `None` without the clocks of legs with timestamps.
    fn numbers(&self, legs: &[Leg; 2], probes: [Option<Probe>; 2]) -> Option<[LegNumbers; 2]> {
        let [client, backend] = legs;
        let [of_client, of_backend] = probes;
        let of = |leg: &Leg, probe: Option<Probe>, held| {
            let Leg { info, numbers } = leg;
            // A peer that has sent no timestamp yet has none to go on from.
            let probe = probe.filter(|probe| probe.echo != 0);
            (info.timestamps == probe.is_some()).then_some(LegNumbers {
                sent: numbers.written,
                acknowledged: numbers.written.wrapping_sub(numbers.unacknowledged),
                received: numbers.received,
                held,
                window: numbers.window,
                offered: numbers.offered,
                peer_scale: info.peer_scale,
                own_scale: info.own_scale,
                probe,
            })
        };
        Some([of(client, of_client, self.held)?, of(backend, of_backend, 0)?])
    }
}

/// What both sides have agreed on with the daemon has to be what they could have agreed on with each other.
fn alike(client: &Leg, backend: &Leg) -> Result<(), NotSpliced> {
    let (one, other) = (&client.info, &backend.info);
    let unless = |holds: bool, reason| if holds { Ok(()) } else { Err(reason) };
    unless(one.established && other.established, NotSpliced::NotEstablished)?;
    unless(!one.fast_open && !other.fast_open, NotSpliced::FastOpen)?;
    unless(one.timestamps == other.timestamps, NotSpliced::Timestamps)?;
    unless(one.sack == other.sack, NotSpliced::Sack)?;
    unless(one.ecn == other.ecn, NotSpliced::Ecn)?;
    unless(sends(client) <= takes(backend) && sends(backend) <= takes(client), NotSpliced::Mss)
}

/// The largest segment that a peer may send: what it was told, or what it tells of its own network.
fn sends(leg: &Leg) -> u32 {
    leg.info.own_segment.min(leg.numbers.peer_segment)
}

/// The largest segment that reaches a peer.
fn takes(leg: &Leg) -> u32 {
    leg.numbers.peer_segment.min(leg.info.whole_segment())
}

/// Whether what `from` was told has arrived has arrived at `to`: of what is still on its way there, `from` has all to
/// send again, `verbatim`.
fn keeps_promise(from: &Leg, to: &Leg, held: u32, verbatim: u64) -> bool {
    let promised_not = from.numbers.received.wrapping_sub(from.numbers.told);
    let on_the_way = u64::from(to.numbers.unacknowledged) + u64::from(held);
    from.numbers.unread == 0 && u64::from(promised_not) >= on_the_way && verbatim >= on_the_way
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A leg on which the peer has sent `received` and was told of `told`.
    fn leg(received: u32, told: u32) -> Leg {
        let info = Info {
            established: true,
            timestamps: true,
            sack: true,
            segment: 1448,
            own_segment: 1460,
            peer_scale: 7,
            own_scale: 9,
            round_trip: Duration::from_micros(50),
            ..Info::default()
        };
        let numbers = Numbers {
            written: 5000,
            received,
            told,
            window: 65_535,
            offered: 60_000,
            peer_segment: 1460,
            unread: 0,
            unacknowledged: 0,
        };
        Leg { info, numbers }
    }

    const PROBES: [Option<Probe>; 2] = [Some(Probe { clock: 10, echo: 20 }), Some(Probe { clock: 30, echo: 40 })];

    /// Carries a hand-over out on sockets that tell of `legs`; returns its commands.
    fn carry_out(mut hand_over: HandOver, legs: [Leg; 2], failing: impl Fn(&Command) -> Option<Fact>) -> Vec<Command> {
        let (mut fact, mut commands) = (Fact::Begin, Vec::new());
        loop {
            let command = hand_over.next(fact);
            commands.push(command);
            fact = match (failing(&command), command) {
                (Some(fact), _) => fact,
                (None, Command::Read) => Fact::Legs(legs),
                (None, Command::Probe { timestamps: true }) => Fact::Probes(PROBES),
                (None, Command::Probe { timestamps: false }) => Fact::Probes([None; 2]),
                (None, Command::Finish | Command::Abandon | Command::Undo(_)) => return commands,
                (None, _) => Fact::Done,
            };
        }
    }

    fn of_way_a() -> (HandOver, [Leg; 2]) {
        let mut client = leg(200, 100);
        client.info.bytes_received = 130;
        (HandOver::new(100, [100, 0], [30, 0]), [client, leg(1, 1)])
    }

    #[test]
    fn each_way_takes_its_steps_in_order() {
        let (hand_over, legs) = of_way_a();
        let commands = carry_out(hand_over, legs, |_| None);
        let [client, backend] = match commands.as_slice() {
            [
                Command::Block,
                Command::Read,
                Command::Probe { timestamps: true },
                Command::Live(numbers),
                Command::Send,
                Command::Silence,
                Command::Finish,
            ] => *numbers,
            other => panic!("{other:?}"),
        };
        assert_eq!((client.held, client.received, client.sent, client.acknowledged), (100, 200, 5000, 5000));
        assert_eq!((client.probe, backend.probe, backend.held), (PROBES[0], PROBES[1], 0));

        let commands = carry_out(HandOver::new(0, [0, 0], [0, 0]), [leg(200, 200), leg(1, 1)], |_| None);
        assert!(matches!(commands[..], [Command::Acknowledge, Command::Block, .., Command::Silence, Command::Finish]));
        assert!(!commands.contains(&Command::Send), "{commands:?}");
    }

    #[test]
    fn legs_that_are_unlike_are_refused_by_name() {
        type Change = fn(&mut [Leg; 2]);
        let rows: [(&str, Change, NotSpliced); 14] = [
            ("the client has ended", |legs| legs[0].info.established = false, NotSpliced::NotEstablished),
            ("the backend has ended", |legs| legs[1].info.established = false, NotSpliced::NotEstablished),
            ("data in the SYN", |legs| legs[0].info.fast_open = true, NotSpliced::FastOpen),
            ("timestamps at the client alone", |legs| legs[1].info.timestamps = false, NotSpliced::Timestamps),
            ("timestamps at the backend alone", |legs| legs[0].info.timestamps = false, NotSpliced::Timestamps),
            ("SACK at one", |legs| legs[0].info.sack = false, NotSpliced::Sack),
            ("ECN at one", |legs| legs[1].info.ecn = true, NotSpliced::Ecn),
            (
                "a backend that takes less than the client sends",
                |legs| legs[1].numbers.peer_segment = 1459,
                NotSpliced::Mss,
            ),
            ("a path to the backend that takes less", |legs| legs[1].info.segment = 1447, NotSpliced::Mss),
            (
                "a client that takes less than the backend sends",
                |legs| legs[0].numbers.peer_segment = 1459,
                NotSpliced::Mss,
            ),
            ("a byte that nobody has read", |legs| legs[0].numbers.unread = 1, NotSpliced::Busy),
            ("the backend's too", |legs| legs[1].numbers.unread = 1, NotSpliced::Busy),
            ("a byte that is not told as unread", |legs| legs[0].info.bytes_received += 1, NotSpliced::Stream),
            ("the backend's likewise", |legs| legs[1].info.bytes_received += 1, NotSpliced::Stream),
        ];
        for (row, change, reason) in rows {
            let (hand_over, mut legs) = of_way_a();
            change(&mut legs);
            let commands = carry_out(hand_over, legs, |_| None);
            assert_eq!(commands, [Command::Block, Command::Read, Command::Undo(reason)], "{row}");
        }
    }

    #[test]
    fn smaller_segments_than_the_other_side_takes_are_alike() {
        type Change = fn(&mut [Leg; 2]);
        let rows: [(&str, Change); 2] = [
            ("a client that was told less", |legs| {
                (legs[0].info.own_segment, legs[1].numbers.peer_segment, legs[1].info.segment) = (1300, 1300, 1288);
            }),
            ("a client that takes less, of which the backend was told", |legs| {
                legs[0].numbers.peer_segment = 1300;
                (legs[0].info.segment, legs[1].info.own_segment) = (1288, 1300);
            }),
        ];
        for (row, change) in rows {
            let (hand_over, mut legs) = of_way_a();
            change(&mut legs);
            assert_eq!(carry_out(hand_over, legs, |_| None).last(), Some(&Command::Finish), "{row}");
        }
    }

    #[test]
    fn nobody_was_told_of_what_may_be_lost() {
        // Received and told of the client, on the way to the backend, held, verbatim, and whether that can be handed over.
        let rows = [
            ("all held, nothing told", (200, 100), 0, 100, 100, true),
            ("one byte told", (200, 101), 0, 100, 100, false),
            ("on the way, and told", (200, 200), 1, 0, 100, false),
            ("on the way, not told", (200, 100), 100, 0, 100, true),
            ("both", (200, 100), 60, 40, 100, true),
            ("both, and one more", (200, 100), 61, 40, 101, false),
            ("not the client's own bytes", (200, 100), 0, 100, 99, false),
            ("nothing under way", (200, 200), 0, 0, 0, true),
            ("numbers that wrap", (40, u32::MAX - 59), 0, 100, 100, true),
        ];
        for (row, (received, told), unacknowledged, held, verbatim, expected) in rows {
            let (mut client, mut backend) = (leg(received, told), leg(1, 1));
            client.info.bytes_received = verbatim;
            backend.numbers.unacknowledged = unacknowledged;
            let last = |hand_over, legs| carry_out(hand_over, legs, |_| None).last().copied();
            let ends = if expected { Command::Finish } else { Command::Undo(NotSpliced::Busy) };
            let up = HandOver::new(held, [verbatim, 0], [0, 0]);
            assert_eq!(last(up, [client, backend]), Some(ends), "{row}");
            if held == 0 {
                let down = HandOver::new(0, [0, verbatim], [0, 0]);
                assert_eq!(last(down, [backend, client]), Some(ends), "{row}, the other way");
            }
        }
    }

    #[test]
    fn what_fails_before_the_connection_is_live_is_undone_and_nothing_after() {
        let failed = Fact::Failed(NotSpliced::Full);
        let undo = Command::Undo;
        type Is = fn(&Command) -> bool;
        let rows: [(&str, Is, Fact, Command); 8] = [
            ("blocking", |c| *c == Command::Block, failed, undo(NotSpliced::Full)),
            ("reading", |c| *c == Command::Read, failed, undo(NotSpliced::Full)),
            ("probing", |c| matches!(c, Command::Probe { .. }), failed, undo(NotSpliced::Full)),
            (
                "no probe",
                |c| matches!(c, Command::Probe { .. }),
                Fact::Probes([PROBES[0], None]),
                undo(NotSpliced::NoProbe),
            ),
            ("going live", |c| matches!(c, Command::Live(_)), failed, undo(NotSpliced::Full)),
            ("sending", |c| *c == Command::Send, failed, Command::Finish),
            ("silencing", |c| *c == Command::Silence, failed, Command::Finish),
            ("a reset that only the daemon saw", |c| *c == Command::Silence, Fact::Broken, Command::Abandon),
        ];
        for (row, fails, fact, expected) in rows {
            let (hand_over, legs) = of_way_a();
            let commands = carry_out(hand_over, legs, |command| fails(command).then_some(fact));
            assert_eq!(commands.last(), Some(&expected), "{row}");
        }
    }

    #[test]
    fn without_timestamps_no_probe_is_asked_for() {
        let (hand_over, mut legs) = of_way_a();
        legs.iter_mut().for_each(|leg| leg.info.timestamps = false);
        legs.iter_mut().for_each(|leg| leg.info.segment = 1460);
        let commands = carry_out(hand_over, legs, |_| None);
        assert!(commands.contains(&Command::Probe { timestamps: false }), "{commands:?}");
        assert_eq!(commands.last(), Some(&Command::Finish));
    }
}
