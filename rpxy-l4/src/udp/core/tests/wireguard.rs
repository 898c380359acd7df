//! WireGuard: by public key, by index, by address.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    packets::{self, wireguard},
    *,
};

/// An initiation made for [`KEY`] (a capture of wireguard-go).
const INITIATION: &str = "AQAAAAF1s7TNPg9EeSitHw47JY2IYtcaVT1+cVW9Oz38UeQJZbYIcYX5oEjCZKlj4poQ64nTYZmo/5NPdLuNnwTuiIUsmpadGrHX1eyOyJwRqZe6+NsaraCTpmBua54uioB1zxd9pWl6WaUC2/IjSLqmKX93T6F8q5d3NDsF3N6pFRDZAAAAAAAAAAAAAAAAAAAAAA==";
const KEY: &str = "i6MmfpY2tEzA2ntGSGiN+D9Cg8AItdNaYNuo1W5EWRw=";
const OTHER_KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn initiation() -> Vec<u8> {
    STANDARD.decode(INITIATION).unwrap()
}

/// The index of the client in [`INITIATION`].
fn client_index() -> u32 {
    u32::from_le_bytes(initiation()[4..8].try_into().unwrap())
}

/// The answer of a server that chose `index`.
fn response(index: u32) -> Vec<u8> {
    wireguard(2, index, client_index(), 92)
}

/// An initiation that fits no key.
fn stray() -> Vec<u8> {
    wireguard(1, 7, 0, 148)
}

fn with_key(name: &str, port: u16, key: &str) -> String {
    rule(name, "wireguard", port, &format!("public_key = \"{key}\""))
}

/// [`KEY`] at 1, the rest at 2, everything else at 9.
fn config() -> String {
    format!("{TOP}udp_target = [\"198.51.100.1:9\"]\n{}{}", with_key("one", 1, KEY), rule("rest", "wireguard", 2, ""))
}

#[test]
fn initiations_go_by_the_key_that_they_are_made_for() {
    let target = "udp_target = [\"198.51.100.1:9\"]\n";
    let keyed = with_key("one", 1, KEY);
    let other = with_key("other", 3, OTHER_KEY);
    let mut filled = initiation();
    filled[1..4].copy_from_slice(b"war");
    for (row, config, datagram, expected) in [
        ("its key", config(), initiation(), &[1][..]),
        ("its key in the second rule", format!("{TOP}{other}{keyed}"), initiation(), &[1]),
        (
            "the key before a rule without",
            format!("{TOP}{}{keyed}", rule("rest", "wireguard", 2, "")),
            initiation(),
            &[1],
        ),
        ("a stray one to the rule without a key", config(), stray(), &[2]),
        ("a stray one without such a rule", format!("{TOP}{target}{keyed}{other}"), stray(), &[]),
        ("a stray one on request", format!("unmatched = \"default\"\n{TOP}{target}{keyed}"), stray(), &[9]),
        ("without rules, like anything", format!("{TOP}{target}"), stray(), &[9]),
        ("filled reserved bytes", config(), filled.clone(), &[9]),
        (
            "filled reserved bytes where they may be",
            format!("{TOP}{}", rule("one", "wireguard", 1, &format!("public_key = \"{KEY}\"\nreserved = \"any\""))),
            filled,
            &[1],
        ),
        ("of two rules with one key the first", format!("{TOP}{keyed}{}", with_key("two", 3, KEY)), initiation(), &[1]),
    ] {
        let mut bench = Bench::new(&config);
        bench.client(flow(1), &datagram);
        assert_eq!(bench.ports(), expected, "{row}");
    }
}

#[test]
fn a_tunnel_is_one_session_and_a_second_one_on_the_same_socket_another() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &initiation());
    let one = bench.last().unwrap().0;
    bench.answer(one, &response(100));
    bench.client(flow(1), &wireguard(4, 100, 0, 96));
    bench.client(flow(1), &initiation());
    assert_eq!(bench.ports(), [1, 1, 1]);
    bench.client(flow(1), &stray());
    let two = bench.last().unwrap().0;
    bench.answer(two, &wireguard(2, 200, 7, 92));
    bench.ports();
    for (row, datagram, expected) in [
        ("data of the first", wireguard(4, 100, 0, 96), 1),
        ("data of the second", wireguard(4, 200, 0, 96), 2),
        ("the first begins anew", initiation(), 1),
        ("an answer to the second", wireguard(2, 9, 200, 92), 2),
        ("a cookie for the first", wireguard(3, 100, 0, 64), 1),
        ("an unknown index: the one spoken to last", wireguard(4, 999, 0, 32), 1),
    ] {
        bench.client(flow(1), &datagram);
        assert_eq!(bench.ports(), [expected], "{row}");
    }
    assert_eq!(bench.sockets.len(), 2);
}

#[test]
fn a_client_that_changes_its_address_keeps_its_tunnel() {
    let rows = [
        ("an answered handshake", response(100), None, 100),
        ("a handshake that the server began", wireguard(1, 300, 0, 148), Some(wireguard(2, 7, 300, 92)), 300),
    ];
    for (row, from_server, from_client, index) in rows {
        let mut bench = Bench::new(&config());
        bench.client(flow(1), &initiation());
        let before = bench.last().unwrap().0;
        bench.answer(before, &from_server);
        if let Some(message) = from_client {
            bench.client(flow(1), &message);
        }
        bench.ports();
        bench.client(flow(2), &wireguard(4, index, 0, 128));
        let (session, port) = bench.last().unwrap();
        assert_eq!(port, 1, "{row}");
        assert_ne!(session, before, "{row}");
        assert_eq!(bench.answer(session, &wireguard(4, 7, 0, 128)), Some(flow(2)), "{row}");
        bench.client(flow(3), &wireguard(4, 12_345, 0, 128));
        assert_eq!(bench.last().unwrap().1, 9, "{row}: an unknown index");
    }
}

#[test]
fn the_kernel_steers_the_index_that_the_client_uses_now() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &initiation());
    let session = bench.last().unwrap().0;
    let steered = |bench: &Bench| bench.steered_ids.get(&session).copied().flatten();
    let on_the_wire = |index: u32| Some(packets::id(&index.to_le_bytes()));
    bench.answer(session, &wireguard(3, 7, 0, 64));
    assert_eq!(bench.installed, [], "a cookie tells no index");
    bench.client(flow(1), &initiation());
    bench.answer(session, &response(100));
    assert_eq!((bench.installed.as_slice(), steered(&bench)), ([session].as_slice(), on_the_wire(100)));
    bench.client(flow(1), &wireguard(4, 100, 0, 96));
    bench.client(flow(1), &initiation());
    bench.answer(session, &response(0x0102_0304));
    assert_eq!(steered(&bench), on_the_wire(0x0102_0304), "the client will use it");
    bench.client(flow(1), &wireguard(4, 100, 0, 96));
    assert_eq!(steered(&bench), on_the_wire(100), "it does not yet");
    bench.answer(session, &wireguard(1, 300, 0, 148));
    assert_eq!(steered(&bench), on_the_wire(100), "the server begins anew");
    bench.client(flow(1), &wireguard(2, 8, 300, 92));
    assert_eq!(steered(&bench), on_the_wire(300), "and the client has answered");
    bench.reload(&format!("udp_max_connections = 9\n{}", config()));
    assert_eq!((bench.installed.len(), steered(&bench)), (1, on_the_wire(300)));
    // Data for another server of the same client: the kernel must not take it for the first one's.
    bench.client(flow(2), &stray());
    let other = bench.last().unwrap().0;
    bench.answer(other, &wireguard(2, 200, 7, 92));
    bench.ports();
    bench.client(flow(1), &wireguard(4, 200, 0, 96));
    assert_eq!(bench.ports(), [2]);
    assert_eq!(bench.installed, [session, other], "its own entry takes messages with its own index only");
}

#[test]
fn an_index_is_forgotten_when_its_session_keys_are_over() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &initiation());
    let session = bench.last().unwrap().0;
    bench.answer(session, &response(100));
    for (row, wait, expected) in [("before", 199, 1), ("after", 1, 9)] {
        bench.now += seconds(wait);
        bench.ports();
        bench.client(flow(10 + u16::try_from(wait).unwrap()), &wireguard(4, 100, 0, 96));
        assert_eq!(bench.ports(), [expected], "{row}");
    }
}

#[test]
fn orphans_of_tunnels_go_by_the_policy() {
    for typ in [2, 3, 4] {
        let len = [0, 0, 92, 64, 32][usize::from(typ)];
        let mut bench = Bench::new(&format!("orphan = \"drop\"\n{}", config()));
        bench.client(flow(1), &wireguard(typ, 5, 5, len));
        assert_eq!((bench.ports(), bench.drops(DatagramDrop::Orphan)), (vec![], 1), "type {typ}");
    }
}
