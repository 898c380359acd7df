//! Datagrams of the default UDP destination: unchanged, in order, each answer to its own client.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::{
        ecn::{EcnCodepoint, EcnSocket},
        udp::{self, UdpClient, UdpServer},
    },
    processor,
    topology::{CLIENT_V4, CLIENT_V6, GATEWAY_INSIDE_V4, GATEWAY_V4, GATEWAY_V6, Topology, client_pool},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{PORT, at, at_v6, front, front_v6, udp_to};

rpxy_l4_tests::offload_modes! {
    Steered {
        every_client_address_and_port_is_a_session_with_a_socket_of_its_own,
        datagrams_of_every_size_stay_whole,
        a_burst_keeps_boundaries_and_order_both_ways,
        ecn_bits_pass_both_ways,
        thousands_of_flows_get_their_own_answers,
    }
    NotSteered {
        an_answer_comes_from_the_address_and_port_that_the_client_used,
        families_meet_in_every_combination,
        the_first_datagrams_of_a_flow_arrive_in_order,
        only_the_ports_of_the_file_are_open_and_only_where_there_is_a_destination,
    }
}

fn every_client_address_and_port_is_a_session_with_a_socket_of_its_own() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::echo(&net.backend, at(7000), "tag:");
    let daemon = Daemon::start(&net.gateway, &udp_to(at(7000), ""));
    daemon.wait_for(0, "UDP on");

    let clients = [CLIENT_V4, CLIENT_V4, client_pool(0)].map(|source| UdpClient::bind(&net.client, (source, 0)));
    for round in ["first", "second"] {
        for client in &clients {
            let text = format!("{round} of {}", client.address());
            assert_eq!(client.ask_text(front(), &text), format!("tag:{text}"));
        }
    }
    let sources: Vec<_> = server.received().into_iter().map(|datagram| datagram.source).collect();
    assert_eq!(sources[..3], sources[3..], "a client keeps its socket");
    assert_eq!(sources.iter().collect::<BTreeSet<_>>().len(), 3, "no two share one: {sources:?}");
    assert!(sources.iter().all(|source| source.ip() == GATEWAY_INSIDE_V4), "{sources:?}");
    for client in &clients {
        daemon.wait_for(0, &format!("[start] udp: {} -> {}", client.address(), at(7000)));
    }
    assert_eq!(daemon.lines_with("[start]").len(), 3);
}

fn an_answer_comes_from_the_address_and_port_that_the_client_used() {
    let Some(net) = Topology::or_skip() else { return };
    let second_v4 = Ipv4Addr::new(192, 0, 2, 2);
    let second_v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
    net.gateway.ip(&format!("addr add {second_v4}/24 dev eth0")).unwrap();
    net.gateway.ip(&format!("addr add {second_v6}/64 dev eth0 nodad")).unwrap();
    let server = UdpServer::echo(&net.backend, at(7000), "");

    let rows = [
        ("every address", "listen_ipv6 = true"),
        (
            "each by its name",
            "listen_address_v4 = [\"192.0.2.1\", \"192.0.2.2\", \"198.51.100.1\"]\n\
             listen_address_v6 = [\"2001:db8:1::1\", \"2001:db8:1::2\"]",
        ),
    ];
    for (name, listen) in rows {
        let config = format!("listen_port = [443, 8443]\n{listen}\nudp_target = [\"{}\"]\n", at(7000));
        let daemon = Daemon::start(&net.gateway, &config);
        // One client socket for all: what the daemon tells apart is where the datagrams went.
        let v4 = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        let v6 = UdpClient::bind(&net.client, (CLIENT_V6, 0));
        let addresses: [IpAddr; 5] =
            [GATEWAY_V4.into(), second_v4.into(), GATEWAY_INSIDE_V4.into(), GATEWAY_V6.into(), second_v6.into()];
        server.take();
        for (ip, port) in addresses.iter().flat_map(|ip| [(*ip, 443), (*ip, 8443)]) {
            let client = if ip.is_ipv4() { &v4 } else { &v6 };
            let text = format!("{name}: to {ip} port {port}");
            // The kit checks where the answer comes from.
            assert_eq!(client.ask_text((ip, port), &text), text);
        }
        let sources: BTreeSet<_> = server.received().into_iter().map(|datagram| datagram.source).collect();
        assert_eq!(sources.len(), 10, "{name}: every one is a session");
        daemon.stop();
    }
}

fn families_meet_in_every_combination() {
    let Some(net) = Topology::or_skip() else { return };
    for target in [at(7000), at_v6(7000)] {
        let server = UdpServer::echo(&net.backend, target, "");
        let daemon = Daemon::start(&net.gateway, &udp_to(target, "listen_ipv6 = true"));
        for (from, to) in [(IpAddr::from(CLIENT_V4), front()), (IpAddr::from(CLIENT_V6), front_v6())] {
            let client = UdpClient::bind(&net.client, (from, 0));
            assert_eq!(client.ask_text(to, "hello"), "hello", "{from} to {target}");
            assert_eq!(server.received().pop().unwrap().source.is_ipv4(), target.is_ipv4());
            // A client of an IPv4 socket is never shown as ::ffff:192.0.2.10.
            daemon.wait_for(0, &format!("[start] udp: {} -> {target}", client.address()));
        }
    }
}

fn datagrams_of_every_size_stay_whole() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let _daemon = Daemon::start(&net.gateway, &udp_to(at(7000), ""));
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    // Around an Ethernet frame, a page, a jumbo frame, two GSO buffers; fragmented on this network from 1473 on.
    for size in [0, 1, 2, 1200, 1471, 1472, 1473, 2944, 4096, 8973, 16_384, 65_000, udp::LONGEST] {
        let datagram: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let answer = client.ask(front(), &datagram);
        assert!(answer == datagram, "{size} bytes came back as {}", answer.len());
        assert_eq!(server.take().len(), 1, "{size} bytes arrived in pieces");
    }
}

fn a_burst_keeps_boundaries_and_order_both_ways() {
    let Some(net) = Topology::or_skip() else { return };
    processor::keep_to_one();
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let _daemon = Daemon::start(&net.gateway, &udp_to(at(7000), ""));
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    // The worker that takes the second has handed the session to the kernel, where there is a plane. Until then datagrams
    // may overtake others that wait in the daemon.
    for text in ["first", "second"] {
        assert_eq!(client.ask_text(front(), text), text);
    }
    assert_eq!(server.take().len(), 2);
    // Few enough for the default buffer of a socket. Runs of one size, which the kernel may merge, then others.
    let burst: Vec<Vec<u8>> =
        (0..48_u8).map(|n| vec![n; if n % 16 < 10 { 900 } else { usize::from(n) * 20 }]).collect();
    for round in 0..20 {
        for datagram in &burst {
            client.send(front(), datagram);
        }
        let answers: Vec<_> = burst.iter().map(|_| client.receive().bytes).collect();
        assert!(answers == burst, "round {round}");
        assert!(server.take().into_iter().map(|datagram| datagram.bytes).eq(burst.iter().cloned()), "round {round}");
    }
}

fn the_first_datagrams_of_a_flow_arrive_in_order() {
    const FLOWS: usize = 50;
    let Some(net) = Topology::or_skip() else { return };
    processor::keep_to_one();
    let server = UdpServer::recorder(&net.backend, at(7000));
    let _daemon = Daemon::start(&net.gateway, &udp_to(at(7000), ""));
    // All stay open: a port that is free again may be given to a later one, which would then be the same flow.
    let clients: Vec<_> = (0..FLOWS).map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0))).collect();
    for client in &clients {
        for text in ["one", "two", "three"] {
            client.send(front(), text.as_bytes());
        }
    }
    let mut flows: BTreeMap<SocketAddr, Vec<Vec<u8>>> = BTreeMap::new();
    for datagram in server.wait_for(3 * FLOWS) {
        flows.entry(datagram.source).or_default().push(datagram.bytes);
    }
    assert_eq!(flows.len(), FLOWS);
    for (source, datagrams) in flows {
        assert_eq!(datagrams, [b"one".as_slice(), b"two", b"three"], "{source}");
    }
}

fn ecn_bits_pass_both_ways() {
    let Some(net) = Topology::or_skip() else { return };
    for (target, from, to) in [
        (at(7000), IpAddr::from(CLIENT_V4), front()),
        (at_v6(7000), IpAddr::from(CLIENT_V6), front_v6()),
        (at(7000), IpAddr::from(CLIENT_V6), front_v6()),
        (at_v6(7000), IpAddr::from(CLIENT_V4), front()),
    ] {
        let server = EcnSocket::bind(&net.backend, target);
        let _daemon = Daemon::start(&net.gateway, &udp_to(target, "listen_ipv6 = true"));
        let client = EcnSocket::bind(&net.client, (from, 0));
        let marks = [Some(EcnCodepoint::Ect0), None, Some(EcnCodepoint::Ect1), Some(EcnCodepoint::Ce)];
        // The answer bears another mark than the question, so that neither can stand in for the other.
        for (up, down) in marks.into_iter().zip(marks.into_iter().cycle().skip(1)) {
            client.send(to, up, b"up");
            let (source, seen, _) = server.receive();
            assert_eq!(seen, up, "{from} to {target}");
            server.send(source, down, b"down");
            assert_eq!(client.receive().1, down, "{target} to {from}");
        }
    }
}

fn thousands_of_flows_get_their_own_answers() {
    const FLOWS: usize = 3000;
    const AT_ONCE: usize = 100;
    let Some(net) = Topology::or_skip() else { return };
    // For the clients here and for the daemon, which inherits it.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let keys = format!("udp_max_connections = {FLOWS}\naccess_log_format = \"off\"");
    let _daemon = Daemon::start(&net.gateway, &udp_to(at(7000), &keys));

    let clients: Vec<_> =
        (0..126).cycle().take(FLOWS).map(|n| UdpClient::bind(&net.client, (client_pool(n), 0))).collect();
    let mut rounds = Vec::new();
    for round in 0..2 {
        for (number, group) in clients.chunks(AT_ONCE).enumerate() {
            let text = |n: usize| format!("{round} of flow {}", number * AT_ONCE + n);
            for (n, client) in group.iter().enumerate() {
                client.send(front(), text(n).as_bytes());
            }
            for (n, client) in group.iter().enumerate() {
                assert_eq!(String::from_utf8(client.receive().bytes).unwrap(), text(n));
            }
        }
        let sources: BTreeMap<_, _> =
            server.take().into_iter().map(|d| (d.source, String::from_utf8(d.bytes).unwrap())).collect();
        assert_eq!(sources.len(), FLOWS, "two flows share a socket");
        rounds
            .push(sources.into_iter().map(|(source, text)| (source, text[1..].to_owned())).collect::<BTreeMap<_, _>>());
    }
    assert!(rounds[0] == rounds[1], "some flow has changed its socket");
}

fn only_the_ports_of_the_file_are_open_and_only_where_there_is_a_destination() {
    let Some(net) = Topology::or_skip() else { return };
    let tcp_only = format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n", at(7000));
    for (config, tcp, udp) in [(tcp_only.clone(), true, false), (udp_to(at(7000), ""), false, true)] {
        let daemon = Daemon::start(&net.gateway, &config);
        assert_eq!(rpxy_l4_tests::socket::is_listening(&net.gateway, PORT), tcp, "{config}");
        assert_eq!(udp::is_bound(&net.gateway, PORT), udp, "{config}");
        daemon.stop();
        assert!(!udp::is_bound(&net.gateway, PORT));
    }
}
