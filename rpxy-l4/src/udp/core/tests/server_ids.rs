//! Connection IDs that tell their server in clear.

use super::{
    packets::{HANDSHAKE, SERVER_INITIAL, first, long, short},
    *,
};

const CLIENT: &[u8] = b"client-a";
const DCID: &[u8] = b"destin-a";

/// Two gateways' file: rule a with two servers, a tenant with one, everything else at 9.
fn config() -> String {
    let target = |port: u16, id: &str| format!("{{ address = '198.51.100.1:{port}', quic_server_id = '{id}' }}");
    format!(
        "{TOP}udp_target = ['198.51.100.1:9']\n\
         [protocols.a]\nprotocol = 'quic'\nserver_names = ['a.test']\ntarget = [{}, {}]\n\
         [protocols.tenant]\nprotocol = 'quic'\nserver_names = ['tenant.test']\ntarget = [{}]\n",
        target(1, "0011223344556677"),
        target(3, "a0b0c0d0"),
        target(2, "FFEEDDCC"),
    )
}

#[test]
fn short_headers_of_unknown_flows_go_to_the_server_in_their_id() {
    for (row, datagram, expected) in [
        ("the first server", short(b"\x07\x00\x11\x22\x33\x44\x55\x66\x77nonce"), 1),
        ("other random bits", short(b"\x1f\x00\x11\x22\x33\x44\x55\x66\x77nonce"), 1),
        ("the second server", short(b"\x00\xa0\xb0\xc0\xd0nonce"), 3),
        ("another rule's", short(b"\x00\xff\xee\xdd\xccnonce"), 2),
        ("another configuration", short(b"\x20\xa0\xb0\xc0\xd0nonce"), 9),
        ("nobody's", short(b"\x00\xa0\xb0\xc0\xd1nonce"), 9),
        ("a long header", long(HANDSHAKE, b"\x00\xa0\xb0\xc0\xd0nonce", CLIENT), 9),
    ] {
        let mut bench = Bench::new(&config());
        bench.client(flow(1), &datagram);
        bench.client(flow(1), &datagram);
        assert_eq!(bench.ports(), [expected, expected], "{row}");
    }
}

#[test]
fn new_connections_keep_to_the_rule_by_name() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(CLIENT, b"\x00\xa0\xb0\xc0\xd0nonce", "tenant.test"));
    assert_eq!(bench.ports(), [2]);
}

#[test]
fn a_tenant_that_states_another_ones_id_does_not_get_its_clients() {
    const FRESH: &[u8] = b"\x07\x00\x11\x22\x33\x44\x55\x66\x77nonce";
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(CLIENT, DCID, "tenant.test"));
    let session = bench.last().unwrap().0;
    // Those 8 bytes are the same in each of that server's IDs.
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, &FRESH[..8]));
    bench.client(flow(1), &long(HANDSHAKE, &FRESH[..8], CLIENT));
    bench.ports();
    bench.client(flow(2), &short(FRESH));
    assert_eq!(bench.ports(), [1]);
}
