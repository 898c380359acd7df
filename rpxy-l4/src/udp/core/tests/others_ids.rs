//! IDs that are another one's: what they lead to from elsewhere, and from a socket that somebody has forged.

use super::{
    evidence::{SERVER, VICTIM, beginning, config, established},
    packets::{SERVER_INITIAL, first, long, short},
    *,
};

#[test]
fn an_id_that_a_client_used_leads_from_elsewhere_only_where_nobody_else_can_be_meant() {
    const SECRET: &[u8] = b"\xf5ecret-a";
    let rule_a = rule("a", "quic", 1, "server_names = [\"a.test\"]");
    let tenant = rule("tenant", "quic", 2, "server_names = [\"tenant.test\"]");
    let near = Flow { client: SocketAddr::from(([192, 0, 0, 77], 9)), ..flow(1) };
    for (row, config, from, expected) in [
        ("one rule", format!("orphan = \"drop\"\n{TOP}{rule_a}"), flow(VICTIM), &[1][..]),
        ("two rules", format!("orphan = \"drop\"\n{TOP}{rule_a}{tenant}"), flow(VICTIM), &[]),
        ("two rules, the same network", format!("orphan = \"drop\"\n{TOP}{rule_a}{tenant}"), near, &[1]),
        ("a default target", config(), flow(VICTIM), &[9]),
        ("a default target, the same network", config(), near, &[1]),
    ] {
        let mut bench = Bench::new(&config);
        established(&mut bench, flow(1), "a.test", SERVER);
        bench.client(flow(1), &short(SECRET));
        bench.ports();
        bench.client(from, &short(SECRET));
        assert_eq!(bench.ports(), expected, "{row}");
    }
}

#[test]
fn a_rule_without_affinity_has_nothing_remembered() {
    for (affinity, expected) in [("", [1, 3]), ("affinity = false", [9, 9])] {
        let quic = rule("a", "quic", 1, &format!("server_names = [\"a.test\"]\n{affinity}"));
        let wireguard = rule("w", "wireguard", 3, affinity);
        let mut bench = Bench::new(&format!("{TOP}udp_target = [\"198.51.100.1:9\"]\n{quic}{wireguard}"));
        established(&mut bench, flow(1), "a.test", SERVER);
        bench.client(flow(2), &packets::wireguard(1, 7, 0, 148));
        let tunnel = bench.last().unwrap().0;
        bench.answer(tunnel, &packets::wireguard(2, 50, 7, 92));
        bench.client(flow(1), &short(SERVER));
        bench.client(flow(2), &packets::wireguard(4, 50, 0, 96));
        assert_eq!(bench.ports(), [3, 1, 3], "{affinity}: by their sockets");
        bench.client(flow(VICTIM), &short(SERVER));
        bench.client(flow(VICTIM + 1), &packets::wireguard(4, 50, 0, 96));
        assert_eq!(bench.ports(), expected, "{affinity}: from elsewhere");
    }
}

#[test]
fn an_id_that_lingers_is_nobody_elses() {
    for (name, expected) in [("tenant.test", 1), ("a.test", 3)] {
        let two = "target = [\"198.51.100.1:1\", \"198.51.100.1:3\"]\nload_balance = \"round_robin\"";
        let rules = rule("a", "quic", 1, "server_names = [\"a.test\"]").replace("target = [\"198.51.100.1:1\"]", two);
        let tenant = rule("tenant", "quic", 2, "server_names = [\"tenant.test\"]");
        let mut bench = Bench::new(&format!("{TOP}{rules}{tenant}"));
        established(&mut bench, flow(1), "a.test", SERVER);
        bench.wait(seconds(90));
        assert!(bench.sockets.is_empty());
        established(&mut bench, flow(2), name, SERVER);
        bench.client(flow(VICTIM), &short(SERVER));
        assert_eq!(bench.ports(), [expected], "stated again by {name}");
    }
}

#[test]
fn a_connection_forged_on_a_clients_socket_does_not_go_by_its_ids() {
    const SECRET: &[u8] = b"\xf5ecret-a";
    let mut bench = Bench::new(&config());
    established(&mut bench, flow(1), "a.test", SERVER);
    // A stranger with that source address, and a tenant whose backend answers.
    bench.client(flow(1), &first(b"stranger", b"destin-s", "tenant.test"));
    let forged = bench.last().unwrap().0;
    bench.answer(forged, &long(SERVER_INITIAL, b"stranger", b"\xf6enant-a"));
    bench.client(flow(1), &short(SECRET));
    bench.ports();
    let near = Flow { client: SocketAddr::from(([192, 0, 0, 77], 9)), ..flow(1) };
    bench.client(near, &short(SECRET));
    assert_eq!(bench.ports(), [1], "the port has changed");
}

#[test]
fn a_connection_forged_on_a_clients_socket_does_not_take_its_dtls() {
    let dtls = beginning(&[0x16, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50], 63);
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(b"stranger", b"destin-s", "tenant.test"));
    let forged = bench.last().unwrap().0;
    bench.answer(forged, &long(SERVER_INITIAL, b"stranger", &dtls[1..9]));
    bench.ports();
    bench.client(flow(1), &dtls);
    assert_eq!(bench.ports(), [9]);
}
