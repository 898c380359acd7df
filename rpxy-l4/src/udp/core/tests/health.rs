//! What checks find: whom new sessions go to, and which sessions end.

use super::*;
use crate::route::Standing;

fn config(keys: &str, check: &str) -> String {
    format!(
        "{TOP}{keys}\nudp_target = [\"198.51.100.1:1\", \"198.51.100.2:1\"]\nudp_health = \"x\"\n\
         [health.x]\nkind = \"quic\"\n{check}\n"
    )
}

/// What checks have found of the two targets: nothing yet.
fn standings(bench: &Bench) -> [Arc<Standing>; 2] {
    let standings = [1, 2].map(|_| Arc::<Standing>::default());
    for (number, (endpoint, standing)) in (1..).zip(bench.sessions.snapshot.endpoints().zip(&standings)) {
        let address = Some(([198, 51, 100, number], 1).into());
        endpoint.active.as_ref().unwrap().checked.set(vec![(address, Arc::clone(standing))]);
    }
    standings
}

/// Where the last datagram went.
fn reached(bench: &mut Bench, n: u16) -> String {
    bench.client(flow(n), b"x");
    bench.sent.last().unwrap().1.to_string()
}

#[test]
fn new_sessions_go_to_what_is_up_and_only_there_where_that_is_wanted() {
    for (keys, with_all_down) in [("", Some("198.51.100.1:1")), ("udp_only_healthy = true", None)] {
        let mut bench = Bench::new(&config(keys, ""));
        let [one, two] = standings(&bench);
        assert_eq!(reached(&mut bench, 1), "198.51.100.1:1", "{keys}");
        one.set_down(bench.now);
        assert_eq!(reached(&mut bench, 1), "198.51.100.1:1", "{keys}: a session that is there");
        assert_eq!(reached(&mut bench, 2), "198.51.100.2:1", "{keys}");
        two.set_down(bench.now);
        let before = bench.sent.len();
        bench.client(flow(3), b"x");
        let sent = bench.sent[before..].iter().map(|(_, to, _)| to.to_string()).next();
        assert_eq!(sent.as_deref(), with_all_down, "{keys}");
        let refused = bench.drops(DatagramDrop::Unhealthy);
        assert_eq!(refused, u32::from(with_all_down.is_none()), "{keys}");
        one.set_up();
        assert_eq!(reached(&mut bench, 3), "198.51.100.1:1", "{keys}");
    }
}

#[test]
fn sessions_that_began_before_their_target_went_down_end_where_the_check_says_so() {
    for (check, ends) in [("close = true", true), ("close = false", false)] {
        let mut bench = Bench::new(&config("udp_load_balance = \"round_robin\"", check));
        let [one, _] = standings(&bench);
        bench.client(flow(1), b"x");
        bench.client(flow(2), b"x");
        let steered = bench.sent[0].0;
        bench.answer(steered, b"y");
        assert_eq!(bench.installed, [steered]);
        bench.wait(seconds(1));
        one.set_down(bench.now);
        bench.act(Sessions::handle_fallen);
        let expected: Vec<_> = ends.then_some((steered, SessionEnd::TargetDown)).into_iter().collect();
        assert_eq!(bench.ended, expected, "{check}");
        assert_eq!(bench.installed.is_empty(), ends, "{check}: the kernel has it no more");
        assert_eq!(bench.sockets.len(), if ends { 1 } else { 2 }, "{check}: the other one goes on");
    }
}

#[test]
fn a_session_that_begins_while_its_target_is_down_stays() {
    let mut bench = Bench::new(&config("", "close = true"));
    let [one, two] = standings(&bench);
    one.set_down(bench.now);
    two.set_down(bench.now);
    bench.wait(seconds(1));
    assert_eq!(reached(&mut bench, 1), "198.51.100.1:1");
    bench.act(Sessions::handle_fallen);
    assert_eq!(bench.sockets.len(), 1, "it was tried last, and knows");
    one.set_up();
    bench.wait(seconds(1));
    one.set_down(bench.now);
    bench.act(Sessions::handle_fallen);
    assert_eq!(bench.sockets.len(), 0, "down once more");
}
