//! A daemon that is killed at any moment: its connections are whole or cut, and none hangs.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use rpxy_l4_tests::{random::Random, topology::Topology, wait::pause};
use rustix::process::Signal;

use super::{
    mode::{Mode, Service, both_modes},
    play::{Broken, Game},
};

both_modes! {
    a_killed_daemon_leaves_no_connection_hanging,
}

const QUIET: Service = Service(7000);
const GREETING: Service = Service(7001);

/// Times that the daemon is killed.
const ROUNDS: u64 = 5;
/// Connections at a time.
const PLAYERS: usize = 8;

fn a_killed_daemon_leaves_no_connection_hanging(mode: Mode) {
    let Some(net) = Topology::or_skip() else { return };
    let game = Game::start(&net.backend, 1, QUIET.back(false), GREETING.back(false));
    let fronts = [QUIET.front(false), GREETING.front(false)];
    let (mut random, next) = (Random::new(1), AtomicU64::new(0));
    for round in 0..ROUNDS {
        let mut daemon = mode.start(&net, &[QUIET, GREETING]);
        let killed = AtomicBool::new(false);
        let broken: Vec<Broken> = thread::scope(|scope| {
            let player = || {
                let mut broken = Vec::new();
                while !killed.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    broken.extend(game.play(&net.client, number, fronts).err());
                }
                broken
            };
            let players: Vec<_> = (0..PLAYERS).map(|_| scope.spawn(player)).collect();
            pause(Duration::from_millis(random.between(1, 400)));
            daemon.process().signal(Signal::KILL).unwrap();
            killed.store(true, Ordering::SeqCst);
            players.into_iter().flat_map(|player| player.join().unwrap()).collect()
        });
        daemon.wait();
        game.wait_for_the_last();
        let wrong: Vec<_> = broken.iter().filter(|broken| matches!(broken, Broken::Wrong(_))).collect();
        assert!(wrong.is_empty(), "{mode:?}, round {round}: {wrong:#?}");
        assert_eq!(mode == Mode::Relayed, !broken.is_empty(), "{mode:?}: no connection was under way, or all were cut");
    }
}
