//! Flows that are turned away are told of, once for each buffer; what only loses a datagram, or ends for another reason, is
//! not.

use super::{
    packets::{first, hello, initials, short},
    *,
};

const A: &[u8] = b"client-a";
const DCID: &[u8] = b"destin-a";

fn told(bench: &mut Bench) -> Vec<(Flow, Datagrams, DatagramDrop, Option<String>)> {
    let refused = bench.refused.drain(..);
    refused.map(|r| (r.flow, r.carries, r.reason, r.server_name.map(String::from))).collect()
}

#[test]
fn each_reason_is_told_with_flow_protocol_and_name() {
    let quic = rule("a", "quic", 1, "server_names = [\"a.test\"]");
    let wireguard = rule("w", "wireguard", 2, "public_key = \"HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=\"");
    let rules = format!("{TOP}orphan = \"drop\"\nquic_unknown_version = \"drop\"\n{quic}{wireguard}");
    let mut initiation = vec![0; 148];
    initiation[0] = 1;
    let mut other_version = first(A, DCID, "a.test");
    // Reserved to be known by nobody (RFC 9000 section 15).
    other_version[1..5].copy_from_slice(&0x1a2a_3a4a_u32.to_be_bytes());
    let third = initials(A, DCID, &hello("a.test", "h3", 2400), 1000).remove(0);
    for (row, config, datagram, carries, reason, name) in [
        (
            "no rule for the name",
            &rules,
            first(A, DCID, "b.test"),
            Datagrams::Quic,
            DatagramDrop::Unmatched,
            Some("b.test"),
        ),
        ("no rule for the key", &rules, initiation, Datagrams::WireGuard, DatagramDrop::Unmatched, None),
        ("something else", &rules, b"hello".to_vec(), Datagrams::Any, DatagramDrop::NotRecognised, None),
        ("a stray", &rules, short(b"\xfeerver-a"), Datagrams::Quic, DatagramDrop::Orphan, None),
        ("another version", &rules, other_version, Datagrams::Quic, DatagramDrop::UnknownVersion, None),
        ("half a hello", &rules, third, Datagrams::Quic, DatagramDrop::Incomplete, None),
    ] {
        let mut bench = Bench::new(config);
        bench.client(flow(1), &datagram);
        bench.wait(HELLO_TIMEOUT);
        assert_eq!(told(&mut bench), [(flow(1), carries, reason, name.map(str::to_owned))], "{row}");
        assert_eq!(bench.drops(reason), 1, "{row}: counted alike");
    }
}

#[test]
fn a_backend_that_cannot_be_had_is_told_of_with_the_reason() {
    let address: SocketAddr = "198.51.100.1:7000".parse().unwrap();
    for (fault, reason) in [
        (Fault::Unreachable, DatagramDrop::Unreachable),
        (Fault::NoPort, DatagramDrop::NoPort),
        (Fault::Shortage, DatagramDrop::Shortage),
    ] {
        let mut bench = Bench::new(&format!("listen_port = 443\nudp_target = [\"{address}\"]\n"));
        bench.faults.insert(address, fault);
        bench.client(flow(1), b"one");
        assert_eq!(told(&mut bench), [(flow(1), Datagrams::Any, reason, None)], "{fault:?}");
    }
}

#[test]
fn limits_are_told_of() {
    let config = |keys: &str| format!("listen_port = 443\n{keys}\nudp_target = [\"198.51.100.1:7000\"]\n");
    let rate = "udp_new_sessions_per_source = 1\nudp_new_sessions_burst = 1";
    let mut bench = Bench::new(&config(rate));
    let another_port = Flow { client: "192.0.0.1:7".parse().unwrap(), ..flow(1) };
    bench.client(flow(1), b"one");
    bench.client(another_port, b"two");
    assert_eq!(told(&mut bench), [(another_port, Datagrams::Any, DatagramDrop::SourceLimited, None)]);
    let mut bench = Bench::new(&config(""));
    bench.bans.ban("192.0.0.0/24".parse().unwrap()).unwrap();
    bench.buffer(flow(1), b"aabbc", 2);
    bench.client(flow(2), b"x");
    let expected = [1, 2].map(|n| (flow(n), Datagrams::Any, DatagramDrop::Banned, None));
    assert_eq!(told(&mut bench), expected, "one for each buffer");
}

#[test]
fn what_is_served_or_ends_for_another_reason_is_not_told_of() {
    let quic = rule("a", "quic", 1, "server_names = [\"a.test\"]");
    let mut bench = Bench::new(&format!("{TOP}{quic}"));
    for datagram in initials(A, DCID, &hello("a.test", "h3", 2400), 1000) {
        bench.client(flow(1), &datagram);
    }
    assert_eq!(bench.ports(), [1, 1, 1]);
    let mut waiting = Bench::new("listen_port = 443\nudp_target = [\"name.test:7000\"]\n");
    waiting.client(flow(1), b"one");
    waiting.act(|sessions, now, out| sessions.handle_closed(None, SessionEnd::Drained, now, out));
    assert_eq!(waiting.drops(DatagramDrop::Unreachable), 1);
    assert_eq!((told(&mut bench), told(&mut waiting)), (vec![], vec![]));
}
