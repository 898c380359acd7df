//! Which session of a client socket the kernel steers.

use super::{
    packets::{HANDSHAKE, SERVER_INITIAL, first, long},
    *,
};

const CLIENT: &[u8] = b"client-a";
const OTHER: &[u8] = b"client-b";
const SERVER: &[u8] = b"\xfeerver-a";
const OTHER_SERVER: &[u8] = b"\xfdrver-bb";

/// a.test at 1, b.test at 2; everything else at 9.
fn config() -> String {
    format!(
        "{TOP}udp_target = [\"198.51.100.1:9\"]\n{}{}",
        rule("a", "quic", 1, "server_names = [\"a.test\"]"),
        rule("b", "quic", 2, "server_names = [\"b.test\"]"),
    )
}

/// A connection of client socket 1 to a.test whose server has this ID, and whose client has shown that it receives.
fn connection(bench: &mut Bench, server: &[u8]) -> SessionId {
    bench.client(flow(1), &first(CLIENT, b"destin-a", "a.test"));
    let session = bench.last().unwrap().0;
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, server));
    bench.client(flow(1), &long(HANDSHAKE, server, CLIENT));
    session
}

/// An exchange of client socket 1 of no protocol in particular.
fn exchange(bench: &mut Bench) -> SessionId {
    bench.client(flow(1), b"question");
    let session = bench.last().unwrap().0;
    bench.answer(session, b"answer");
    session
}

/// An Initial from client socket 1 to b.test that may be forged, with the answer of the server to it.
fn initial(bench: &mut Bench, server: &[u8]) -> SessionId {
    bench.client(flow(1), &first(OTHER, b"destin-b", "b.test"));
    let session = bench.last().unwrap().0;
    bench.answer(session, &long(SERVER_INITIAL, OTHER, server));
    session
}

fn end(bench: &mut Bench, session: SessionId) {
    bench.act(|sessions, now, out| sessions.end(session, SessionEnd::Idle, DatagramDrop::Unreachable, now, out));
}

#[test]
fn what_has_shown_nothing_costs_no_session_its_place() {
    type Begin = fn(&mut Bench) -> SessionId;
    let rows: [(&str, Begin); 3] = [
        ("a connection", |bench| connection(bench, SERVER)),
        ("a connection whose server has no ID", |bench| connection(bench, b"")),
        ("another protocol", exchange),
    ];
    for (row, begin) in rows {
        let mut bench = Bench::new(&config());
        let steered = begin(&mut bench);
        assert_eq!(bench.installed, [steered], "{row}");
        let forged = initial(&mut bench, OTHER_SERVER);
        assert_ne!(forged, steered, "{row}");
        assert_eq!((bench.installed.as_slice(), bench.revoked), ([steered].as_slice(), 0), "{row}");
        end(&mut bench, forged);
        assert_eq!((bench.installed.as_slice(), bench.revoked), ([steered].as_slice(), 0), "{row}, and is over");
    }
}

#[test]
fn a_connection_without_ids_leaves_other_protocols_to_the_daemon() {
    let stun = [&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[7; 20]].concat();
    let dtls = [&[22, 0xfe, 0xfd][..], &[0; 40]].concat();
    let data = packets::wireguard(4, 50, 0, 96);
    let quic = format!("{TOP}{}", rule("a", "quic", 1, "server_names = [\"a.test\"]"));
    let rows = [
        ("that go to the default target", config(), [Some(9), Some(9), Some(1)]),
        ("that have a rule", format!("{}{}", config(), rule("w", "wireguard", 3, "")), [Some(9), Some(9), Some(9)]),
        ("that have nowhere else to go", quic, [Some(1); 3]),
    ];
    for (row, config, expected) in rows {
        for (datagram, port) in [&stun, &dtls, &data].into_iter().zip(expected) {
            let mut bench = Bench::new(&config);
            let session = connection(&mut bench, b"");
            assert_eq!(bench.installed, [session], "{row}");
            assert_eq!(bench.steered_by_kernel(&flow(1), &packets::short(b"anything")), Some(session), "{row}");
            if port != Some(1) {
                assert_eq!(bench.steered_by_kernel(&flow(1), datagram), None, "{row}: {datagram:x?}");
            }
            bench.client(flow(1), datagram);
            assert_eq!(bench.ports().last().copied(), port, "{row}: {datagram:x?}");
        }
    }
    let mut bench = Bench::new(&config());
    connection(&mut bench, SERVER);
    let kind = bench.sessions.steerable(bench.installed[0]).unwrap();
    assert_eq!(kind & map::kind::NO_OTHER_PROTOCOL, 0, "where an ID tells, nothing else has to be looked at");
}

#[test]
fn a_hello_that_is_never_complete_costs_no_session_its_place() {
    let mut bench = Bench::new(&config());
    let steered = exchange(&mut bench);
    let mut parts = packets::initials(OTHER, b"destin-b", &packets::hello("b.test", "h3", 2400), 1000);
    bench.client(flow(1), &parts.remove(0));
    assert_eq!((bench.installed.as_slice(), bench.revoked), ([steered].as_slice(), 0));
}

#[test]
fn a_second_connection_is_steered_once_its_client_has_shown_itself() {
    type Begin = fn(&mut Bench) -> SessionId;
    let rows: [(&str, Begin); 3] = [
        ("after a connection", |bench| connection(bench, SERVER)),
        ("after a connection whose server has no ID", |bench| connection(bench, b"")),
        ("beside another protocol", exchange),
    ];
    for (row, begin) in rows {
        let mut bench = Bench::new(&config());
        let before = begin(&mut bench);
        let session = initial(&mut bench, OTHER_SERVER);
        assert_eq!(bench.installed, [before], "{row}");
        bench.client(flow(1), &long(HANDSHAKE, OTHER_SERVER, OTHER));
        assert_eq!(bench.installed, [session], "{row}");
        assert_eq!(bench.steered_ids[&session], Some(packets::id(OTHER_SERVER)), "{row}");
        end(&mut bench, session);
        assert_eq!(bench.installed, [before], "{row}: when it is over");
        end(&mut bench, before);
        assert!(bench.installed.is_empty(), "{row}");
    }
}

#[test]
fn a_connection_is_steered_when_the_one_before_it_has_ended() {
    let mut bench = Bench::new(&config());
    let before = connection(&mut bench, b"");
    let session = initial(&mut bench, b"");
    assert!(bench.installed.is_empty(), "short headers of both look alike");
    end(&mut bench, before);
    assert_eq!(bench.installed, [session]);
}

#[test]
fn an_id_of_a_few_bytes_is_not_told_from_the_beginning_of_another() {
    for (id, expected) in [(&SERVER[..3], false), (&SERVER[..4], true)] {
        let mut bench = Bench::new(&config());
        let before = connection(&mut bench, id);
        let session = initial(&mut bench, b"");
        assert_ne!(session, before);
        assert_eq!(bench.installed.contains(&before), expected, "{id:02x?}");
    }
}

#[test]
fn a_tunnel_costs_another_protocol_its_place_when_its_server_has_answered() {
    let config = format!("{TOP}udp_target = [\"198.51.100.1:9\"]\n{}", rule("wg", "wireguard", 4, ""));
    let mut bench = Bench::new(&config);
    let before = exchange(&mut bench);
    let mut initiation = vec![0; 148];
    initiation[..8].copy_from_slice(&[1, 0, 0, 0, 7, 0, 0, 0]);
    bench.client(flow(1), &initiation);
    let tunnel = bench.last().unwrap().0;
    assert_eq!((bench.installed.as_slice(), bench.revoked), ([before].as_slice(), 0), "it may be forged");
    let mut response = vec![0; 92];
    response[..12].copy_from_slice(&[2, 0, 0, 0, 9, 9, 9, 9, 7, 0, 0, 0]);
    bench.answer(tunnel, &response);
    assert_eq!(bench.installed, [tunnel]);
    end(&mut bench, tunnel);
    assert_eq!(bench.installed, [before]);
}
