//! Thousands of random interleavings, each from a seed that a failure names.
//!
//! Honest clients speak QUIC (several connections on a socket, IDs that their servers gave them in secret, rebinding),
//! WireGuard (handshakes, roaming), DNS, DTLS, STUN and RTP; their datagrams are lost, repeated and reordered. Beside them
//! are spoofers (forged sources, replays, made-up IDs, constants of other protocols), a tenant whose clients and backends
//! lie, floods, a kernel that steers, reloads, refusals, sockets that cannot be had, backends that go or move, clients that
//! migrate, and time. Every datagram is marked with what its sender meant, so that it can be judged wherever it arrives.
//!
//! What holds for every seed (DESIGN section 8), and the mutants that were made by hand to see it noticed:
//!
//! | property | mutant that breaks it |
//! |---|---|
//! | a new flow of a rule reaches its backends only | `shape::is_unmistakable` is always true; `Affinity::hold` lets a stated ID have a second owner in front; `Sessions::other` is `any` |
//! | what a client used leads from its own network only | `Sessions::quic_short` always leads from `anywhere` |
//! | nothing is confirmed without a secret of the server | `Evidence::answered` sets `secret`; `QuicIds::is_stated` is true of the ID that a session was found by |
//! | a newcomer gets in, and through its handshake, during a flood | `Share::oldest` takes the youngest; `Admission::gives_way_to` does not look for the rule with the most unproven sessions |
//! | whoever has proved that it receives keeps its place | `Share::least_proven` asks `quietest` for `Rank::Secret` |
//! | each backend has a budget, which is given back | `Claim::drop` gives nothing back; `Indices::answer` is always true; the budget is not looked at |
//! | connections go on: IDs, rebinding, reloads | `Sessions::may_own_short` takes one; `Identity::remember` does nothing; `Sessions::rebind` returns false for the second target |
//! | the kernel never mixes sessions of one socket | `Sessions::is_told_apart` is true of sessions without an ID; `UdpRoutes::steerable` leaves out `NO_OTHER_PROTOCOL` |
//! | what is certainly QUIC reaches no default target | `Sessions::new_connection` gives what is `Unreadable` to `any` |
//! | clients leave a backend that refuses, or answers no handshakes | `Doubt::refused` is always false; `Doubt::shook_hands` is always false |
//! | they follow the name of their target unless they are answered | `Session::has_left_name` is always false; `Session::is_in_vain` is always true |
//! | a stray that can belong in one place goes there | `UdpRoutes::stray` drops instead of `Stray::Only` |
//! | strays of one address go to one target, on every gateway | `Sessions::start_by_source` does not set `by_source` |
//!
//! `cargo xtask sim` runs more of it; `RPXY_L4_SIM_SEEDS` and `RPXY_L4_SIM_FROM` are how many seeds, and the first.

mod changes;
mod clients;
mod hostile;
mod judge;
mod world;

use super::*;
use world::{Counts, World};

/// Interleavings of one run.
const SEEDS: u64 = 300;
/// Steps of each.
const STEPS: usize = 150;

impl World {
    fn step(&mut self) {
        let chosen = self.dice.roll(self.clients.len());
        match self.dice.roll(40) {
            0..=6 => self.speak(chosen),
            7..=15 => self.deliver(),
            16 => self.network.extend(self.network.last().cloned()),
            17 => drop(self.network.pop()),
            18..=22 => self.answer(),
            23 => self.answer_late(),
            24..=27 => self.converse(chosen),
            28 => self.rebind(chosen),
            29 => {
                let time = self.dice.pick(&[1, 20, 20, 150, 150, 700, 2100, 5000, 61_000]);
                self.wait(Duration::from_millis(time));
            }
            30 if self.dice.roll(3) == 0 => self.reload(),
            31 => self.trouble(),
            32 => self.spoof(),
            33 | 34 => self.lie_as_client(),
            35 if self.dice.roll(8) == 0 => self.flood(),
            36 => match self.dice.roll(8) {
                0 => self.leave(chosen),
                1 => self.follow(chosen),
                2 | 3 => self.migrate(chosen),
                4 if self.dice.roll(3) == 0 => self.balance(),
                _ => self.probe(chosen),
            },
            _ => self.probe(chosen),
        }
        self.check();
    }
}

fn run(seed: u64) -> Counts {
    let mut world = World::new(seed);
    (0..STEPS).for_each(|_| world.step());
    world.finish()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn invariants_hold_in_every_interleaving() {
    let (from, seeds) = (number("RPXY_L4_SIM_FROM").unwrap_or(0), number("RPXY_L4_SIM_SEEDS").unwrap_or(SEEDS));
    let mut all = Counts::default();
    for seed in from..from.saturating_add(seeds) {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(counts) => all.add(counts),
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // What it is about has happened, on average of the seeds.
    let Counts { started, alive, followed, got_in, confirmed, steered, over_budget, moved, migrated, balanced } = all;
    for (what, count, least) in [
        ("sessions", started, 30.0),
        ("probes of living connections", alive, 0.5),
        ("clients followed", followed, 0.2),
        ("newcomers during floods", got_in, 0.2),
        ("confirmed sessions, in all steps", confirmed, 30.0),
        ("datagrams that the kernel steered", steered, 0.2),
        ("budgets used up, in all steps", over_budget, 0.01),
        ("clients whose backend has gone or moved", moved, 0.02),
        ("clients that migrated", migrated, 0.02),
        ("strays spread by address", balanced, 0.02),
    ] {
        let average = count as f64 / seeds as f64;
        eprintln!("{what}: {average:.2} a seed");
        assert!(seeds < SEEDS || average >= least, "too few {what}: {average} a seed");
    }
}
