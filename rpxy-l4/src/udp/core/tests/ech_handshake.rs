//! Encrypted Client Hello: which datagrams are changed and which are not, and what it holds for how long.

use super::{
    ech_kit::{CLIENT, DCID, OUTER, PRIVATE, PUBLIC, SERVER, begun, config, inner, with},
    packets::{HANDSHAKE, SERVER_INITIAL, Sender, ZERO_RTT, first, hello, initials, long, short},
    *,
};
use crate::udp::core::decryption;

#[test]
fn the_private_backend_gets_the_inner_hello_however_it_is_sent() {
    type Row<'a> = (&'a str, &'a [&'a [(usize, usize)]]);
    let rows: [Row<'_>; 7] = [
        ("at once", &[&[(0, 445)]]),
        ("in two datagrams", &[&[(0, 200)], &[(200, 445)]]),
        ("the other way round", &[&[(200, 445)], &[(0, 200)]]),
        ("scattered", &[&[(30, 40), (0, 2), (300, 445)], &[(2, 30), (40, 300)]]),
        ("each twice", &[&[(0, 200)], &[(0, 200)], &[(200, 445)], &[(200, 445)]]),
        ("cut otherwise the second time", &[&[(0, 200)], &[(0, 100), (150, 445)], &[(90, 160)], &[(0, 445)]]),
        ("repeated when all is known", &[&[(0, 445)], &[(0, 445)], &[(260, 445)], &[(3, 4), (444, 445)]]),
    ];
    for (row, datagrams) in rows {
        let (mut bench, mut client) = (Bench::new(&config()), Sender::new(CLIENT, DCID));
        let datagrams: Vec<Vec<u8>> = datagrams.iter().map(|parts| client.crypto(OUTER[0], parts)).collect();
        for datagram in &datagrams {
            bench.client(flow(1), datagram);
        }
        assert_eq!(bench.stream(PRIVATE, DCID), inner()[0], "{row}");
        let lengths = |all: Vec<&Vec<u8>>| all.iter().map(|datagram| datagram.len()).collect::<Vec<_>>();
        assert_eq!(
            lengths(bench.sent.iter().map(|(_, _, datagram)| datagram).collect()),
            lengths(datagrams.iter().collect()),
            "{row}: every datagram, as long as it was"
        );
        assert!(bench.ports().iter().all(|port| *port == PRIVATE), "{row}");
        assert_eq!(bench.hellos, [EchState::Accepted], "{row}");
    }
}

#[test]
fn one_buffer_may_hold_datagrams_that_change_and_others() {
    let (mut bench, mut client) = (Bench::new(&config()), Sender::new(CLIENT, DCID));
    let initial = client.crypto(OUTER[0], &[(0, 445)]);
    let mut early = long(ZERO_RTT, DCID, CLIENT);
    early.resize(initial.len(), 7);
    let buffer = [initial.clone(), early.clone(), client.crypto(OUTER[0], &[(0, 445)]), early.clone()].concat();
    bench.buffer(flow(1), &buffer, initial.len());
    assert_eq!(bench.sent.len(), 4);
    assert_eq!(bench.sent.iter().filter(|(_, _, datagram)| *datagram == early).count(), 2);
    assert_eq!(bench.stream(PRIVATE, DCID), inner()[0]);
}

#[test]
fn other_packets_are_left_as_they_are() {
    let (mut bench, mut client, _) = begun();
    let hello = client.crypto(OUTER[0], &[(0, 445)]);
    let early = long(ZERO_RTT, DCID, CLIENT);
    let rows = [
        ("early data", early.clone()),
        ("Handshake", long(HANDSHAKE, DCID, CLIENT)),
        ("an Initial without CRYPTO", client.initial(vec![2, 0, 0, 0, 0])),
        ("an Initial under other keys", Sender { keys_of: SERVER, ..client.clone() }.crypto(OUTER[0], &[(0, 445)])),
    ];
    for (row, datagram) in rows {
        bench.sent.clear();
        bench.client(flow(1), &datagram);
        let sent: Vec<&Vec<u8>> = bench.sent.iter().map(|(_, _, datagram)| datagram).collect();
        assert_eq!(sent, [&datagram], "{row}");
    }
    bench.sent.clear();
    bench.client(flow(1), &[hello.clone(), early.clone()].concat());
    let (_, _, sent) = bench.sent.last().unwrap();
    assert_eq!(sent.len(), hello.len() + early.len());
    assert_eq!(sent[hello.len()..], early, "coalesced");
    assert_eq!(bench.stream(PRIVATE, DCID), inner()[0]);
}

#[test]
fn a_socket_may_have_decrypted_connections_and_others() {
    let (mut bench, mut client, session) = begun();
    let other = first(b"client-b", b"destin-b", "a.test");
    bench.client(flow(1), &other);
    assert_eq!(bench.sent.last().map(|(_, address, sent)| (address.port(), sent.clone())), Some((3, other)));
    bench.client(flow(1), &Sender::new(b"client-c", b"destin-c").crypto(OUTER[0], &[(0, 445)]));
    assert_eq!(bench.stream(PRIVATE, b"destin-c"), inner()[0]);
    bench.client(flow(1), &client.crypto(&OUTER.concat(), &[(445, 891)]));
    assert_eq!(bench.stream(PRIVATE, DCID), inner().concat());
    assert_eq!(bench.sockets.len(), 3);
    assert!(bench.sockets.contains_key(&session));
}

#[test]
fn a_private_backend_that_refuses_is_followed_by_the_next() {
    let private = "server_names = [\"private.example\"]\ntarget = [\"198.51.100.1:2\", \"198.51.100.1:4\"]";
    let mut bench = Bench::new(&with("", private));
    let mut client = Sender::new(CLIENT, DCID);
    bench.client(flow(1), &client.crypto(OUTER[0], &[(0, 445)]));
    let (session, refused) = bench.last().unwrap();
    bench.refuse(session);
    bench.sent.clear();
    bench.client(flow(1), &client.crypto(OUTER[0], &[(0, 445)]));
    let (_, next) = bench.last().unwrap();
    assert_ne!(next, refused);
    assert_eq!(bench.stream(next, DCID), inner()[0]);
}

#[test]
fn it_is_over_after_ten_seconds_though_nothing_more_comes() {
    let (mut bench, mut client, session) = begun();
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, SERVER));
    bench.client(flow(1), &client.crypto(&OUTER.concat(), &[(445, 600)]));
    let before = decryption::HANDSHAKE - Duration::from_millis(1);
    bench.wait(before);
    assert_ne!(bench.sessions.held_bytes(), 0);
    bench.wait(Duration::from_millis(1));
    assert_eq!((bench.sessions.held_bytes(), bench.drops(DatagramDrop::Incomplete)), (0, 1));
    assert!(
        bench.sessions.table.get(session).is_some_and(|state| state.ids.decryption().is_none()),
        "nothing is left of it"
    );
    assert_eq!(bench.only_session(), session, "the session goes on");
}

#[test]
fn what_waits_is_given_back_however_it_ends() {
    let stream = [OUTER[0], &[1, 0, 1, 0xba]].concat();
    let two = |bench: &mut Bench, second: &[u8]| {
        let mut client = Sender::new(CLIENT, DCID);
        // The first waits for a second hello as soon as it is seen what it is.
        bench.client(flow(1), &client.crypto(&stream, &[(445, 446), (0, 200)]));
        bench.client(flow(1), &client.crypto(&[OUTER[0], second].concat(), &[(446, 449), (200, 445)]));
    };
    let mut bench = Bench::new(&config());
    two(&mut bench, &[1, 0, 1, 0xba]);
    assert_ne!(bench.sessions.held_bytes(), 0, "it waits");
    bench.act(|sessions, now, out| sessions.handle_closed(None, SessionEnd::Drained, now, out));
    assert_eq!((bench.sessions.held_bytes(), bench.drops(DatagramDrop::Unreachable)), (0, 2), "an end in between");

    let mut bench = Bench::new(&config());
    two(&mut bench, &[1, 0, 0xff, 0xff]);
    assert_eq!((bench.sessions.held_bytes(), bench.drops(DatagramDrop::EchInvalid)), (0, 2), "no second hello");

    let mut bench = Bench::new(&format!("udp_max_connections = 1\n{}", config()));
    let _taken = bench.active.acquire(1).unwrap();
    two(&mut bench, &[1, 0, 1, 0xba]);
    assert_eq!((bench.sessions.held_bytes(), bench.drops(DatagramDrop::TooMany)), (0, 2), "no room for a session");
}

#[test]
fn second_hellos_take_no_room_of_first_ones() {
    let mut bench = Bench::new(&config());
    let stream = [OUTER[0], &hello("public.example", "h3", 15_900)].concat();
    let mut client = Sender::new(CLIENT, DCID);
    let mut datagrams = vec![client.crypto(OUTER[0], &[(0, 445)])];
    datagrams.extend((0..8).map(|n| client.crypto(&stream, &[(445 + n * 1900, 445 + (n + 1) * 1900)])));
    for n in 1..600 {
        for datagram in &datagrams {
            bench.client(flow(n), datagram);
        }
    }
    assert!(bench.drops(DatagramDrop::Overflow) > 0, "there is a bound");
    bench.sent.clear();
    for datagram in initials(CLIENT, DCID, &hello("a.test", "h3", 2000), 1000) {
        bench.client(flow(5000), &datagram);
    }
    assert_eq!(bench.ports(), [3, 3]);
}

#[test]
fn the_first_short_header_of_the_client_gives_up_what_waits() {
    let (mut bench, mut client, session) = begun();
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, SERVER));
    bench.client(flow(1), &client.crypto(&OUTER.concat(), &[(445, 600)]));
    for other in [&b"somebody"[..], b""] {
        bench.client(flow(1), &short(other));
        assert_ne!(bench.sessions.held_bytes(), 0, "one that anybody can send");
    }
    bench.client(flow(1), &short(SERVER));
    assert_eq!((bench.sessions.held_bytes(), bench.drops(DatagramDrop::Incomplete)), (0, 1));
}

#[test]
fn a_second_hello_after_a_rejected_one_goes_on_untouched() {
    let mut stream = OUTER.concat();
    stream[250] ^= 1;
    let (mut bench, mut client) = (Bench::new(&config()), Sender::new(CLIENT, DCID));
    let datagrams = [client.crypto(&stream, &[(0, 445)]), client.crypto(&stream, &[(445, 891)])];
    for datagram in &datagrams {
        bench.client(flow(1), datagram);
    }
    assert_eq!(bench.sent.iter().map(|(_, _, sent)| sent).collect::<Vec<_>>(), datagrams.iter().collect::<Vec<_>>());
    assert_eq!((bench.ports(), bench.hellos), (vec![PUBLIC; 2], vec![EchState::Undecryptable]));
}

#[test]
fn an_inner_hello_in_the_clear_goes_nowhere() {
    let mut message = OUTER[0].to_vec();
    let offer = message.windows(2).position(|typ| typ == [0xfe, 0x0d]).unwrap() + 4;
    message[offer] = 1;
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &Sender::new(CLIENT, DCID).crypto(&message, &[(0, 445)]));
    assert_eq!((bench.drops(DatagramDrop::EchInvalid), bench.sessions.len()), (1, 0));
    assert_eq!(bench.hellos, [EchState::Invalid]);
}
