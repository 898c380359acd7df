//! QUIC: what is recognised, where it goes, what is told apart.

use super::{
    packets::{HANDSHAKE, RETRY, SERVER_INITIAL, ZERO_RTT, first, greased, hello, initials, long, short},
    *,
};

const A: &[u8] = b"client-a";
const B: &[u8] = b"client-b";
const DCID_A: &[u8] = b"destin-a";
const DCID_B: &[u8] = b"destin-b";
const SERVER_A: &[u8] = b"\xfeerver-a";
const SERVER_B: &[u8] = b"\xfeerver-b";

/// a.test at 1, b.test at 2, any with ALPN h3 at 3; everything else at 9.
fn config() -> String {
    let names = |name: &str| format!("server_names = [\"{name}\"]");
    format!(
        "{TOP}udp_target = [\"198.51.100.1:9\"]\n{}{}{}",
        rule("a", "quic", 1, &names("a.test")),
        rule("b", "quic", 2, &names("b.test")),
        rule("h3", "quic", 3, "alpn = [\"h3\"]"),
    )
}

#[test]
fn first_datagrams_go_by_what_they_are() {
    let three = |name: &str| initials(A, DCID_A, &hello(name, "h3", 2400), 1000);
    let unmatched = initials(A, DCID_A, &hello("c.test", "hq", 300), 2000);
    let mut other_version = first(A, DCID_A, "a.test");
    other_version[4] = 9;
    let mut broken = first(A, DCID_A, "a.test");
    broken[700] ^= 1;
    let rows = [
        ("server name", vec![first(A, DCID_A, "a.test")], &[1][..]),
        ("another server name, by case", vec![first(A, DCID_A, "B.Test")], &[2]),
        ("ALPN", vec![first(A, DCID_A, "c.test")], &[3]),
        ("no rule fits", unmatched, &[]),
        ("a hello over three datagrams", three("b.test"), &[2, 2, 2]),
        ("in another order", three("b.test").into_iter().rev().collect(), &[2, 2, 2]),
        ("early data before the hello", vec![long(ZERO_RTT, DCID_A, A), first(A, DCID_A, "a.test")], &[1, 1]),
        ("a third of a hello", three("b.test").drain(..1).collect(), &[]),
        ("an unknown version", vec![other_version], &[9]),
        ("what only looks like an Initial", vec![broken], &[9]),
        ("an Initial in a small datagram", vec![first(A, DCID_A, "a.test")[..600].to_vec()], &[9]),
        ("something else", vec![b"hello".to_vec(), vec![]], &[9, 9]),
    ];
    for (row, datagrams, expected) in rows {
        let mut bench = Bench::new(&config());
        for datagram in &datagrams {
            bench.client(flow(1), datagram);
        }
        let got: Vec<Vec<u8>> = bench.sent.iter().map(|(_, _, datagram)| datagram.clone()).collect();
        assert_eq!(bench.ports(), expected, "{row}");
        assert!(got.is_empty() || got == datagrams, "{row}: unchanged and in order");
        assert!(bench.sockets.len() <= 1, "{row}: one session");
    }
}

#[test]
fn a_buffer_of_several_datagrams_is_like_one_after_the_other() {
    let datagrams = initials(A, DCID_A, &hello("b.test", "h3", 2400), 800);
    let mut bench = Bench::new(&config());
    let len = datagrams[0].len();
    assert!(datagrams.iter().all(|datagram| datagram.len() == len) && datagrams.len() >= 3);
    bench.buffer(flow(1), &datagrams.concat(), len);
    let got: Vec<Vec<u8>> = bench.sent.iter().map(|(_, _, datagram)| datagram.clone()).collect();
    assert_eq!(got, datagrams);
    assert_eq!(bench.sessions.held_bytes(), 0);
}

#[test]
fn what_an_unknown_version_comes_to() {
    let mut datagram = first(A, DCID_A, "a.test");
    datagram[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
    let any = rule("any", "quic", 4, "");
    let rows = [
        ("the rule without conditions", format!("{}{any}", config()), &[4][..]),
        ("dropped", format!("quic_unknown_version = \"drop\"\n{}{any}", config()), &[]),
        ("nowhere to go", format!("{TOP}{}", rule("a", "quic", 1, "server_names = [\"a.test\"]")), &[]),
        ("without QUIC rules, like anything", format!("{TOP}udp_target = [\"198.51.100.1:9\"]"), &[9]),
    ];
    for (row, config, expected) in rows {
        let mut bench = Bench::new(&config);
        bench.client(flow(1), &datagram);
        assert_eq!(bench.ports(), expected, "{row}");
    }
    // After a Version Negotiation the client comes back on the same socket with a version that can be read.
    let mut bench = Bench::new(&format!("{}{any}", config()));
    bench.client(flow(1), &datagram);
    bench.client(flow(1), &first(A, DCID_A, "a.test"));
    assert_eq!(bench.ports(), [4, 1]);
}

#[test]
fn one_client_socket_may_have_connections_to_several_backends() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(A, DCID_A, "a.test"));
    let a = bench.last().unwrap().0;
    bench.client(flow(1), &first(B, DCID_B, "b.test"));
    let b = bench.last().unwrap().0;
    assert_ne!(a, b);
    assert_eq!(bench.answer(a, &long(SERVER_INITIAL, A, SERVER_A)), Some(flow(1)));
    assert_eq!(bench.answer(b, &long(SERVER_INITIAL, B, SERVER_B)), Some(flow(1)));
    bench.ports();
    for (row, datagram, expected) in [
        ("handshake of a", long(HANDSHAKE, SERVER_A, A), 1),
        ("handshake of b", long(HANDSHAKE, SERVER_B, B), 2),
        ("a repeats its first packet", first(A, DCID_A, "a.test"), 1),
        ("short header of a", short(SERVER_A), 1),
        ("short header of b", short(SERVER_B), 2),
        ("of a, with a cleared fixed bit", greased(SERVER_A), 1),
        ("of b, with a cleared fixed bit", greased(SERVER_B), 2),
    ] {
        bench.client(flow(1), &datagram);
        assert_eq!(bench.ports(), [expected], "{row}");
    }
    assert_eq!(
        bench.installed,
        [b],
        "the one that was the last to prove itself; the kernel leaves the other's to the daemon"
    );
}

#[test]
fn an_id_that_a_server_gave_in_secret_goes_to_every_connection_until_it_is_known_whose_it_is() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(A, DCID_A, "a.test"));
    let a = bench.last().unwrap().0;
    bench.answer(a, &long(SERVER_INITIAL, A, SERVER_A));
    let (secret_a, secret_b) = (b"\xfdecret-a", b"\xfdecret-b");
    bench.client(flow(1), &short(secret_a));
    bench.client(flow(1), &first(B, DCID_B, "b.test"));
    let b = bench.last().unwrap().0;
    bench.answer(b, &long(SERVER_INITIAL, B, SERVER_B));
    bench.ports();
    let sorted = |bench: &mut Bench| {
        let mut ports = bench.ports();
        ports.sort_unstable();
        ports
    };
    for (row, millis, id, expected) in [
        ("of a alone, learned when it was alone", 0, secret_a, &[1][..]),
        ("b's, which nobody knows yet", 0, secret_b, &[1, 2]),
        ("again", 1, secret_b, &[1, 2]),
        ("a's, maybe overtaken", 100, secret_a, &[1]),
        ("b's still", 1, secret_b, &[1, 2]),
        ("a goes on with its own", 200, secret_a, &[1]),
        ("so that the other is b's", 0, secret_b, &[2]),
        ("a's", 0, secret_a, &[1]),
    ] {
        bench.now += Duration::from_millis(millis);
        bench.client(flow(1), &short(id));
        assert_eq!(sorted(&mut bench), expected, "{row}");
    }
    bench.client(flow(2), &short(secret_b));
    assert_eq!(bench.ports(), [2], "and the other address is followed");
}

#[test]
fn an_id_that_may_be_of_several_connections_is_followed_to_all_beside_one_that_is_certain() {
    let mut bench = Bench::new(&config());
    let (secret_a, secret_b) = (b"\xfdecret-a", b"\xfdecret-b");
    bench.client(flow(1), &first(A, DCID_A, "a.test"));
    let a = bench.last().unwrap().0;
    bench.answer(a, &long(SERVER_INITIAL, A, SERVER_A));
    bench.client(flow(1), &short(secret_a));
    bench.client(flow(1), &first(B, DCID_B, "b.test"));
    let b = bench.last().unwrap().0;
    bench.answer(b, &long(SERVER_INITIAL, B, SERVER_B));
    bench.client(flow(1), &short(secret_b));
    bench.ports();
    for (row, id, expected) in [
        ("a's, learned when it was alone", secret_a, &[1][..]),
        ("the other, which may be a's as well", secret_b, &[1, 2]),
        ("again", secret_b, &[1, 2]),
        ("a's", secret_a, &[1]),
        ("the other", secret_b, &[1, 2]),
    ] {
        bench.client(flow(2), &short(id));
        let mut ports = bench.ports();
        ports.sort_unstable();
        assert_eq!(ports, expected, "{row}");
    }
}

#[test]
fn connections_that_all_went_on_with_secret_ids_are_all_followed() {
    let mut bench = Bench::new(&config());
    for (client, to, name, server) in [(A, DCID_A, "a.test", SERVER_A), (B, DCID_B, "b.test", SERVER_B)] {
        bench.client(flow(1), &first(client, to, name));
        let session = bench.last().unwrap().0;
        bench.answer(session, &long(SERVER_INITIAL, client, server));
    }
    let (secret_a, secret_b) = (b"\xfdecret-a", b"\xfdecret-b");
    bench.ports();
    // Nobody tells whose they are, so all that could own them get them; from another address as well.
    for (row, from, id) in [
        ("a's", 1, secret_a),
        ("b's", 1, secret_b),
        ("a's, from another port", 2, secret_a),
        ("a's, again", 2, secret_a),
        ("b's, over the sessions that are there", 2, secret_b),
        ("b's, the first from a third port: a was closed", 3, secret_b),
    ] {
        bench.client(flow(from), &short(id));
        let mut ports = bench.ports();
        ports.sort_unstable();
        assert_eq!(ports, [1, 2], "{row}");
    }
    assert_eq!(bench.sockets.len(), 6, "one for each server and port");
    let before = bench.installed.clone();
    for session in bench.sockets.keys().copied().collect::<Vec<_>>() {
        bench.answer(session, &short(A));
    }
    assert_eq!(bench.installed, before, "the kernel could not tell whose they are");
}

#[test]
fn a_reused_client_socket_is_routed_anew() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(b"", DCID_A, "a.test"));
    let a = bench.last().unwrap().0;
    bench.answer(a, &long(SERVER_INITIAL, b"", SERVER_A));
    assert_eq!(bench.installed, [a]);
    bench.client(flow(1), &first(b"", DCID_B, "b.test"));
    assert_eq!(bench.ports(), [1, 2]);
    assert_eq!(bench.installed, [a], "what carries its server's ID is still of the first one");
}

#[test]
fn a_retry_leads_to_the_same_backend() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(A, DCID_A, "a.test"));
    let a = bench.last().unwrap().0;
    bench.answer(a, &long(RETRY, A, b"retry-id"));
    // The hello could be read under the new ID as well, and would lead elsewhere.
    bench.client(flow(1), &first(A, b"retry-id", "b.test"));
    assert_eq!(bench.ports(), [1, 1]);
}

#[test]
fn what_waits_is_bounded_and_a_real_client_still_gets_through() {
    let mut bench = Bench::new(&config());
    let half = initials(A, DCID_A, &hello("a.test", "h3", 2000), 1000).remove(0);
    for n in 0..10_000 {
        bench.client(flow(n), &half);
    }
    assert!(bench.sessions.len() <= UndecidedQueue::MOST, "{}", bench.sessions.len());
    assert!(bench.sessions.held_bytes() <= UndecidedQueue::MOST * half.len());
    for datagram in initials(B, DCID_B, &hello("b.test", "h3", 2000), 1000) {
        bench.client(flow(20_000), &datagram);
    }
    assert!(bench.ports().iter().all(|port| *port == 2));
    bench.wait(HELLO_TIMEOUT);
    assert_eq!((bench.sessions.len(), bench.sessions.held_bytes()), (1, 0));
    let lost = bench.drops(DatagramDrop::Incomplete) + bench.drops(DatagramDrop::Overflow);
    assert_eq!(lost, 10_000, "every one of them is counted");
}

#[test]
fn one_client_socket_cannot_have_any_number_of_connections() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(A, DCID_A, "a.test"));
    let a = bench.last().unwrap().0;
    bench.answer(a, &long(SERVER_INITIAL, A, SERVER_A));
    bench.client(flow(1), &long(HANDSHAKE, SERVER_A, A));
    for n in 0..1000_u64 {
        bench.client(flow(1), &first(&n.to_be_bytes(), &n.to_le_bytes(), "b.test"));
    }
    assert_eq!(bench.sockets.len(), MAX_OF_FLOW);
    assert!(bench.sockets.contains_key(&a), "one that is known to receive stays");
}

#[test]
fn repeating_a_forged_first_datagram_does_not_show_that_the_client_receives() {
    let mut bench = Bench::new(&format!("udp_max_connections = 2\n{}", config()));
    for (n, id) in [(1, b"forged-1"), (2, b"forged-2")] {
        bench.client(flow(n), &first(id, id, "a.test"));
        let session = bench.last().unwrap().0;
        bench.answer(session, &long(SERVER_INITIAL, id, SERVER_A));
        bench.client(flow(n), &first(id, id, "a.test"));
    }
    bench.client(flow(3), &first(A, DCID_A, "b.test"));
    assert_eq!(bench.last().unwrap().1, 2, "a real client is served");
    assert_eq!(bench.drops(DatagramDrop::TooMany), 0);
}

#[test]
fn contradicting_hellos_reach_nobody() {
    let mut bench = Bench::new(&config());
    let one = initials(A, DCID_A, &hello("a.test", "h3", 2000), 1000);
    let other = initials(A, DCID_A, &hello("b.test", "h3", 2000), 1000);
    bench.client(flow(1), &one[0]);
    bench.client(flow(1), &other[0]);
    bench.client(flow(1), &one[1]);
    assert!(bench.ports().is_empty());
    assert_eq!(bench.drops(DatagramDrop::Unmatched), 2, "a connection without a name");
}

#[test]
fn the_log_names_rule_and_hello_where_json_asks_for_it() {
    for (format, expected) in [("json", true), ("text", false)] {
        let mut bench = Bench::new(&format!("access_log_format = \"{format}\"\n{}", config()));
        let mut out = Output::default();
        bench.sessions.handle_datagrams(&flow(1), &first(A, DCID_A, "a.test"), 2000, 0, bench.now, &mut out);
        let Some(Command::Open { session, .. }) = out.commands.pop_front() else { panic!("{:?}", out.commands) };
        bench.sessions.handle_opened(session, bench.now, &mut out);
        let Some(Command::Started(started)) = out.commands.pop_front() else { panic!("{:?}", out.commands) };
        assert_eq!(started.carries, Datagrams::Quic);
        let detail = started.detail.map(|detail| (detail.rule, detail.server_name, detail.alpn));
        let told = (Some("a".into()), Some("a.test".to_owned()), vec!["h3".to_owned()]);
        assert_eq!(detail, expected.then_some(told), "{format}");
    }
}
