//! The UDP half of the test kit, peers talking to each other with no daemon between: the gateway forwards.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic,
    path::Path,
    time::Duration,
};

use crate::{
    checksum,
    flow::Flow,
    nat::Nat,
    peers::{
        ecn::{EcnCodepoint, EcnSocket},
        programs::Certificate,
        quic::{QuicClient, QuicServer, filler},
        udp::{self, UdpClient, UdpServer},
        wireguard::{Implementation, KeyPair, Peer, Tunnel},
    },
    topology::{CLIENT_V4, CLIENT_V6, Topology, at, at_v6, client_pool},
    wait,
};
use socket2::{Domain, Protocol, Socket, Type};

#[test]
fn datagrams_arrive_as_sent_and_answers_come_back() {
    let Some(net) = Topology::or_skip() else { return };
    net.forward().unwrap();
    let server = UdpServer::echo(&net.backend, at(7000), "v4:");
    let _v6 = UdpServer::echo(&net.backend, at_v6(7000), "v6:");
    for source in [CLIENT_V4, client_pool(0)] {
        let client = UdpClient::bind(&net.client, (source, 0));
        assert_eq!(client.ask_text(at(7000), "hello"), "v4:hello");
        assert_eq!(server.received().pop().unwrap().source, client.address());
    }
    let client = UdpClient::bind(&net.client, (CLIENT_V6, 0));
    assert_eq!(client.ask_text(at_v6(7000), ""), "v6:");
    let client = UdpClient::connected(&net.client, at(7000));
    let long = vec![7; udp::LONGEST - 3];
    assert_eq!(client.ask(at(7000), &long), [b"v4:", long.as_slice()].concat());
    assert_eq!(server.wait_for(3).len(), 3);

    assert!(udp::is_bound(&net.backend, 7000));
    drop(server);
    let client = UdpClient::new(&net.client);
    assert_eq!(client.try_ask(at(7000), b"gone"), None);
}

#[test]
fn a_wrong_checksum_is_found() {
    // A header of UDP to port 9 and one of TCP, whose checksums do not fit, as neither fits the addresses.
    let udp = |checksum: u16| [0, 9, 0, 9, 0, 8, checksum.to_be_bytes()[0], checksum.to_be_bytes()[1]].to_vec();
    let tcp = [&[0, 9, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0x12, 0x34, 0, 0][..]].concat();
    let rows = [
        ("UDP", Protocol::UDP, IpAddr::from(CLIENT_V4), udp(0x1234), Some("UdpInCsumErrors")),
        ("UDP over IPv6", Protocol::UDP, CLIENT_V6.into(), udp(0x1234), Some("Udp6InCsumErrors")),
        ("UDP over IPv6, none", Protocol::UDP, CLIENT_V6.into(), udp(0), Some("Udp6InCsumErrors")),
        ("TCP", Protocol::TCP, CLIENT_V4.into(), tcp.clone(), Some("TcpInCsumErrors")),
        ("TCP over IPv6", Protocol::TCP, CLIENT_V6.into(), tcp, Some("TcpInCsumErrors")),
        ("UDP, none", Protocol::UDP, CLIENT_V4.into(), udp(0), None),
    ];
    for (row, protocol, to, segment, counter) in rows {
        let Some(net) = Topology::or_skip() else { return };
        let sent = net.gateway.run(|| -> std::io::Result<()> {
            let to = SocketAddr::new(to, 0);
            let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(protocol))?;
            socket.send_to(&segment, &to.into()).map(drop)
        });
        sent.unwrap();
        // It goes the same way as what was sent before.
        let client = UdpServer::echo(&net.client, SocketAddr::new(to, 7000), "");
        assert_eq!(UdpClient::bind(&net.gateway, udp::unspecified(client.address())).ask(client.address(), b"x"), b"x");
        let found: Vec<_> = checksum::errors(&net.client).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, counter.into_iter().collect::<Vec<_>>(), "{row}");
        let name = net.client.name().to_owned();
        let dropped = panic::catch_unwind(panic::AssertUnwindSafe(|| drop(net)));
        assert_eq!(dropped.is_err(), counter.is_some(), "{row}: the test fails");
        assert!(!Path::new("/run/netns").join(&name).exists(), "{row}: {name} is left over");
    }
}

#[test]
fn ecn_bits_are_set_and_seen() {
    let Some(net) = Topology::or_skip() else { return };
    net.forward().unwrap();
    let server = EcnSocket::bind(&net.backend, at(7000));
    let client = EcnSocket::bind(&net.client, (CLIENT_V4, 0));
    for ecn in [None, Some(EcnCodepoint::Ect0), Some(EcnCodepoint::Ect1), Some(EcnCodepoint::Ce)] {
        client.send(at(7000), ecn, b"x");
        let (source, seen, _) = server.receive();
        assert_eq!(seen, ecn);
        server.send(source, ecn, b"y");
        assert_eq!(client.receive().1, ecn);
    }
}

#[test]
fn quic_connects_transfers_migrates_and_passes_a_restless_nat() {
    let Some(net) = Topology::or_skip() else { return };
    net.forward().unwrap();
    let certificate = Certificate::new(&["one.test", "two.test"]);
    let server = QuicServer::start(&net.backend, at(443), "tag", &certificate, &["h3"]);
    let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    let connection = client.connect(at(443), "two.test", &["h3"]);
    let identity = connection.ask();
    assert_eq!(identity.client, client.address().to_string());
    assert_eq!([identity.tag, identity.server_name, identity.alpn], ["tag", "two.test", "h3"]);
    assert!(client.try_connect(at(443), "three.test", &["h3"]).is_err(), "the name is checked");
    let fillers = filler(2500);
    let offered: Vec<_> = fillers.iter().map(String::as_str).chain(["h3"]).collect();
    assert_eq!(client.connect(at(443), "one.test", &offered).ask().alpn, "h3");
    connection.upload(Flow { seed: 1, length: 3_000_000 }).unwrap();

    client.rebind((client_pool(1), 0));
    wait::until("the server sees the new address", || {
        (connection.ask().client == client.address().to_string()).then_some(())
    });

    let nat = Nat::restless(&net.client, at(443), 2000);
    let client = QuicClient::new(&net.client, (Ipv4Addr::LOCALHOST, 0), &certificate);
    let client = client.keep_alive(Duration::from_millis(50));
    let before = server.accepted();
    let connection = client.connect(nat.inside(), "one.test", &["h3"]);
    let first = connection.ask().client;
    while nat.rebinds() < 3 {
        connection.download(Flow { seed: 2, length: 5_000_000 }).unwrap();
    }
    assert_ne!(connection.ask().client, first);
    assert_eq!(server.accepted(), before + 1);
}

#[test]
fn wireguard_tunnels_carry_pings_by_either_client() {
    let Some(net) = Topology::or_skip() else { return };
    net.forward().unwrap();
    let (inside, outside) = (Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2));
    let keys = KeyPair::new();
    for implementation in [Implementation::Go, Implementation::Boringtun] {
        let own = KeyPair::new();
        let caller = Peer { public: &own.public, inside: outside, endpoint: None };
        let server = Tunnel::start(Implementation::Go, &net.backend, 51820, &keys, inside, &[caller]);
        let callee = Peer { public: &keys.public, inside, endpoint: Some(at(51820)) };
        let client = Tunnel::start(implementation, &net.client, 4000, &own, outside, &[callee]);
        client.wait_for_ping(inside);
        assert_ne!(server.latest_handshake(&own.public), 0);
        assert_eq!(server.endpoint(&own.public), (CLIENT_V4, 4000).into());
        client.set_port(4001);
        client.wait_for_ping(inside);
        wait::until("the server has seen the new port", || {
            (server.endpoint(&own.public) == (CLIENT_V4, 4001).into()).then_some(())
        });
    }
}
