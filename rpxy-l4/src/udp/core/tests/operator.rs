//! What an operator asks for at run time: lists, sessions closed, targets and listeners drained.

use super::{
    packets::{SERVER_INITIAL, first, long, short},
    *,
};
use crate::{limit::DrainedListeners, route::Selection};

const CLIENT: &[u8] = b"client-a";
const SERVER: &[u8] = b"\xfeerver-a";

fn config() -> String {
    let targets = "udp_target = [\"198.51.100.1:1\", \"198.51.100.1:2\"]\nudp_load_balance = \"none\"\n";
    format!("{TOP}{targets}{}", rule("quic", "quic", 3, ""))
}

/// An established QUIC connection of client socket `n`.
fn established(bench: &mut Bench, n: u16) -> SessionId {
    bench.client(flow(n), &first(CLIENT, b"destin-a", "a.test"));
    let session = bench.last().unwrap().0;
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, SERVER));
    bench.client(flow(n), &short(SERVER));
    bench.ports();
    session
}

fn close(bench: &mut Bench, session: SessionId) -> bool {
    let mut there = false;
    bench.act(|sessions, now, out| there = sessions.handle_close(session, now, out));
    there
}

/// The operator's word on the target at `port`.
fn health(bench: &Bench, port: u16) -> Arc<crate::route::Health> {
    let wanted = format!("198.51.100.1:{port}");
    bench.targets.list().into_iter().find(|(target, _)| *target == wanted).unwrap().1
}

#[test]
fn a_closed_session_ends_alone_and_is_taken_back_from_the_kernel() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), b"x");
    bench.client(flow(2), b"x");
    let [one, two] = bench.sockets.keys().copied().collect::<Vec<_>>().try_into().unwrap();
    bench.answer(one, b"y");
    assert_eq!(bench.installed, [one]);
    assert!(close(&mut bench, one));
    assert_eq!(bench.ended, [(one, SessionEnd::Admin)]);
    assert!(bench.installed.is_empty() && bench.sockets.keys().eq([&two]));
    assert!(!close(&mut bench, one), "it is closed already");
    bench.client(flow(1), b"z");
    assert_ne!(bench.last().unwrap().0, one, "the client may begin another one");
}

#[test]
fn a_session_without_a_backend_is_closed_with_what_it_holds() {
    let mut bench = Bench::new("listen_port = 443\nudp_target = [\"name.test:7000\"]\n");
    bench.client(flow(1), b"one");
    let session = bench.sessions.flow_lines(1, &Selection::default(), bench.now).next().unwrap().1.session;
    assert!(close(&mut bench, session));
    assert_eq!((bench.sessions.len(), bench.sessions.held_bytes(), bench.active.count()), (0, 0, 0));
}

#[test]
fn a_closed_connection_is_not_found_again_by_its_id() {
    let mut bench = Bench::new(&config());
    let session = established(&mut bench, 1);
    assert!(close(&mut bench, session));
    bench.client(flow(2), &short(SERVER));
    assert_eq!(bench.ports(), [1], "a stray datagram, for the default target");
}

/// The listener of this name drained, or all.
fn drained(name: Option<&str>) -> Arc<DrainedListeners> {
    let mut drained = DrainedListeners::default();
    assert!(drained.drain(name, Duration::ZERO));
    Arc::new(drained)
}

#[test]
fn drained_listeners_begin_no_session_and_serve_those_that_there_are() {
    let mut bench = Bench::new(&config());
    let quic = established(&mut bench, 1);
    bench.client(flow(2), b"x");
    let any = bench.last().unwrap().0;
    bench.ports();
    bench.sessions.set_drained(drained(None));

    bench.client(flow(3), b"x");
    bench.client(flow(4), &first(b"client-b", b"destin-b", "b.test"));
    bench.client(flow(5), &short(b"nobody's"));
    assert_eq!((bench.ports(), bench.drops(DatagramDrop::Drained)), (vec![], 3));
    bench.client(flow(1), &first(b"client-c", b"destin-c", "c.test"));
    assert_eq!(bench.drops(DatagramDrop::Drained), 4, "nor another connection of a known socket");

    bench.client(flow(2), b"x");
    bench.client(flow(1), &short(SERVER));
    assert_eq!(bench.ports(), [1, 3]);
    assert!(bench.answer(any, b"y").is_some() && bench.answer(quic, &short(CLIENT)).is_some());
    bench.client(flow(6), &short(SERVER));
    assert_eq!(bench.ports(), [3], "a known connection may change its address");

    bench.sessions = bench.sessions.successor();
    bench.client(flow(3), b"x");
    assert_eq!(bench.drops(DatagramDrop::Drained), 5, "also after a reset of the worker");
    bench.sessions.set_drained(drained(Some("another one")));
    bench.client(flow(3), b"x");
    assert_eq!(bench.ports(), [1]);
    bench.sessions.set_drained(drained(Some("default")));
    bench.client(flow(7), b"x");
    assert_eq!((bench.ports(), bench.drops(DatagramDrop::Drained)), (vec![], 6));
    bench.sessions.set_drained(Arc::default());
    bench.client(flow(7), b"x");
    assert_eq!(bench.ports(), [1]);
}

#[test]
fn a_drained_target_gets_no_session_and_keeps_those_that_it_has() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), b"x");
    let quic = established(&mut bench, 2);
    for port in [1, 3] {
        assert!(health(&bench, port).administrative().drain(bench.now));
    }
    bench.client(flow(1), b"x");
    assert_eq!(bench.ports(), [1], "under way");
    bench.client(flow(3), b"x");
    assert_eq!(bench.ports(), [2], "the next target");
    bench.client(flow(4), &first(b"client-b", b"destin-b", "b.test"));
    assert_eq!((bench.ports(), bench.drops(DatagramDrop::Unreachable)), (vec![], 1), "there is no other");
    bench.client(flow(5), &short(SERVER));
    assert_eq!(bench.ports(), [3], "a known connection may change its address");
    assert!(bench.answer(quic, &short(CLIENT)).is_some());

    bench.reload(&config().replace("\"none\"", "\"source_ip\""));
    bench.reload(&config());
    assert!(health(&bench, 1).administrative().drained_since().is_some(), "across a reload");
    assert!(health(&bench, 1).administrative().up());
    bench.client(flow(6), b"x");
    assert_eq!(bench.ports(), [1]);
}

#[test]
fn lists_are_bounded_and_selected() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), b"x");
    bench.client(Flow { client: "203.0.113.1:1".parse().unwrap(), ..flow(2) }, b"x");
    established(&mut bench, 3);
    let all = Selection::default();
    for (row, limit, selection, expected) in [
        ("all", 9, all.clone(), 3),
        ("as many as there are", 3, all.clone(), 3),
        ("fewer", 2, all.clone(), 2),
        ("of a network", 9, Selection { client: crate::limit::network("203.0.113.0/24"), ..all.clone() }, 1),
        ("of a rule", 9, Selection { rule: Some("quic".to_owned()), ..all.clone() }, 1),
        ("of a target", 9, Selection { target: Some("198.51.100.1:1".to_owned()), ..all.clone() }, 2),
        ("of none", 9, Selection { rule: Some("ssh".to_owned()), ..all.clone() }, 0),
    ] {
        assert_eq!(bench.sessions.flow_lines(limit, &selection, bench.now).count(), expected, "{row}");
    }
}

#[test]
fn a_target_tells_how_long_its_first_answers_took() {
    let mut bench = Bench::new(&config());
    let times = |bench: &Bench| {
        let mut target = crate::overview::Target::new(config::model::Transport::Udp, String::new());
        bench.targets.accounts().find_target("198.51.100.1:1").unwrap().fill_in(&mut target);
        target.first_byte.map(|times| (times.count, times.sum_us))
    };
    bench.client(flow(1), b"x");
    let session = bench.last().unwrap().0;
    assert_eq!(times(&bench), Some((0, 0)));
    bench.now += Duration::from_millis(30);
    bench.answer(session, b"y");
    assert_eq!(times(&bench), Some((1, 30_000)));
    bench.now += Duration::from_millis(50);
    bench.answer(session, b"y");
    assert_eq!(times(&bench), Some((1, 30_000)), "the first one alone");
}
