//! Encrypted Client Hello with a detour: a second hello after a HelloRetryRequest, another one after a Retry.

use super::{
    ech_kit::{CLIENT, DCID, OUTER, PRIVATE, SERVER, begun, config, inner},
    packets::{RETRY, SERVER_INITIAL, Sender, hello, long},
    *,
};
use crate::udp::core::decryption;

#[test]
fn a_hello_after_a_hello_retry_request_follows_the_first() {
    let stream = OUTER.concat();
    type Row<'a> = (&'a str, &'a [&'a [(usize, usize)]]);
    let rows: [Row<'_>; 5] = [
        ("at once", &[&[(445, 891)]]),
        ("in two datagrams, the later one first", &[&[(700, 891)], &[(445, 700)]]),
        ("with the first hello again in between", &[&[(445, 500)], &[(0, 445)], &[(500, 891)]]),
        ("over the border", &[&[(400, 600)], &[(600, 891)]]),
        (
            "repeated and cut otherwise",
            &[&[(445, 600)], &[(445, 500)], &[(550, 891)], &[(0, 891)], &[(445, 450), (300, 446)]],
        ),
    ];
    for (row, datagrams) in rows {
        let (mut bench, mut client, session) = begun();
        bench.answer(session, &long(SERVER_INITIAL, CLIENT, SERVER));
        client.to = SERVER;
        for parts in datagrams {
            bench.client(flow(1), &client.crypto(&stream, parts));
        }
        assert_eq!(bench.stream(PRIVATE, DCID), inner().concat(), "{row}");
        assert_eq!(bench.sent.len(), 1 + datagrams.len(), "{row}: every datagram");
        assert_eq!(bench.sessions.held_bytes(), 0, "{row}");
        assert_eq!(bench.only_session(), session, "{row}");
    }
}

#[test]
fn nothing_of_a_second_hello_goes_on_before_it_is_complete() {
    let stream = OUTER.concat();
    let (mut bench, mut client, _) = begun();
    bench.client(flow(1), &client.crypto(&stream, &[(445, 700)]));
    bench.client(flow(1), &client.crypto(&stream, &[(701, 891)]));
    assert_eq!(bench.sent.len(), 1);
    bench.client(flow(1), &client.crypto(&stream, &[(700, 701)]));
    assert_eq!(bench.sent.len(), 4);
}

#[test]
fn a_second_hello_that_does_not_open_ends_the_session() {
    let mut changed = OUTER.concat();
    changed[600] ^= 1;
    let rows = [
        ("a bit changed", changed),
        ("the first one again", [OUTER[0], OUTER[0]].concat()),
        ("no ECH", [OUTER[0], &hello("public.example", "h3", 400)].concat()),
        ("no hello", [OUTER[0], &[2; 400]].concat()),
    ];
    for (row, stream) in rows {
        let (mut bench, mut client, _) = begun();
        bench.client(flow(1), &client.crypto(&stream, &[(445, stream.len())]));
        assert_eq!(bench.sent.len(), 1, "{row}");
        assert_eq!(bench.log.last().unwrap(), "finish ech_invalid 198.51.100.1:2", "{row}");
        assert!(bench.sessions.is_empty() && bench.sessions.held_bytes() == 0, "{row}");
    }
}

#[test]
fn after_a_retry_the_client_begins_again_with_the_same_backend() {
    let retried = |id| Sender { token: b"token", ..Sender::new(CLIENT, id) };
    type Row<'a> = (&'a str, &'a [u8], &'a [&'a [(usize, usize)]]);
    let rows: [Row<'_>; 3] = [
        ("at once", SERVER, &[&[(0, 445)]]),
        ("in two datagrams, the later one first", SERVER, &[&[(200, 445)], &[(0, 200)]]),
        ("the second of two Retry packets", b"server-b", &[&[(0, 445)]]),
    ];
    for (row, followed, datagrams) in rows {
        let (mut bench, client, session) = begun();
        for id in [SERVER, b"server-b"] {
            bench.answer(session, &long(RETRY, CLIENT, id));
        }
        // What the client sent before may come late, and what anybody made up at any time.
        let made_up = Sender { keys_of: b"nobody's", ..retried(followed) }.crypto(OUTER[0], &[(0, 445)]);
        bench.client(flow(1), &made_up);
        bench.client(flow(1), &client.clone().crypto(OUTER[0], &[(0, 300)]));
        bench.sent.clear();

        let mut client = retried(followed);
        let (last, before) = datagrams.split_last().unwrap();
        for parts in before {
            bench.client(flow(1), &client.crypto(OUTER[0], parts));
        }
        assert_eq!(bench.sent.len(), 0, "{row}: nothing before the hello is complete");
        bench.client(flow(1), &client.crypto(OUTER[0], last));
        assert_eq!(bench.stream(PRIVATE, followed), inner()[0], "{row}");
        assert_eq!(bench.only_session(), session, "{row}");

        // Handshake and HelloRetryRequest go on under these keys.
        bench.answer(session, &long(SERVER_INITIAL, CLIENT, b"server-c"));
        client.to = b"server-c";
        bench.client(flow(1), &client.crypto(&OUTER.concat(), &[(445, 891)]));
        assert_eq!(bench.stream(PRIVATE, followed), inner().concat(), "{row}");
    }
}

#[test]
fn a_token_alone_is_no_retry() {
    // From an earlier connection (RFC 9000 section 8.1.3): it comes with every Initial packet, also to the server's ID.
    let (mut bench, mut client) = (Bench::new(&config()), Sender { token: b"token", ..Sender::new(CLIENT, DCID) });
    bench.client(flow(1), &client.crypto(OUTER[0], &[(0, 445)]));
    bench.answer(bench.only_session(), &long(SERVER_INITIAL, CLIENT, SERVER));
    client.to = SERVER;
    bench.client(flow(1), &client.crypto(OUTER[0], &[(100, 445)]));
    let made_up = Sender { keys_of: SERVER, ..client.clone() }.crypto(OUTER[0], &[(0, 445)]);
    bench.client(flow(1), &made_up);
    bench.client(flow(1), &client.crypto(&OUTER.concat(), &[(445, 891)]));
    assert_eq!(bench.stream(PRIVATE, DCID), inner().concat());
}

#[test]
fn a_hello_after_a_retry_that_does_not_open_ends_the_session() {
    let (mut bench, _, session) = begun();
    bench.answer(session, &long(RETRY, CLIENT, SERVER));
    let plain = hello("public.example", "h3", 400);
    let mut client = Sender { token: b"token", ..Sender::new(CLIENT, SERVER) };
    bench.client(flow(1), &client.crypto(&plain, &[(0, plain.len())]));
    assert_eq!(bench.log.last().unwrap(), "finish ech_invalid 198.51.100.1:2");
    assert_eq!(bench.sent.len(), 1);
}

#[test]
fn connections_that_gather_another_hello_are_bounded() {
    let (mut bench, mut client, session) = begun();
    let gathering = Arc::clone(&bench.sessions.gathering);
    let all: Vec<_> = std::iter::from_fn(|| gathering.acquire(decryption::MAX_GATHERING)).collect();
    let stream = OUTER.concat();
    bench.client(flow(1), &client.crypto(&stream, &[(445, 700)]));
    assert_eq!((bench.sessions.held_bytes(), bench.drops(DatagramDrop::Overflow)), (0, 1), "no place");
    bench.client(flow(1), &client.crypto(&stream, &[(100, 445)]));
    assert_eq!(bench.sent.len(), 2, "the first hello needs none");
    drop(all);
    bench.client(flow(1), &client.crypto(&stream, &[(700, 891)]));
    assert_eq!((gathering.count(), bench.sent.len()), (1, 2), "what was refused is not remembered");
    bench.client(flow(1), &client.crypto(&stream, &[(445, 700)]));
    assert_eq!(bench.stream(PRIVATE, DCID), inner().concat());
    assert_eq!(gathering.count(), 0, "given back");

    bench.answer(session, &long(RETRY, CLIENT, SERVER));
    let mut client = Sender { token: b"token", ..Sender::new(CLIENT, SERVER) };
    bench.client(flow(1), &client.crypto(OUTER[0], &[(0, 200)]));
    assert_eq!(gathering.count(), 1, "a hello after a Retry needs one");
    bench.act(|sessions, now, out| sessions.handle_closed(None, SessionEnd::Drained, now, out));
    assert_eq!(gathering.count(), 0, "given back by an end");
}
