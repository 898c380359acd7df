//! WireGuard: several servers on one port by their public keys, clients that move, and what is not WireGuard.

use std::net::Ipv4Addr;

use rpxy_l4_tests::{
    daemon::{Daemon, run_to_end},
    hello::Hello,
    initial::Initial,
    owned,
    peers::{
        udp::{UdpClient, UdpServer},
        wireguard::{Implementation, KeyPair, Peer, Tunnel},
    },
    topology::{CLIENT_V4, GATEWAY_INSIDE_V4, Topology},
    wait,
};

use crate::support::steering::with_object;
use crate::support::{PORT, at, front, rule, udp_to};

rpxy_l4_tests::offload_modes! {
    Steered {
        servers_are_told_apart_by_their_public_keys,
        a_client_that_changes_its_port_keeps_its_tunnel,
        one_client_interface_with_two_servers_behind_the_port_reaches_both,
        wireguard_quic_and_the_rest_share_a_port,
    }
    NotSteered {
        initiations_go_by_their_mac_and_what_fits_no_key_is_dropped,
    }
}

/// An initiation for the server with the public key [`INITIATION_KEY`].
const INITIATION: &[u8; 148] = include_bytes!("../../data/wireguard-initiation.bin");
const INITIATION_KEY: &str = "i6MmfpY2tEzA2ntGSGiN+D9Cg8AItdNaYNuo1W5EWRw=";

/// One server and one client of it, each in its own tunnel network.
struct Pair {
    server: Tunnel,
    client: Tunnel,
    server_keys: KeyPair,
    client_keys: KeyPair,
    inside: Ipv4Addr,
}

impl Pair {
    fn new(net: &Topology, number: u8, client: Implementation) -> Self {
        let (server_keys, client_keys) = (KeyPair::new(), KeyPair::new());
        let (inside, outside) = (Ipv4Addr::new(10, 9, number, 1), Ipv4Addr::new(10, 9, number, 2));
        let caller = Peer { public: &client_keys.public, inside: outside, endpoint: None };
        let port = 7000 + u16::from(number);
        let server = Tunnel::start(Implementation::Go, &net.backend, port, &server_keys, inside, &[caller]);
        let callee = Peer { public: &server_keys.public, inside, endpoint: Some(front()) };
        let client = Tunnel::start(client, &net.client, 5000 + u16::from(number), &client_keys, outside, &[callee]);
        Self { server, client, server_keys, client_keys, inside }
    }

    #[track_caller]
    fn wait_for_ping(&self) {
        self.client.wait_for_ping(self.inside);
    }

    fn handshake(&self) -> u64 {
        self.server.latest_handshake(&self.client_keys.public)
    }

    /// A rule for its server, by its key or for all.
    fn rule(&self, port: u16, keyed: bool) -> String {
        let key = format!("public_key = \"{}\"", self.server_keys.public);
        rule(&format!("server {port}"), "wireguard", at(port), if keyed { &key } else { "" })
    }
}

fn servers_are_told_apart_by_their_public_keys() {
    let Some(net) = Topology::or_skip() else { return };
    let pairs = [1, 2, 3].map(|number| Pair::new(&net, number, Implementation::Go));
    // The one without a key takes the rest, wherever it is in the file.
    let config = format!("listen_port = {PORT}\n")
        + &pairs[2].rule(7003, false)
        + &pairs[0].rule(7001, true)
        + &pairs[1].rule(7002, true);
    let daemon = Daemon::start(&net.gateway, &config);
    for (pair, number) in pairs.iter().zip(1_u16..) {
        pair.wait_for_ping();
        assert_ne!(pair.handshake(), 0);
        let (from, to) = (format!("{CLIENT_V4}:{}", 5000 + number), at(7000 + number));
        daemon.wait_for(0, &format!("[start] udp:wireguard: {from} -> {to}"));
    }
    assert_eq!(daemon.lines_with("[start]").len(), 3, "nothing went astray");
}

fn a_client_that_changes_its_port_keeps_its_tunnel() {
    for implementation in [Implementation::Go, Implementation::Boringtun] {
        let Some(net) = Topology::or_skip() else { return };
        let pairs = [1, 2].map(|number| Pair::new(&net, number, implementation));
        let config = format!("listen_port = {PORT}\n") + &pairs[0].rule(7001, true) + &pairs[1].rule(7002, true);
        let daemon = Daemon::start(&net.gateway, &config);
        for (pair, port) in pairs.iter().zip([6000, 6010]) {
            pair.wait_for_ping();
            let (handshake, before) = (pair.handshake(), pair.server.endpoint(&pair.client_keys.public));
            for port in port..port + 3 {
                pair.client.set_port(port);
                pair.wait_for_ping();
                daemon.wait_for(0, &format!("[start] udp:wireguard: {CLIENT_V4}:{port} ->"));
            }
            assert_eq!(pair.handshake(), handshake, "{implementation:?}: by the old keys, not by a new handshake");
            assert_ne!(pair.server.endpoint(&pair.client_keys.public), before, "the server has seen a new path");
        }
    }
}

fn one_client_interface_with_two_servers_behind_the_port_reaches_both() {
    let Some(net) = Topology::or_skip() else { return };
    let keys = [KeyPair::new(), KeyPair::new()];
    let own = KeyPair::new();
    let outside = Ipv4Addr::new(10, 9, 0, 9);
    let insides = [1, 2].map(|number| Ipv4Addr::new(10, 9, 0, number));
    let servers = [0, 1].map(|n: usize| {
        let caller = Peer { public: &own.public, inside: outside, endpoint: None };
        // Both live on one host, where only one may have the route back: so each has a host of its own.
        let host = if n == 0 { &net.backend } else { &net.gateway };
        let port = 7001 + u16::try_from(n).unwrap();
        Tunnel::start(Implementation::Go, host, port, &keys[n], insides[n], &[caller])
    });
    let peers = [0, 1].map(|n: usize| Peer { public: &keys[n].public, inside: insides[n], endpoint: Some(front()) });
    let client = Tunnel::start(Implementation::Go, &net.client, 5000, &own, outside, &peers);
    let key = |n: usize| format!("public_key = \"{}\"", keys[n].public);
    let config = format!("listen_port = {PORT}\n")
        + &rule("backend", "wireguard", at(7001), &key(0))
        + &rule("gateway", "wireguard", (GATEWAY_INSIDE_V4, 7002).into(), &key(1));
    let _daemon = Daemon::start(&net.gateway, &config);
    for inside in insides {
        client.wait_for_ping(inside);
    }
    let handshakes = || servers.each_ref().map(|server| server.latest_handshake(&own.public));
    let before = handshakes();
    for port in [6000, 6001] {
        client.set_port(port);
        for inside in insides {
            client.wait_for_ping(inside);
        }
    }
    assert_eq!(handshakes(), before, "by the old keys, not by new handshakes");
}

fn initiations_go_by_their_mac_and_what_fits_no_key_is_dropped() {
    let Some(net) = Topology::or_skip() else { return };
    let (default, keyed, other, rest) = (
        UdpServer::recorder(&net.backend, at(7000)),
        UdpServer::recorder(&net.backend, at(7001)),
        UdpServer::recorder(&net.backend, at(7002)),
        UdpServer::recorder(&net.backend, at(7003)),
    );
    let servers = [&default, &keyed, &other, &rest];
    let key = |public: &str, more: &str| format!("public_key = \"{public}\"\n{more}");
    let own = rule("keyed", "wireguard", at(7001), &key(INITIATION_KEY, ""));
    let lenient = rule("keyed", "wireguard", at(7001), &key(INITIATION_KEY, "reserved = \"any\""));
    let another = rule("other", "wireguard", at(7002), &key(&KeyPair::new().public, ""));
    let keyless = rule("rest", "wireguard", at(7003), "");
    let keyless_lenient = rule("rest", "wireguard", at(7003), "reserved = \"any\"");
    let changed = |position: usize, bits: u8| {
        let mut datagram = INITIATION.to_vec();
        datagram[position] ^= bits;
        datagram
    };
    // The MAC covers all before itself, but for the reserved bytes that Cloudflare fills afterwards.
    let [forged, wrong_mac, reserved] = [changed(40, 1), changed(116, 0x80), changed(2, 0x55)];
    let transport = [&[4_u8, 0, 0, 0, 9, 9, 9, 9], [0_u8; 56].as_slice()].concat();
    // Rows: rules, keys at the top, datagram, port that it reaches.
    type Row<'a> = (&'a [&'a str], &'a str, &'a [u8], Option<u16>);
    let rows: [Row<'_>; 13] = [
        (&[&own, &another], "", INITIATION, Some(7001)),
        (&[&another, &own], "", INITIATION, Some(7001)),
        (&[&another], "", INITIATION, None),
        (&[&another, &keyless], "", INITIATION, Some(7003)),
        (&[&own], "", &forged, None),
        (&[&own], "", &wrong_mac, None),
        (&[&keyless, &own], "", &forged, Some(7003)),
        (&[&lenient], "", &reserved, Some(7001)),
        (&[&lenient], "", INITIATION, Some(7001)),
        (&[&keyless_lenient], "", &reserved, Some(7003)),
        (&[&another], "unmatched = \"default\"", INITIATION, Some(7000)),
        (&[&own], "", &transport, Some(7000)),
        (&[&own], "orphan = \"drop\"", &transport, None),
    ];
    for (number, (rules, keys, datagram, reached)) in rows.into_iter().enumerate() {
        let rules: String = rules.concat();
        let daemon = Daemon::start(&net.gateway, &(udp_to(at(7000), keys) + &rules));
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        client.send(front(), datagram);
        // Something that is neither, from the same socket, is sure to arrive behind it: where the first went, if it did.
        client.send(front(), b"the end");
        let payloads = |server: &&UdpServer| server.payloads().contains(&b"the end".to_vec());
        wait::until("the end arrives", || servers.iter().any(payloads).then_some(()));
        let mut seen = Vec::new();
        for (server, port) in servers.into_iter().zip(7000..) {
            if reached == Some(port) {
                server.wait_for(1);
            }
            seen.extend(server.take().into_iter().map(|datagram| (port, datagram.bytes)));
        }
        seen.retain(|(_, bytes)| bytes != b"the end");
        let expected: Vec<_> = reached.map(|port| (port, datagram.to_vec())).into_iter().collect();
        assert!(seen == expected, "row {number}: reached {:?}", seen.iter().map(|(port, _)| port).collect::<Vec<_>>());
        daemon.stop();
    }
}

fn wireguard_quic_and_the_rest_share_a_port() {
    let Some(net) = Topology::or_skip() else { return };
    let pair = Pair::new(&net, 1, Implementation::Go);
    let default = UdpServer::echo(&net.backend, at(8000), "default:");
    let quic = UdpServer::recorder(&net.backend, at(8001));
    let config = udp_to(at(8000), "")
        + &pair.rule(7001, true)
        + &rule("quic", "quic", at(8001), "server_names = [\"one.test\"]");
    let _daemon = Daemon::start(&net.gateway, &config);
    // Two sockets: on one that speaks QUIC, a first byte such as that of `hello` marks a short header.
    let [plain, client] = [0, 0].map(|port| UdpClient::bind(&net.client, (CLIENT_V4, port)));
    for round in 0..3_u8 {
        pair.wait_for_ping();
        assert_eq!(plain.ask_text(front(), "hello"), "default:hello");
        let initial = Initial::v1(&[round; 8], &[round; 3]).datagrams(&Hello::to("one.test"));
        client.send(front(), &initial[0]);
        wait::until("the hello arrives", || (quic.payloads().last() == initial.first()).then_some(()));
    }
    assert!(default.payloads().iter().all(|bytes| bytes == b"hello"), "something went astray");
}

#[test]
fn initiations_for_other_keys_end_in_the_kernel() {
    for (mode, implementation) in [("tc", Implementation::Go), ("xdp-generic", Implementation::Boringtun)] {
        let Some(net) = with_object() else { return };
        let pair = Pair::new(&net, 1, implementation);
        let directory = owned::directory();
        let socket = directory.path().join("admin").display().to_string();
        let config = format!("listen_port = {PORT}\nadmin_socket = \"{socket}\"\n")
            + &format!("[ebpf]\nmode = \"{mode}\"\nearly_drop = true\n")
            + &pair.rule(7001, true);
        let _daemon = Daemon::start(&net.gateway, &config);
        // Made for another server.
        let stranger = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        for _ in 0..3 {
            stranger.send(front(), INITIATION);
        }
        pair.wait_for_ping();
        assert_ne!(pair.handshake(), 0, "{mode}");
        let counters = || {
            let (_, lines) = run_to_end(&net.gateway, &["status", "--socket", &socket, "--json"]);
            let status: serde_json::Value = serde_json::from_str(lines.first()?).ok()?;
            status["kernel_plane"]["counters"]["dropped_wireguard_mac1"].as_u64()
        };
        wait::until("they are counted", || (counters() == Some(3)).then_some(()));
    }
}
