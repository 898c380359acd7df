//! What is certainly QUIC is never given away: it is a connection with a name, one without, or nobody's.

use super::{
    packets::{HANDSHAKE, SERVER_INITIAL, Sender, ZERO_RTT, first, hello, initials, long},
    *,
};

const CLIENT: &[u8] = b"client-a";
const DCID: &[u8] = b"destin-a";

/// a.test at 1, everything that is not QUIC at 9.
fn named() -> String {
    format!("{TOP}udp_target = [\"198.51.100.1:9\"]\n{}", rule("a", "quic", 1, "server_names = [\"a.test\"]"))
}

/// The same, and QUIC without a name at 4.
fn unnamed() -> String {
    named() + &rule("any", "quic", 4, "")
}

fn sender() -> Sender<'static> {
    Sender::new(CLIENT, DCID)
}

/// One datagram with this stream.
fn stream(stream: &[u8]) -> Vec<u8> {
    sender().crypto(stream, &[(0, stream.len())])
}

/// A hello for a.test in which a nested length is wrong.
fn broken_hello() -> Vec<u8> {
    let mut message = hello("a.test", "h3", 300);
    let name = message.windows(6).position(|window| window == b"a.test").unwrap();
    message[name - 1] += 1;
    message
}

/// Two datagrams that disagree about the same bytes.
fn contradicting() -> Vec<Vec<u8>> {
    let of = |name: &str| initials(CLIENT, DCID, &hello(name, "h3", 2000), 1000).remove(0);
    vec![of("a.test"), of("b.test")]
}

#[test]
fn what_opens_is_quic_whatever_is_in_it() {
    let half = || initials(CLIENT, DCID, &hello("a.test", "h3", 2000), 1000).remove(0);
    let rows: [(&str, Vec<Vec<u8>>, DatagramDrop, bool); 11] = [
        ("a frame that no Initial has", vec![sender().initial(vec![0x08, 0, 0])], DatagramDrop::Unmatched, true),
        ("a frame cut", vec![sender().initial(vec![6, 0, 0x7f, 0xff])], DatagramDrop::Unmatched, true),
        ("no hello", vec![stream(&[2, 0, 0, 2, 3, 3])], DatagramDrop::Unmatched, true),
        ("a hello with a wrong length", vec![stream(&broken_hello())], DatagramDrop::Unmatched, true),
        ("a hello that says it is longer than any", vec![stream(&[1, 1, 0, 0])], DatagramDrop::Unmatched, true),
        ("bytes that contradict each other", contradicting(), DatagramDrop::Unmatched, true),
        ("an ID that no client makes up", vec![first(CLIENT, b"7 bytes", "a.test")], DatagramDrop::Unmatched, true),
        ("behind early data", vec![long(ZERO_RTT, DCID, CLIENT), stream(&[2])], DatagramDrop::Unmatched, true),
        (
            "behind a token",
            vec![Sender { token: b"token", ..sender() }.initial(vec![8])],
            DatagramDrop::Unmatched,
            true,
        ),
        ("too small a datagram", vec![sender().unpadded(vec![6, 0, 1, 1])], DatagramDrop::Malformed, false),
        ("half a hello, and no more", vec![half()], DatagramDrop::Incomplete, false),
    ];
    for (row, datagrams, reason, has_rule) in rows {
        for (config, goes_on) in [(named(), false), (unnamed(), has_rule)] {
            let mut bench = Bench::new(&config);
            datagrams.iter().for_each(|datagram| bench.client(flow(1), datagram));
            bench.wait(HELLO_TIMEOUT);
            let expected = if goes_on { vec![4; datagrams.len()] } else { Vec::new() };
            assert_eq!(bench.ports(), expected, "{row}");
            let dropped = if goes_on { 0 } else { u32::try_from(datagrams.len()).unwrap() };
            assert_eq!(bench.drops(reason), dropped, "{row}: {:?}", bench.dropped);
            assert_eq!(bench.sessions.held_bytes(), 0, "{row}");
        }
        let mut bench = Bench::new(&format!("unmatched = \"default\"\n{}", named()));
        datagrams.iter().for_each(|datagram| bench.client(flow(1), datagram));
        assert_eq!(bench.ports(), if has_rule { vec![9; datagrams.len()] } else { Vec::new() }, "{row}, as asked for");
    }
}

#[test]
fn nor_is_it_given_to_what_its_socket_has() {
    for (row, datagram) in [
        ("a hello that cannot be read", stream(&broken_hello())),
        ("too small a datagram", sender().unpadded(vec![6, 0, 1, 1])),
    ] {
        let mut bench = Bench::new(&named());
        bench.client(flow(1), b"something else");
        bench.client(flow(1), &datagram);
        assert_eq!(bench.ports(), [9], "{row}");
    }
}

#[test]
fn a_connection_without_a_readable_hello_is_one() {
    let mut bench = Bench::new(&unnamed());
    bench.client(flow(1), &stream(&broken_hello()));
    let (session, _) = bench.last().unwrap();
    assert!(bench.log[0].starts_with("start udp:quic"), "{:?}", bench.log);
    // The server closes it, and the client may repeat itself.
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, b"\xfeerver-a"));
    bench.client(flow(1), &stream(&broken_hello()));
    bench.client(flow(1), &long(HANDSHAKE, b"\xfeerver-a", CLIENT));
    assert_eq!((bench.ports(), bench.sockets.len()), (vec![4, 4, 4], 1));
}

#[test]
fn a_hello_is_read_wherever_it_is_in_its_datagram() {
    for (row, typ) in [("early data", ZERO_RTT), ("a packet of the handshake", HANDSHAKE)] {
        let mut bench = Bench::new(&named());
        bench.client(flow(1), &[long(typ, DCID, CLIENT), first(CLIENT, DCID, "a.test")].concat());
        assert_eq!(bench.ports(), [1], "behind {row}");
    }
}

#[test]
fn what_does_not_open_may_be_from_the_middle_of_a_handshake() {
    let mut datagram = first(CLIENT, DCID, "a.test");
    datagram[700] ^= 1;
    let alone = |keys: &str| format!("{TOP}{}", rule("a", "quic", 1, &format!("server_names = [\"a.test\"]\n{keys}")));
    for (row, config, expected) in [
        ("beside a default target", named(), &[9][..]),
        ("which strays do not go to", format!("orphan = \"drop\"\n{}", named()), &[]),
        ("spread over several gateways", format!("orphan = \"balance\"\n{}", named()), &[1]),
        ("where there is one target", alone(""), &[1]),
    ] {
        let mut bench = Bench::new(&config);
        bench.client(flow(1), &datagram);
        assert_eq!(bench.ports(), expected, "{row}");
    }
    let mut bench = Bench::new(&named());
    bench.client(flow(1), b"something else");
    bench.client(flow(1), &datagram);
    assert_eq!((bench.ports(), bench.sockets.len()), (vec![9, 9], 1), "on a socket that has a session");
}
