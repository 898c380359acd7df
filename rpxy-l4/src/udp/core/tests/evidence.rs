//! Who may make the daemon believe what: strangers, tenants' clients and tenants' backends that lie.

use super::{
    packets::{HANDSHAKE, SERVER_INITIAL, ZERO_RTT, first, hello, initials, long, short, wireguard},
    *,
};
use crate::udp::core::evidence::Rank;

pub(super) const CLIENT: &[u8] = b"client-a";
pub(super) const DCID: &[u8] = b"destin-a";
pub(super) const SERVER: &[u8] = b"\xfeerver-a";
pub(super) const VICTIM: u16 = 300;

/// A QUIC rule at 1, a tenant's at 2, everything else at 9.
pub(super) fn config() -> String {
    format!(
        "{TOP}udp_target = [\"198.51.100.1:9\"]\n{}{}",
        rule("a", "quic", 1, "server_names = [\"a.test\"]"),
        rule("tenant", "quic", 2, "server_names = [\"tenant.test\"]"),
    )
}

pub(super) fn established(bench: &mut Bench, from: Flow, name: &str, server: &[u8]) -> SessionId {
    bench.client(from, &first(CLIENT, DCID, name));
    let session = bench.last().unwrap().0;
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, server));
    bench.client(from, &long(HANDSHAKE, server, CLIENT));
    bench.ports();
    session
}

/// A first byte, bytes where a short header has its ID, and something behind them.
pub(super) fn beginning(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut datagram = bytes.to_vec();
    datagram.resize(len, 0);
    datagram
}

#[test]
fn a_client_cannot_make_up_an_id_that_takes_others_traffic() {
    let dns = |id: u8| beginning(&[0x55, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'w', b'w', b'w'], 40);
    let dtls = beginning(&[0x16, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50], 63);
    let sip = b"INVITE sip:bob@example.net SIP/2.0\r\n".to_vec();
    let random = beginning(b"\x41\xf1\x02\xe3\x04\xd5\x06\xc7\x08", 60);
    let short_of = |datagram: &[u8]| {
        let mut made_up = beginning(&datagram[..21.min(datagram.len())], 60);
        made_up[0] = 0x41;
        made_up
    };
    for (row, victims, made_up) in [
        ("U1: DTLS hellos", vec![dtls.clone()], short_of(&dtls)),
        ("U2: DNS queries of any number", (0..=255).map(dns).collect(), short_of(&dns(0x42))),
        ("SIP requests", vec![sip.clone()], short_of(&sip)),
        ("anything", vec![random.clone()], random.clone()),
    ] {
        let mut bench = Bench::new(&config());
        established(&mut bench, flow(1), "tenant.test", SERVER);
        for _ in 0..5 {
            bench.client(flow(1), &made_up);
        }
        bench.ports();
        for (n, victim) in (VICTIM..).zip(&victims) {
            bench.client(flow(n), victim);
            assert_eq!(bench.ports(), [9], "{row}: {n}");
        }
    }
}

#[test]
fn a_backend_cannot_state_an_id_that_takes_others_traffic() {
    for (row, id, victim) in [
        ("U3: a DNS query", &b"\x00\x01\x00\x00\x01\x00\x00\x00\x00"[..], beginning(&[0x7f, 0, 1, 0, 0, 1], 40)),
        ("a DTLS record", b"\xfe\xff\x00\x00\x00\x00\x00\x00", beginning(&[0x56, 0xfe, 0xff], 40)),
        ("a SIP request", b"NVITE sip:bob@exampl", b"INVITE sip:bob@example.net SIP/2.0\r\n".to_vec()),
    ] {
        let mut bench = Bench::new(&config());
        established(&mut bench, flow(1), "tenant.test", id);
        bench.client(flow(VICTIM), &victim);
        assert_eq!(bench.ports(), [9], "{row}");
    }
}

#[test]
fn the_ids_that_one_backend_states_do_not_cost_another_ones_clients_their_connections() {
    let mut bench = Bench::new(&config());
    // U6: every length.
    let lengths = [5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
    for (n, len) in (1..).zip(lengths) {
        established(
            &mut bench,
            flow(n),
            "tenant.test",
            &b"\xf1\x22\xf3\x44\xf5\x66\xf7\x88\xf9\x00\xfb\xfc\xfd\xfe\xff\x01\x02\x03\x04\x05"[..len],
        );
    }
    established(&mut bench, flow(100), "a.test", SERVER);
    bench.client(flow(VICTIM), &short(SERVER));
    assert_eq!(bench.ports(), [1]);
}

#[test]
fn wireguard_indices_need_an_initiation_and_take_nobody_elses() {
    let mut bench = Bench::new(&format!("{TOP}udp_target = [\"198.51.100.1:9\"]\n{}", rule("w", "wireguard", 3, "")));
    bench.client(flow(1), &wireguard(1, 7, 0, 148));
    let session = bench.last().unwrap().0;
    // U7: without an initiation of the client, or again and again for the same one.
    for index in 0..1000 {
        bench.answer(session, &wireguard(2, index, 8, 92));
        bench.answer(session, &wireguard(2, 5000 + index, 7, 92));
    }
    assert_eq!(bench.affinity.len(), 1, "one initiation, one index");
    bench.ports();
    bench.client(flow(VICTIM), &wireguard(4, 5000, 0, 96));
    assert_eq!(bench.ports(), [3], "which is found again");
    bench.client(flow(VICTIM + 1), &wireguard(4, 5001, 0, 96));
    assert_eq!(bench.ports(), [9]);
}

#[test]
fn only_a_secret_of_the_server_on_this_session_confirms_a_client() {
    let secret = |bench: &Bench, session| bench.sessions.table.get(session).unwrap().rank() == Rank::Secret;
    for (row, datagrams, expected) in [
        ("the first datagram again", vec![first(CLIENT, DCID, "a.test")], false),
        ("a long header to the ID that the server stated", vec![long(HANDSHAKE, SERVER, CLIENT)], true),
        ("a short header with it", vec![short(SERVER)], true),
        ("an ID that the client made up", vec![short(b"\xf1ade up!"), short(b"\xf1ade up!")], false),
    ] {
        let mut bench = Bench::new(&config());
        bench.client(flow(1), &first(CLIENT, DCID, "a.test"));
        let session = bench.last().unwrap().0;
        bench.answer(session, &long(SERVER_INITIAL, CLIENT, SERVER));
        assert!(!secret(&bench, session), "{row}: not by an answer");
        datagrams.iter().for_each(|datagram| bench.client(flow(1), datagram));
        assert_eq!(secret(&bench, session), expected, "{row}");
    }
    // A session that was begun by a known ID has proved nothing.
    let mut bench = Bench::new(&config());
    established(&mut bench, flow(1), "a.test", SERVER);
    bench.client(flow(VICTIM), &short(SERVER));
    let moved = bench.last().unwrap().0;
    bench.answer(moved, &short(CLIENT));
    bench.client(flow(VICTIM), &short(SERVER));
    assert!(!secret(&bench, moved));
}

/// Handshakes that succeed beside a flood: the client's Initial, the server's answer, the client's second flight.
fn handshakes(bench: &mut Bench, from: std::ops::Range<u16>, mut flood: impl FnMut(&mut Bench)) -> usize {
    from.filter(|n| {
        let id = [&b"client"[..], &n.to_be_bytes()].concat();
        let server = [&b"\xfeerver"[..], &n.to_be_bytes()[1..]].concat();
        let server = [&server[..], b"abcd"].concat();
        bench.client(flow(*n), &first(&id, &id, "a.test"));
        let Some((session, 1)) = bench.last() else { return false };
        flood(bench);
        let answered = bench.answer(session, &long(SERVER_INITIAL, &id, &server)) == Some(flow(*n));
        flood(bench);
        bench.ports();
        bench.client(flow(*n), &long(HANDSHAKE, &server, &id));
        answered && bench.ports() == [1]
    })
    .count()
}

#[test]
fn real_clients_get_in_during_a_flood_of_forged_sources() {
    let most = 64;
    let config = format!("udp_max_connections = {most}\norphan = \"default\"\n{}", config());
    let forged = |n: u32| Flow {
        client: SocketAddr::from(([203, 0, 113, 5], 1024 + u16::try_from(n % 60_000).unwrap())),
        ..flow(0)
    };
    for (row, datagrams) in [
        ("U5: junk that the default target answers", 1),
        ("U4: two datagrams each, and answers", 2),
        ("turns for a while", 8),
    ] {
        let mut bench = Bench::new(&config);
        let mut sent = 0;
        let mut flood = |bench: &mut Bench| {
            for _ in 0..40 {
                sent += 1;
                for _ in 0..datagrams {
                    bench.client(forged(sent), &beginning(b"\x41\xf1\x02\xe3\x04\xd5\x06\xc7\x08", 60));
                    if let Some((session, 9)) = bench.last() {
                        bench.answer(session, &[0x41; 40]);
                    }
                }
                bench.now += Duration::from_millis(2);
            }
        };
        flood(&mut bench);
        flood(&mut bench);
        assert_eq!(handshakes(&mut bench, 1..30, flood), 29, "{row}");
        assert_eq!(bench.active.count(), most, "{row}: the table is full");
    }
}

#[test]
fn no_rule_takes_the_share_of_another_one() {
    let mut bench = Bench::new(&format!("udp_max_connections = 20\n{}", config()));
    // A tenant's clients, real ones, take all that there is.
    for n in 1..=20_u16 {
        let id = [&b"tenant"[..], &n.to_be_bytes()].concat();
        bench.client(flow(n), &first(&id, &id, "tenant.test"));
        let session = bench.last().unwrap().0;
        let server = [&b"\xfe\x01\x02\x03\x04\x05"[..], &n.to_be_bytes()].concat();
        bench.answer(session, &long(SERVER_INITIAL, &id, &server));
        bench.client(flow(n), &long(HANDSHAKE, &server, &id));
    }
    bench.now += seconds(10);
    assert_eq!(handshakes(&mut bench, 100..110, |_| {}), 10, "the other rule has its half");
    bench.now += seconds(10);
    let count = |bench: &Bench, port: u16| bench.sockets.values().filter(|address| address.port() == port).count();
    assert_eq!((count(&bench, 2), count(&bench, 1)), (10, 10));
    let (mut refused, before) = (0, bench.drops(DatagramDrop::TooMany));
    for n in 200..220_u16 {
        let id = [&b"client"[..], &n.to_be_bytes()].concat();
        bench.client(flow(n), &first(&id, &id, "a.test"));
        refused = bench.drops(DatagramDrop::TooMany) - before;
    }
    assert_eq!((count(&bench, 2), refused), (10, 20), "and no more than that");
}

#[test]
fn a_rule_with_many_proven_sessions_still_takes_newcomers_during_a_flood_of_another() {
    let most = 64;
    let mut bench = Bench::new(&format!("udp_max_connections = {most}\n{}", config()));
    let mut sent = 0;
    let mut flood = |bench: &mut Bench| {
        for _ in 0..5 {
            sent += 1;
            bench.client(flow(2000 + sent), b"junk");
        }
    };
    // Half of the table, then more.
    for proven in [32, 40] {
        assert_eq!(handshakes(&mut bench, 500..500 + proven, |_| {}), usize::from(proven));
        (0..40).for_each(|_| flood(&mut bench));
        let of_rule = |bench: &Bench| bench.sockets.values().filter(|to| to.port() == 1).count();
        assert!(of_rule(&bench) >= 32, "what is proven stays: {}", of_rule(&bench));
        assert_eq!(handshakes(&mut bench, 700..708, &mut flood), 8, "beside {proven}");
    }
}

#[test]
fn a_session_of_one_question_gives_way_first() {
    let mut bench = Bench::new(&format!("{TOP}udp_max_connections = 100\nudp_target = [\"198.51.100.1:9\"]\n"));
    let mut answered = 0;
    // U25: 600 queries a second, a port each.
    for n in 1..3000 {
        bench.client(flow(n), b"query");
        if let Some((session, _)) = bench.last() {
            bench.now += Duration::from_micros(800);
            answered += usize::from(bench.answer(session, b"answer") == Some(flow(n)));
        }
        bench.now += Duration::from_micros(800);
    }
    assert_eq!((answered, bench.drops(DatagramDrop::TooMany)), (2999, 0));
}

#[test]
fn what_other_protocols_send_is_theirs_beside_quic() {
    let any = rule("any", "quic", 4, "");
    let stun = beginning(&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42], 28);
    let dtls = beginning(&[22, 0xfe, 0xfd, 0, 0], 80);
    // U11, without an earlier datagram.
    for (row, datagram) in [
        ("RDP over UDP", beginning(&[0xff, 0xff, 0xff, 0xff, 0], 1232)),
        ("RTP", beginning(&[0x80, 0x60, 0x1f, 0x2e, 0x00, 0x01, 0x8c, 0x20, 0x5d], 1444)),
        ("Thrift", beginning(&[0x82, 0x21, 0x01, 0x0a, 0x67], 4894)),
        ("a version that exists without the fixed bit", beginning(&[0x80, 0xff, 0, 0, 29, 8], 1250)),
        ("STUN", stun.clone()),
        ("DTLS", dtls.clone()),
    ] {
        let mut bench = Bench::new(&format!("{}{any}", config()));
        bench.client(flow(1), &datagram);
        bench.client(flow(1), &datagram);
        assert_eq!(bench.ports(), [9, 9], "{row}");
    }
    // U31, on the socket of a connection.
    for (row, datagram) in [("STUN", stun), ("DTLS", dtls)] {
        let mut bench = Bench::new(&config());
        established(&mut bench, flow(1), "a.test", SERVER);
        let known = bench.affinity.len();
        for (datagram, expected) in [(&datagram, 9), (&datagram, 9), (&short(SERVER), 1)] {
            bench.client(flow(1), datagram);
            assert_eq!(bench.ports(), [expected], "{row}");
        }
        assert_eq!(bench.affinity.len(), known, "{row}: nothing is learned from it");
    }
}

#[test]
fn what_is_too_small_to_begin_a_connection_goes_along_with_its_flow() {
    // I1: long headers of every type in 100 bytes.
    for first in [0xc0, 0xd0, 0xe0, 0xf0, 0xd1] {
        let mut bench = Bench::new(&config());
        bench.client(flow(1), b"something else");
        bench.client(flow(1), &beginning(&[first, 0, 0, 0, 1, 0], 100));
        assert_eq!(bench.ports(), [9, 9], "{first:x}");
        assert_eq!(bench.sessions.held_bytes(), 0, "{first:x}");
    }
}

#[test]
fn a_connection_of_which_nothing_is_known_goes_where_alone_it_can_belong() {
    let two = |top: &str| {
        let targets = "target = [\"198.51.100.1:1\", \"198.51.100.1:2\"]";
        format!("{top}{TOP}[protocols.\"a\"]\nprotocol = \"quic\"\n{targets}\n")
    };
    let one = format!("{TOP}{}", rule("a", "quic", 1, "server_names = [\"a.test\"]"));
    let second = rule("b", "quic", 2, "server_names = [\"b.test\"]");
    for (row, config, ports, orphans) in [
        ("U26: one rule, one target", one.clone(), &[1][..], 0),
        ("not on request", format!("orphan = \"drop\"\n{one}"), &[], 1),
        ("a default target: it may be that", format!("udp_target = [\"198.51.100.1:9\"]\n{one}"), &[9], 0),
        ("two rules", format!("{one}{second}"), &[], 1),
        ("two targets", two(""), &[], 1),
    ] {
        let mut bench = Bench::new(&config);
        bench.client(flow(1), &short(b"\xf1nknown!"));
        assert_eq!((bench.ports().as_slice(), bench.drops(DatagramDrop::Orphan)), (ports, orphans), "{row}");
    }
    // U27: several gateways with the same file agree, whatever the rule's balancing is.
    let config = two("orphan = \"balance\"\n");
    let port_of = |config: &str, n: u16, datagram: &[u8]| {
        let mut bench = Bench::new(config);
        bench.client(flow(n), datagram);
        bench.ports()
    };
    let mut seen = std::collections::BTreeSet::new();
    for n in 1..40 {
        let port = port_of(&config, n, &short(b"\xf1nknown!"));
        let by_source = config.replace("protocol = \"quic\"", "protocol = \"quic\"\nload_balance = \"source_ip\"");
        assert_eq!(port, port_of(&by_source, n, &first(CLIENT, DCID, "a.test")), "client {n}");
        seen.extend(port);
    }
    assert_eq!(seen.len(), 2);
    // WireGuard: after a restart of the daemon.
    let mut bench = Bench::new(&format!("{TOP}{}", rule("w", "wireguard", 3, "")));
    bench.client(flow(1), &wireguard(4, 77, 0, 96));
    assert_eq!(bench.ports(), [3]);
}

#[test]
fn an_unknown_version_that_no_rule_takes_is_told_which_there_are() {
    let named = format!("{TOP}{}", rule("a", "quic", 1, "server_names = [\"a.test\"]"));
    let unknown = |len| beginning(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 4, 1, 2, 3, 4, 3, 7, 8, 9], len);
    for (row, config, datagram, replies) in [
        ("U28", named.clone(), unknown(1250), 1),
        ("too small to begin a connection", named.clone(), unknown(1199), 0),
        ("dropped on request", format!("quic_unknown_version = \"drop\"\n{named}"), unknown(1250), 0),
        ("a rule without conditions takes it", format!("{named}{}", rule("b", "quic", 2, "")), unknown(1250), 0),
    ] {
        let mut bench = Bench::new(&config);
        bench.client(flow(1), &datagram);
        assert_eq!(bench.replies.len(), replies, "{row}");
        for (to, reply) in &bench.replies {
            assert_eq!(*to, flow(1));
            assert_eq!(reply[0] & 0xc0, 0xc0);
            let rest = [&[0, 0, 0, 0, 3, 7, 8, 9, 4, 1, 2, 3, 4, 0, 0, 0, 1][..], &0x6b33_43cf_u32.to_be_bytes()];
            assert_eq!(reply[1..], rest.concat(), "no version, the IDs changed over, what there is");
        }
    }
}

#[test]
fn early_data_gives_way_before_the_hello() {
    // U30, with more of it than is held.
    let mut bench = Bench::new(&config());
    let hello = initials(CLIENT, DCID, &hello("a.test", "h3", 2000), 1000);
    let early = long(ZERO_RTT, DCID, CLIENT);
    bench.client(flow(1), &hello[0]);
    (0..40).for_each(|_| bench.client(flow(1), &early));
    hello[1..].iter().for_each(|datagram| bench.client(flow(1), datagram));
    let got: Vec<&Vec<u8>> = bench.sent.iter().map(|(_, _, datagram)| datagram).collect();
    assert!(hello.iter().all(|datagram| got.contains(&datagram)), "the whole hello");
    assert!(got.iter().filter(|datagram| ***datagram == early).count() > 10, "and what else there was room for");
}

#[test]
fn what_the_kernel_forwards_is_a_turn_only_where_the_client_spoke() {
    for (row, turns, expected) in [
        ("a stream of answers", 0, Rank::Unproven),
        ("two more questions", 2, Rank::Unproven),
        ("three more questions, each answered", 3, Rank::Turns),
    ] {
        let mut bench = Bench::new(&config());
        bench.client(flow(1), &beginning(b"\x01junk", 40));
        let session = bench.last().unwrap().0;
        bench.answer(session, b"answer");
        assert_eq!(bench.installed, [session], "{row}");
        // The daemon asks the kernel when the session would have ended.
        bench.kernel_seen.insert(session, Forwarded { last: bench.now + seconds(20), turns });
        bench.wait(seconds(30));
        assert_eq!(bench.sessions.table.get(session).unwrap().rank(), expected, "{row}");
    }
}

#[test]
fn what_a_client_chose_itself_is_no_secret() {
    let rank = |bench: &Bench, session| bench.sessions.table.get(session).unwrap().rank();
    for (row, stated, expected) in [
        ("an ID that the server chose", SERVER, Rank::Secret),
        ("the first ID, which the client made up", DCID, Rank::Unproven),
        ("the client's own", CLIENT, Rank::Unproven),
    ] {
        let mut bench = Bench::new(&config());
        bench.client(flow(1), &first(CLIENT, DCID, "a.test"));
        let session = bench.last().unwrap().0;
        bench.answer(session, &long(SERVER_INITIAL, CLIENT, stated));
        bench.client(flow(1), &long(HANDSHAKE, stated, CLIENT));
        assert_eq!(rank(&bench, session), expected, "{row}, in a long header");
        bench.client(flow(1), &short(stated));
        assert_eq!(rank(&bench, session), expected, "{row}, in a short header");
    }
}

#[test]
fn an_echo_of_a_wireguard_initiation_offers_nothing() {
    let mut bench = Bench::new(&format!("{TOP}{}", rule("vpn", "wireguard", 2, "")));
    bench.client(flow(1), &wireguard(1, 7, 0, 148));
    let session = bench.last().unwrap().0;
    bench.answer(session, &wireguard(1, 7, 0, 148));
    bench.client(flow(1), &wireguard(2, 8, 7, 92));
    bench.client(flow(1), &wireguard(4, 7, 0, 32));
    assert_eq!(bench.sessions.table.get(session).unwrap().rank(), Rank::Unproven);
}
