//! Clients that come back from another address, by the IDs that their servers chose.

use super::{
    packets::{HANDSHAKE, SERVER_INITIAL, first, greased, later_initial, long, short},
    *,
};

const CLIENT: &[u8] = b"client-a";
const DCID: &[u8] = b"destin-a";
const SERVER: &[u8] = b"\xfeerver-a";
const LATER: &[u8] = b"\xfeerver-2";

fn config() -> String {
    format!(
        "{TOP}udp_target = [\"198.51.100.1:9\"]\nquic_affinity_lifetime = \"5m\"\n{}{}",
        rule("a", "quic", 1, "server_names = [\"a.test\"]"),
        rule("b", "quic", 2, "server_names = [\"b.test\"]"),
    )
}

/// An established connection of client socket 1 to backend 1.
fn established(bench: &mut Bench) -> SessionId {
    bench.client(flow(1), &first(CLIENT, DCID, "a.test"));
    let session = bench.last().unwrap().0;
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, SERVER));
    bench.client(flow(1), &short(SERVER));
    bench.ports();
    session
}

#[test]
fn a_known_id_from_another_address_reaches_its_backend_over_a_new_socket() {
    for (row, datagram, expected) in [
        ("short header", short(SERVER), 1),
        ("short header with a cleared fixed bit: it could be anything", greased(SERVER), 9),
        ("handshake", long(HANDSHAKE, SERVER, CLIENT), 1),
        ("Initial that goes on", later_initial(CLIENT, SERVER, DCID), 1),
        ("a new connection that took the same ID goes by its name", first(CLIENT, SERVER, "b.test"), 2),
    ] {
        let mut bench = Bench::new(&config());
        let before = established(&mut bench);
        bench.client(flow(2), &datagram);
        let (session, port) = bench.last().unwrap();
        assert_eq!(port, expected, "{row}");
        assert_ne!(session, before, "{row}: the old path is left alone");
        if port == 9 {
            continue;
        }
        assert_eq!(bench.answer(before, &short(CLIENT)), Some(flow(1)), "{row}");
        assert_eq!(bench.answer(session, &short(CLIENT)), Some(flow(2)), "{row}");
        bench.ports();
        bench.client(flow(2), &short(SERVER));
        assert_eq!(bench.ports(), [1], "{row}: and the connection goes on");
    }
}

#[test]
fn connections_of_one_socket_are_followed_one_by_one() {
    let mut bench = Bench::new(&config());
    established(&mut bench);
    bench.client(flow(1), &first(b"client-b", b"destin-b", "b.test"));
    let b = bench.last().unwrap().0;
    bench.answer(b, &long(SERVER_INITIAL, b"client-b", LATER));
    bench.client(flow(2), &short(b"nobody's"));
    bench.ports();
    // The socket has another address now, and a session there already.
    for (row, id, expected) in [("a", SERVER, 1), ("b", LATER, 2), ("a again", SERVER, 1), ("b again", LATER, 2)] {
        bench.client(flow(2), &short(id));
        assert_eq!(bench.ports(), [expected], "{row}");
    }
    assert_eq!(bench.sockets.len(), 5);
}

#[test]
fn another_worker_knows_it_as_well() {
    let mut one = Bench::new(&config());
    established(&mut one);
    let mut other = one.sibling(&config());
    other.client(flow(2), &short(SERVER));
    assert_eq!(other.ports(), [1]);
}

#[test]
fn an_id_that_the_client_goes_on_to_use_leads_from_its_own_network_while_its_session_lives() {
    let mut bench = Bench::new(&config());
    let session = established(&mut bench);
    bench.client(flow(1), &short(LATER));
    bench.client(flow(2), &short(LATER));
    assert_eq!(bench.ports(), [1, 1]);
    bench.client(flow(300), &short(LATER));
    assert_eq!(bench.ports(), [9], "from another network it may be anything");
    // Five more displace the first.
    for n in 0..4_u8 {
        bench.client(flow(1), &short(&[n, 1, 2, 3, 4, 5, 6, 7]));
    }
    bench.ports();
    let last = [3, 1, 2, 3, 4, 5, 6, 7];
    for (row, from, id, expected) in [
        ("one of the last", flow(3), &last[..], 1),
        ("one that was displaced", flow(4), LATER, 9),
        ("the server's own", flow(301), SERVER, 1),
    ] {
        bench.client(from, &short(id));
        assert_eq!(bench.ports(), [expected], "{row}");
    }
    let ended = bench.sessions.table.ids(|state| [flow(1), flow(2), flow(3)].contains(&state.flow));
    assert!(ended.contains(&session));
    bench.act(|sessions, now, out| {
        for session in ended {
            sessions.end(session, SessionEnd::Idle, DatagramDrop::Orphan, now, out);
        }
    });
    bench.client(flow(5), &short(&last));
    assert_eq!(bench.ports(), [9], "the session is over, and what its client made of it");
}

#[test]
fn an_id_is_not_learned_before_the_server_has_answered() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(CLIENT, DCID, "a.test"));
    bench.client(flow(1), &short(LATER));
    bench.ports();
    bench.client(flow(2), &short(LATER));
    assert_eq!(bench.ports(), [9]);
}

#[test]
fn ids_outlive_their_session_for_the_time_configured() {
    for (row, wait, expected) in [("just before", 299, 1), ("after", 301, 9)] {
        let mut bench = Bench::new(&config());
        established(&mut bench);
        bench.wait(seconds(61));
        assert!(bench.sockets.is_empty(), "the session is over");
        bench.now += seconds(wait);
        bench.client(flow(2), &short(SERVER));
        assert_eq!(bench.ports(), [expected], "{row}");
    }
}

#[test]
fn a_session_that_was_found_by_an_id_keeps_it() {
    let mut bench = Bench::new(&config());
    established(&mut bench);
    bench.client(flow(2), &short(SERVER));
    // Only the second session goes on.
    for _ in 0..20 {
        bench.wait(seconds(50));
        bench.client(flow(2), &short(SERVER));
    }
    assert_eq!(bench.sockets.len(), 1);
    bench.ports();
    bench.client(flow(3), &short(SERVER));
    assert_eq!(bench.ports(), [1]);
}

#[test]
fn an_id_whose_rule_or_target_is_gone_is_an_orphan() {
    let mut bench = Bench::new(&config());
    established(&mut bench);
    bench.reload(&format!("{TOP}udp_target = [\"198.51.100.1:9\"]\n{}", rule("b", "quic", 2, "")));
    bench.client(flow(2), &short(SERVER));
    assert_eq!(bench.ports(), [9]);
}

#[test]
fn orphans_go_by_the_policy() {
    let quic = rule("a", "quic", 1, "");
    let target = "udp_target = [\"198.51.100.1:9\"]\n";
    for (row, config, expected, drops) in [
        ("by default to the default target", format!("{TOP}{target}{quic}"), &[9][..], 0),
        ("dropped on request", format!("{TOP}{target}orphan = \"drop\"\n{quic}"), &[], 1),
        ("no default target, two rules", format!("{TOP}{quic}{}", rule("b", "quic", 2, "")), &[], 1),
    ] {
        let mut bench = Bench::new(&config);
        bench.client(flow(1), &short(b"nobody's"));
        assert_eq!(bench.ports(), expected, "{row}");
        assert_eq!(bench.drops(DatagramDrop::Orphan), drops, "{row}");
    }
}

#[test]
fn without_a_default_target_a_short_header_needs_no_fixed_bit() {
    let a = rule("a", "quic", 1, "server_names = [\"a.test\"]");
    let b = rule("b", "quic", 2, "server_names = [\"b.test\"]");
    let target = "udp_target = [\"198.51.100.1:9\"]\n";
    let secret = b"\xfdecret-a";
    for (row, config, [stated, used, unknown]) in [
        ("one rule", format!("{TOP}{a}"), [Some(1); 3]),
        ("two rules", format!("{TOP}{a}{b}"), [Some(1), Some(1), None]),
        ("strays are dropped", format!("{TOP}orphan = \"drop\"\n{a}"), [Some(1), Some(1), None]),
        ("a default target", format!("{TOP}{target}{a}"), [Some(9); 3]),
    ] {
        let mut bench = Bench::new(&config);
        established(&mut bench);
        bench.client(flow(1), &greased(secret));
        bench.ports();
        for ((what, id, expected), from) in
            [("stated", SERVER, stated), ("used", secret, used), ("unknown", b"\xf1nknown!", unknown)]
                .into_iter()
                .zip(2..)
        {
            bench.client(flow(from), &greased(id));
            assert_eq!(bench.ports(), expected.into_iter().collect::<Vec<_>>(), "{row}: {what}");
        }
        let not_recognised = bench.drops(DatagramDrop::NotRecognised);
        assert_eq!((not_recognised, bench.drops(DatagramDrop::Orphan)), (u32::from(unknown.is_none()), 0), "{row}");
    }
}

#[test]
fn changes_of_address_are_limited_by_network() {
    let mut bench = Bench::new(&config());
    established(&mut bench);
    let from = |n: u16, ip| Flow { client: SocketAddr::from((ip, n)), ..flow(1) };
    for n in 1..=1000 {
        bench.client(from(n, [203, 0, 113, 1]), &short(SERVER));
    }
    assert_eq!(bench.ports().len(), 200);
    assert_eq!(bench.drops(DatagramDrop::RateLimited), 800);
    bench.client(from(1, [203, 0, 113, 2]), &short(SERVER));
    assert_eq!(bench.ports(), [1], "others are not affected");
}

#[test]
fn a_forged_address_takes_no_answers_away() {
    let mut bench = Bench::new(&config());
    let session = established(&mut bench);
    bench.client(flow(66), &short(SERVER));
    assert_eq!(bench.answer(session, &short(CLIENT)), Some(flow(1)));
}

#[test]
fn a_connection_is_not_given_to_a_backend_that_does_not_know_it() {
    let two = "udp_target = [\"198.51.100.1:9\"]\n[protocols.\"a\"]\nprotocol = \"quic\"\n";
    let mut bench = Bench::new(&format!("{TOP}{two}target = [\"198.51.100.1:1\", \"198.51.100.1:2\"]\n"));
    established(&mut bench);
    bench.client(flow(2), &short(SERVER));
    let (session, port) = bench.last().unwrap();
    assert_eq!(port, 1);
    bench.refuse(session);
    bench.ports();
    bench.client(flow(2), &short(SERVER));
    assert_eq!(bench.ports(), [1], "the other one could do nothing with it");
    bench.client(flow(3), &first(b"client-b", b"destin-b", "a.test"));
    assert_eq!(bench.ports(), [2], "but new connections go there");
}

#[test]
fn the_kernel_steers_the_ids_that_the_client_uses_now() {
    let mut bench = Bench::new(&config());
    let session = established(&mut bench);
    let steered = |bench: &Bench| bench.steered_ids.get(&session).copied().flatten();
    assert_eq!(steered(&bench), Some(packets::id(SERVER)));
    bench.client(flow(1), &short(LATER));
    assert_eq!(steered(&bench), Some(packets::id(LATER)), "it was learned before that");
    bench.client(flow(1), &short(SERVER));
    assert_eq!(steered(&bench), Some(packets::id(SERVER)));
    bench.reload(&format!("udp_max_connections = 9\n{}", config()));
    assert_eq!((bench.installed.len(), steered(&bench)), (1, Some(packets::id(SERVER))));
}
