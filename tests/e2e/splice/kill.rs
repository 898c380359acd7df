//! A daemon that is killed at any moment: its connections are whole or cut, and none hangs.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use rpxy_l4_tests::{daemon::Daemon, random::Random, topology::Topology, wait::pause};
use rustix::process::Signal;

use super::{
    mode::{Mode, Service, both_modes},
    play::{Broken, Game},
};
use crate::support::bpf_fs::BpfFs;

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
    // Without pins a client that only reads is not told, as when a router vanishes (docs/tcp-in-the-kernel.md).
    let fs = (mode == Mode::Spliced).then(BpfFs::mount);
    let keys = fs.as_ref().map_or_else(String::new, |fs| {
        let path = fs.pins();
        format!("pin = true\npin_path = \"{}\"", path.display())
    });
    let config = mode.config(&[QUIET, GREETING], &keys);
    let game = Game::start(&net.backend, 1, QUIET.back(false), GREETING.back(false));
    let fronts = [QUIET.front(false), GREETING.front(false)];
    let (mut random, next) = (Random::new(1), AtomicU64::new(0));
    let mut survived = 0;
    for round in 0..ROUNDS {
        let mut daemon = Daemon::start(&net.gateway, &config);
        let (enough, killed, whole) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        let broken: Vec<Broken> = thread::scope(|scope| {
            let player = || {
                let mut broken = Vec::new();
                while !enough.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let played = game.play(&net.client, number, fronts);
                    if played.is_ok() && killed.load(Ordering::SeqCst) {
                        whole.fetch_add(1, Ordering::SeqCst);
                    }
                    broken.extend(played.err());
                }
                broken
            };
            let players: Vec<_> = (0..PLAYERS).map(|_| scope.spawn(player)).collect();
            pause(Duration::from_millis(random.between(1, 400)));
            enough.store(true, Ordering::SeqCst);
            daemon.process().signal(Signal::KILL).unwrap();
            daemon.wait();
            killed.store(true, Ordering::SeqCst);
            players.into_iter().flat_map(|player| player.join().unwrap()).collect()
        });
        game.wait_for_the_last();
        let wrong: Vec<_> = broken.iter().filter(|broken| matches!(broken, Broken::Wrong(_))).collect();
        assert!(wrong.is_empty(), "{mode:?}, round {round}: {wrong:#?}");
        // Those that were whole at the end, but still under way when the daemon was killed, are the kernel's.
        survived += whole.load(Ordering::SeqCst);
    }
    assert!(mode == Mode::Relayed || survived > 0, "no connection has outlived a daemon");
}
