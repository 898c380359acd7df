//! Random connections through bad links, with every byte compared at both ends.
//!
//! `RPXY_L4_TESTS_CONNECTIONS` sets how many there are in each test (100,000 take about an hour), `RPXY_L4_TESTS_SEED`
//! repeats a run. With many, raise `RPXY_L4_TESTS_LIMIT`, in seconds.

use std::{
    env,
    io::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use rpxy_l4_tests::{
    OrFail as _,
    topology::{Host, Topology},
    wait,
    wire::Weather,
};

use super::{
    mode::{Mode, Service, both_modes},
    play::Game,
};

both_modes! {
    connections_of_any_options_survive_loss_on_links_with_large_buffers,
    connections_survive_a_link_that_loses_doubles_and_reorders,
}

/// Seed of all plans.
const SEED_VARIABLE: &str = "RPXY_L4_TESTS_SEED";
/// Number of connections of one test.
const CONNECTIONS_VARIABLE: &str = "RPXY_L4_TESTS_CONNECTIONS";
/// Connections of a test where nothing else is said.
const CONNECTIONS: u64 = 210;
/// Connections at a time.
const PLAYERS: usize = 12;
/// A connection that took longer has waited for a time-out of TCP.
const SLOW: Duration = Duration::from_secs(1);

const QUIET: Service = Service(7000);
const GREETING: Service = Service(7001);

/// What a host's TCP offers and accepts.
#[derive(Debug, Clone, Copy)]
struct Stack {
    timestamps: bool,
    sack: bool,
    scaling: bool,
}

impl Stack {
    const FULL: Self = Self { timestamps: true, sack: true, scaling: true };
    const BARE: Self = Self { timestamps: false, sack: false, scaling: false };

    fn apply(self, host: &Host) {
        let keys = [("tcp_timestamps", self.timestamps), ("tcp_sack", self.sack), ("tcp_window_scaling", self.scaling)];
        for (key, on) in keys {
            host.sysctl(&format!("ipv4/{key}"), if on { "1" } else { "0" }).or_fail(key);
        }
    }
}

/// Some connections of the same kind.
struct Row {
    name: &'static str,
    client: Stack,
    backend: Stack,
    /// `tcp_ecn` of all hosts.
    ecn: &'static str,
    v6: bool,
    weather: Weather,
}

const CLEAN: Weather = Weather { delay: Duration::ZERO, lost: 0, doubled: 0, late: 0 };
const PLAIN: Row =
    Row { name: "IPv4", client: Stack::FULL, backend: Stack::FULL, ecn: SYSTEM, v6: false, weather: CLEAN };
/// The system's `tcp_ecn`: accepted, not asked for.
const SYSTEM: &str = "2";
/// Half a per cent of loss, of whole buffers where devices cut them.
const LOSSY: Row = Row { weather: Weather { lost: 5, ..CLEAN }, ..PLAIN };

fn connections_of_any_options_survive_loss_on_links_with_large_buffers(mode: Mode) {
    let Some(net) = Topology::or_skip() else { return };
    let without = |change: fn(&mut Stack)| {
        let mut stack = Stack::FULL;
        change(&mut stack);
        stack
    };
    let timestamps = without(|stack| stack.timestamps = false);
    let sack = without(|stack| stack.sack = false);
    let scaling = without(|stack| stack.scaling = false);
    let rows = [
        PLAIN,
        Row { name: "IPv6", v6: true, ..PLAIN },
        Row { name: "loss", ..LOSSY },
        Row { name: "loss, IPv6", v6: true, ..LOSSY },
        Row { name: "no timestamps at the client", client: timestamps, ..LOSSY },
        Row { name: "no timestamps at the backend", backend: timestamps, ..LOSSY },
        Row { name: "no timestamps", client: timestamps, backend: timestamps, ..LOSSY },
        Row { name: "no SACK at the client", client: sack, ..LOSSY },
        Row { name: "no SACK at the backend", backend: sack, ..LOSSY },
        Row { name: "no window scale at the client", client: scaling, ..LOSSY },
        Row { name: "no window scale at the backend", backend: scaling, ..LOSSY },
        Row { name: "no option at the client", client: Stack::BARE, ..LOSSY },
        Row { name: "no option", client: Stack::BARE, backend: Stack::BARE, v6: true, ..LOSSY },
        Row { name: "ECN", ecn: "1", ..LOSSY },
        // On kernels that know it, Linux 6.18 and later; others take it for ECN or refuse the value.
        Row { name: "accurate ECN", ecn: "3", ..LOSSY },
        Row { name: "much loss, doubled", weather: Weather { lost: 50, doubled: 10, ..CLEAN }, ..PLAIN },
    ];
    play(&net, mode, &rows, &|weather| {
        drop_and_double(&net.client, weather);
        drop_and_double(&net.backend, weather);
    });
}

fn connections_survive_a_link_that_loses_doubles_and_reorders(mode: Mode) {
    let Some(net) = Topology::with_wire_or_skip(CLEAN) else { return };
    let all = Weather { lost: 5, doubled: 10, late: 30, ..CLEAN };
    let rows = [
        Row { name: "reordered", weather: Weather { late: 30, ..CLEAN }, ..PLAIN },
        Row { name: "doubled", weather: Weather { doubled: 30, ..CLEAN }, ..PLAIN },
        Row { name: "all of it", weather: all, ..PLAIN },
        Row { name: "all of it, IPv6", weather: all, v6: true, ..PLAIN },
        Row { name: "far", weather: Weather { delay: Duration::from_millis(10), ..all }, ..PLAIN },
        Row { name: "no option", weather: all, client: Stack::BARE, backend: Stack::BARE, ..PLAIN },
        Row { name: "much loss", weather: Weather { lost: 50, ..all }, ..PLAIN },
    ];
    play(&net, mode, &rows, &|weather| net.wire().or_fail("wire").set(weather));
}

/// Plays connections of each row, and fails when one of them was not what it should have been.
#[track_caller]
fn play(net: &Topology, mode: Mode, rows: &[Row], set: &dyn Fn(Weather)) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().or_fail(name));
    let now = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let seed = number(SEED_VARIABLE).unwrap_or_else(now);
    let all = number(CONNECTIONS_VARIABLE).unwrap_or(CONNECTIONS);
    let daemon = mode.start(net, &[QUIET, GREETING]);
    let games = [false, true].map(|v6| Game::start(&net.backend, seed, QUIET.back(v6), GREETING.back(v6)));
    let each = all.div_ceil(rows.len() as u64);
    for (index, row) in rows.iter().enumerate() {
        row.client.apply(&net.client);
        row.backend.apply(&net.backend);
        for host in [&net.client, &net.gateway, &net.backend] {
            // An older kernel has no accurate ECN, and goes on with what was set before.
            let _refused = host.sysctl("ipv4/tcp_ecn", row.ecn);
        }
        set(row.weather);
        let before = mode.count_spliced(&daemon);
        let game = &games[usize::from(row.v6)];
        let fronts = [QUIET.front(row.v6), GREETING.front(row.v6)];
        let (next, slow, failures) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..PLAYERS {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= each {
                            break;
                        }
                        match game.play(&net.client, index as u64 * all + n, fronts) {
                            Ok(time) => _ = slow.fetch_add(u64::from(time > SLOW), Ordering::Relaxed),
                            Err(why) => failures.lock().unwrap_or_else(PoisonError::into_inner).push(why.to_string()),
                        }
                    }
                });
            }
        });
        set(CLEAN);
        game.wait_for_the_last();
        // An end that the daemon does not learn of keeps the connection's place and port.
        wait::until("the daemon has seen every end", || Mode::has_seen_every_end(&daemon).then_some(()));
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        let slow = slow.into_inner();
        let spliced = mode.count_spliced(&daemon) - before;
        if all > CONNECTIONS {
            tell(&format!(
                "{mode:?}, {}: {} of {each} failed, {slow} took more than a second, {spliced} were spliced",
                row.name,
                failures.len()
            ));
        }
        assert!(
            failures.is_empty(),
            "{mode:?}, {}: {} of {each} connections failed; repeat with {SEED_VARIABLE}={seed} \
             {CONNECTIONS_VARIABLE}={all}\n{}",
            row.name,
            failures.len(),
            failures.join("\n")
        );
    }
}

/// Has `host` lose some of the TCP packets that arrive there, and send some twice.
fn drop_and_double(host: &Host, weather: Weather) {
    // Adding a table that is there changes nothing, so that it can be deleted in any case.
    let mut rules = "add table netdev weather; delete table netdev weather; ".to_owned();
    if weather != CLEAN {
        rules += &format!(
            "add table netdev weather; \
             add chain netdev weather in {{ type filter hook ingress device eth0 priority 0; }}; \
             add chain netdev weather out {{ type filter hook egress device eth0 priority 0; }}; \
             add rule netdev weather in meta l4proto tcp numgen random mod 1000 < {} drop; \
             add rule netdev weather out meta l4proto tcp numgen random mod 1000 < {} dup to eth0;",
            weather.lost, weather.doubled
        );
    }
    let output = host.command("nft").arg(&rules).output().or_fail("nft");
    assert!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
}

/// Tells the progress of a long run, past libtest's capture.
fn tell(text: &str) {
    // A closed stderr does not matter.
    let _ignored = writeln!(std::io::stderr().lock(), "{text}");
}
