//! Datagrams that claim to come from a target.

use super::{
    packets::{first, short, wireguard},
    *,
};

const BACKEND: [u8; 4] = [198, 51, 100, 1];

fn from(client: ([u8; 4], u16)) -> Flow {
    Flow { listener: 0, client: client.into(), local: None }
}

fn config() -> String {
    format!(
        "{TOP}udp_target = [\"198.51.100.1:9\"]\n{}{}{}",
        rule("web", "quic", 1, "server_names = [\"a.test\"]"),
        rule("vpn", "wireguard", 2, ""),
        "[protocols.named]\nprotocol = \"quic\"\nserver_names = [\"b.test\"]\ntarget = [\"host.invalid.:3\"]\n"
    )
}

#[test]
fn a_target_begins_nothing_by_an_answer() {
    let other = ([203, 0, 113, 7], 3);
    let mapped = SocketAddr::from((std::net::Ipv4Addr::from(BACKEND).to_ipv6_mapped(), 9));
    let junk: &[u8] = b"\x01anything at all";
    let stray = short(b"unknownid");
    let handshake = wireguard(1, 7, 0, 148);
    let hello = first(b"client-a", b"destin-a", "a.test");
    let rows: [(&str, SocketAddr, &[u8], bool); 9] = [
        ("the target of what no rule claims", (BACKEND, 9).into(), junk, false),
        ("in its IPv6 form", mapped, junk, false),
        ("a rule's target", (BACKEND, 1).into(), junk, false),
        ("a name's address", other.into(), junk, false),
        ("like a short header", (BACKEND, 2).into(), &stray, false),
        ("another port of its host", (BACKEND, 10).into(), junk, true),
        ("a client", ([203, 0, 113, 8], 3).into(), junk, true),
        ("a server that is a client of another one", (BACKEND, 2).into(), &hello, true),
        ("a peer of WireGuard", (BACKEND, 2).into(), &handshake, true),
    ];
    for (row, source, datagram, begins) in rows {
        let mut bench = Bench::new(&config());
        bench.resolver.name(&"host.invalid.".into()).set(vec![other.0.into()]);
        bench.client(Flow { client: source, ..from(other) }, datagram);
        assert_eq!(!bench.sessions.is_empty(), begins, "{row}");
        assert_eq!(bench.drops(DatagramDrop::Loop), u32::from(!begins), "{row}");
    }
}

#[test]
fn a_reload_tells_who_is_a_target() {
    let mut bench = Bench::new(&config());
    bench.client(from((BACKEND, 4)), b"\x01first");
    assert_eq!(bench.sessions.len(), 1);
    bench.reload(&format!("{}{}", config(), rule("later", "quic", 4, "server_names = [\"c.test\"]")));
    bench.client(from((BACKEND, 4)), b"\x01second");
    assert_eq!((bench.sessions.len(), bench.drops(DatagramDrop::Loop)), (1, 0), "what there is goes on");
    bench.wait(seconds(3600));
    assert!(bench.sessions.is_empty());
    bench.client(from((BACKEND, 4)), b"\x01third");
    assert_eq!((bench.sessions.len(), bench.drops(DatagramDrop::Loop)), (0, 1));
}
