//! Packets that look like those of a steered session and are not, or that come another way: what the host's rules would
//! refuse without a kernel plane reaches nobody with it, and one datagram costs no session its place.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use rpxy_l4_tests::{
    hello::Hello,
    initial::Initial,
    peers::{
        programs::{self, Certificate},
        quic::{QuicClient, QuicServer},
        udp::{UdpClient, UdpServer},
    },
    topology::{BACKENDS_V4, BACKENDS_V6, CLIENT_V4, CLIENT_V6, Host, Topology, client_pool},
    wait,
};
use serde_json::json;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::support::{
    PORT, at, at_v6, front, front_v6, rule,
    steering::{Steering, with_object},
};

const MODES: [&str; 2] = ["tc", "xdp-generic"];

/// The sum of RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// Sends a datagram that says that it is from `from`.
fn forge(host: &Host, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [from.port(), to.port(), len, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    let (packet, domain, to) = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            let addresses = [from.ip().octets(), to.ip().octets()].concat();
            let pseudo = [&addresses[..], &[0, 17], &len.to_be_bytes(), &udp].concat();
            udp[6..8].copy_from_slice(&checksum(&pseudo));
            // The kernel fills length, identification and checksum in.
            let header = [&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0], &addresses[..]].concat();
            ([header, udp].concat(), Domain::IPV4, SockAddr::from(SocketAddrV4::new(*to.ip(), 0)))
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            let addresses = [from.ip().octets(), to.ip().octets()].concat();
            let pseudo = [&addresses[..], &[0, 0], &len.to_be_bytes(), &[0, 0, 0, 17], &udp].concat();
            udp[6..8].copy_from_slice(&checksum(&pseudo));
            let header = [&[0x60, 0, 0, 0], &len.to_be_bytes()[..], &[17, 64], &addresses].concat();
            ([header, udp].concat(), Domain::IPV6, SockAddr::from(SocketAddrV6::new(*to.ip(), 0, 0, 0)))
        }
        mixed => panic!("addresses of two families: {mixed:?}"),
    };
    host.run(|| {
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255))).unwrap();
        if domain == Domain::IPV4 {
            socket.set_header_included_v4(true).unwrap();
        } else {
            socket.set_header_included_v6(true).unwrap();
        }
        socket.send_to(&packet, &to).unwrap();
    });
}

/// Metrics of a daemon whose file begins with [`METRICS`].
const METRICS: &str = "metrics_listen = \"127.0.0.1:9100\"";

/// Packets that arrived by an interface from which the reverse-path filter takes no packets of their sender: what the
/// kernel has dropped, and what it has let through to a connected socket and the daemon has dropped.
fn refused(net: &Topology) -> u64 {
    let snmp = net.gateway.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat")).unwrap();
    let [names, values] = snmp.lines().take(2).collect::<Vec<_>>()[..] else { panic!("{snmp}") };
    let mut columns = names.split(' ').zip(values.split(' '));
    let by_kernel = columns.find(|(name, _)| *name == "IPReversePathFilter").unwrap().1.parse::<u64>().unwrap();
    let metrics = programs::text(programs::curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
    let counter = "rpxy_l4_udp_dropped_total{reason=\"other_interface\"} ";
    let by_daemon = metrics.lines().find_map(|line| line.strip_prefix(counter)).unwrap().parse::<u64>().unwrap();
    by_kernel + by_daemon
}

#[test]
fn a_forged_packet_at_the_other_interface_reaches_nobody() {
    for mode in ["off", "tc", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        // The strict reverse-path filter.
        for interface in ["all", "eth0", "eth1"] {
            net.gateway.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "1").unwrap();
        }
        let server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(&net, at(7000), &format!("mode = \"{mode}\""), METRICS);
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        assert_eq!(client.ask_text(front(), "first"), "first");
        let upstream = server.take()[0].source;
        let plane = if mode == "off" { "userspace" } else { "kernel" };
        if plane == "kernel" {
            steering.wait_steered(client.address());
            steering.wait_forwarded(2, || client.ask_again(front(), "ready?"));
        }
        let backend = SocketAddr::from((BACKENDS_V4[0], 7000));
        for (count, (at_host, from, to, text)) in (1..).zip([
            (&net.client, backend, upstream, b"forged answer 1"),
            (&net.client, backend, upstream, b"forged answer 2"),
            (&net.backend, client.address(), front(), b"forged question"),
        ]) {
            forge(at_host, from, to, text);
            wait::until("it is refused", || (refused(&net) == count).then_some(()));
        }

        // Those behind it arrive, and nothing before them.
        client.send(front(), b"last");
        let answers = std::iter::from_fn(|| Some(client.receive().bytes).filter(|answer| answer != b"last"));
        let answers: Vec<_> = answers.filter(|answer| answer.starts_with(b"forged")).collect();
        let questions = server.payloads();
        assert!(answers.is_empty(), "{mode}: {answers:?}");
        assert!(!questions.iter().any(|question| question == b"forged question"), "{mode}: {questions:?}");
        let reason = if plane == "kernel" { json!(null) } else { json!("off") };
        assert_eq!(steering.session_of(client.address()), (json!(plane), reason), "{mode}");
    }
}

/// The kernel has no reverse-path filter for IPv6: without a rule of the host's firewall, forged packets are let in.
#[test]
fn a_forged_packet_at_the_other_interface_is_left_to_the_hosts_rules() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        let server = UdpServer::echo(&net.backend, at_v6(7000), "");
        let steering = Steering::start(&net, at_v6(7000), &format!("mode = \"{mode}\""), "");
        let client = UdpClient::bind(&net.client, (CLIENT_V6, 0));
        assert_eq!(client.ask_text(front_v6(), "first"), "first");
        steering.wait_steered(client.address());
        steering.wait_forwarded(2, || client.ask_again(front_v6(), "ready?"));
        let upstream = server.take()[0].source;
        let passed = steering.counted("other_interface");
        forge(&net.client, (BACKENDS_V6[0], 7000).into(), upstream, b"forged answer");
        wait::until("it comes by way of the daemon", || (client.receive().bytes == b"forged answer").then_some(()));
        forge(&net.backend, client.address(), front_v6(), b"forged question");
        wait::until("it comes by way of the daemon", || {
            server.payloads().iter().any(|question| question == b"forged question").then_some(())
        });
        assert_eq!(steering.counted("other_interface"), passed + 2, "{mode}");
    }
}

#[test]
fn answers_that_come_another_way_arrive_as_far_as_the_host_takes_them() {
    for (mode, rp_filter, taken) in [("off", "0", true), ("off", "1", false), ("off", "2", true), ("tc", "1", false)] {
        let Some(net) = with_object() else { return };
        net.gateway.ip(&format!("link add eth2 type veth peer name eth1 netns {}", net.backend.name())).unwrap();
        for line in ["addr add 203.0.113.1/24 dev eth2", "link set eth2 up"] {
            net.gateway.ip(line).unwrap();
        }
        for line in ["addr add 203.0.113.2/24 dev eth1", "link set eth1 up"] {
            net.backend.ip(line).unwrap();
        }
        // Or the filter would refuse its questions for the gateway's Ethernet address, too.
        net.backend.sysctl("ipv4/conf/eth1/arp_announce", "2").unwrap();
        for interface in ["all", "eth1", "eth2"] {
            net.gateway.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), rp_filter).unwrap();
        }
        let server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(&net, at(7000), &format!("mode = \"{mode}\""), METRICS);
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        assert_eq!(client.ask_text(front(), "first"), "first");
        let upstream = server.take()[0].source;
        net.backend.ip(&format!("route add {}/32 via 203.0.113.1 dev eth1", upstream.ip())).unwrap();
        client.send(front(), b"second");
        if taken {
            wait::until("it arrives", || (client.receive().bytes == b"second").then_some(()));
            assert_eq!(refused(&net), 0, "{mode}, {rp_filter}");
        } else {
            wait::until("it is refused", || (refused(&net) == 1).then_some(()));
        }
        // The way there follows, and the strict filter takes the way back, too.
        net.gateway.ip(&format!("route add {}/32 via 203.0.113.2 dev eth2", BACKENDS_V4[0])).unwrap();
        wait::until("answers arrive", || client.try_ask(front(), b"third").filter(|answer| answer == b"third"));
        drop(steering);
    }
}

#[test]
fn a_session_whose_packets_come_another_way_goes_on_and_is_told() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        net.gateway.ip(&format!("link add eth2 type veth peer name eth1 netns {}", net.client.name())).unwrap();
        for line in ["addr add 203.0.113.1/24 dev eth2", "link set eth2 up"] {
            net.gateway.ip(line).unwrap();
        }
        let way = format!("route add {}/32 via 203.0.113.1 dev eth1", front().ip());
        for line in ["addr add 203.0.113.2/24 dev eth1", "link set eth1 up", &way] {
            net.client.ip(line).unwrap();
        }
        let _server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(&net, at(7000), &format!("mode = \"{mode}\""), "");
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        let expected = (json!("kernel"), json!("asymmetric"));
        wait::until("it is told", || {
            client.ask_again(front(), "question");
            (steering.session_of(client.address()) == expected).then_some(())
        });
        assert!(steering.counted("other_interface") > 0, "{mode}");
        assert_eq!(client.ask_text(front(), "and goes on"), "and goes on", "{mode}");
    }
}

#[test]
fn frames_for_another_station_are_not_taken() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        let server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(&net, at(7000), &format!("mode = \"{mode}\""), "");
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        assert_eq!(client.ask_text(front(), "first"), "first");
        steering.wait_steered(client.address());
        steering.wait_forwarded(2, || client.ask_again(front(), "ready?"));
        // A switch that does not know the way sends frames to all.
        net.client
            .ip(&format!("neigh replace {} lladdr 02:00:00:00:be:ef dev eth0 nud permanent", front().ip()))
            .unwrap();
        client.send(front(), b"to a neighbour");
        wait::until("it is passed", || (steering.counted("other_station") > 0).then_some(()));
        assert!(!server.payloads().iter().any(|question| question == b"to a neighbour"), "{mode}");
    }
}

#[test]
fn a_forged_initial_costs_a_connection_no_place_in_the_kernel() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        let certificate = Certificate::new(&["one.test"]);
        let server = QuicServer::start(&net.backend, at(7000), "tag", &certificate, &["h3"]);
        let two = UdpServer::echo(&net.backend, at(7001), "");
        let rules = rule("one", "quic", at(7000), "server_names = [\"one.test\"]")
            + &rule("two", "quic", at(7001), "server_names = [\"two.test\"]");
        let config =
            format!("listen_port = {PORT}\nudp_target = [\"{}\"]\n[ebpf]\nmode = \"{mode}\"\n{rules}", at(7002));
        let steering = Steering::start_with(&net, &config);
        let _default = UdpServer::echo(&net.backend, at(7002), "");
        let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
        let connection = client.connect(front(), "one.test", &["h3"]);
        connection.ask();
        steering.wait_steered(client.address());
        // RTP of another client, beside the rules of QUIC.
        let rtp = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        let packet = [&[0x80, 0x60, 0x12, 0x34, 0, 0, 0, 1][..], &[7; 164]].concat();
        assert_eq!(rtp.ask(front(), &packet), packet, "{mode}");
        steering.wait_steered(rtp.address());
        steering.wait_forwarded(2, || assert_eq!(rtp.ask(front(), &packet), packet));

        for forged in [client.address(), rtp.address()] {
            let initial = Initial::v1(b"destin-f", b"client-f");
            initial.datagrams(&Hello::to("two.test")).iter().for_each(|datagram| {
                forge(&net.client, forged, front(), datagram);
            });
        }
        two.wait_for(2);
        assert_eq!(rtp.receive().bytes.len(), 1200, "the answer to what was forged");
        steering.wait_forwarded(2, || assert_eq!(rtp.ask(front(), &packet), packet));
        steering.wait_forwarded(2, || drop(connection.ask()));
        assert_eq!(server.accepted(), 1, "{mode}");
    }
}

#[test]
fn a_second_connection_from_a_port_is_steered_when_the_first_is_over() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        let certificate = Certificate::new(&["one.test"]);
        let _server = QuicServer::start(&net.backend, at(7000), "tag", &certificate, &["h3"]);
        let rules = rule("one", "quic", at(7000), "server_names = [\"one.test\"]");
        let steering = Steering::start_with(&net, &format!("listen_port = {PORT}\n[ebpf]\nmode = \"{mode}\"\n{rules}"));
        let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
        for round in 0..3 {
            let connection = client.connect(front(), "one.test", &["h3"]);
            connection.ask();
            steering.wait_forwarded(4, || {
                let seen = connection.ask();
                assert_eq!(seen.tag, "tag", "{mode}, {round}");
            });
        }
    }
}

/// Native XDP as well: a veth does not deliver at once what it sends back, but what is redirected to it.
#[test]
fn client_and_backend_may_be_behind_one_interface() {
    for mode in ["tc", "xdp", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        net.client.ethtool("eth0", "tx off gro on").unwrap();
        net.gateway.ethtool("eth0", "tx off").unwrap();
        let target = SocketAddr::from((CLIENT_V4, 7000));
        let _server = UdpServer::echo(&net.client, target, "");
        let steering = Steering::start(&net, target, &format!("mode = \"{mode}\"\ninterfaces = [\"eth0\"]"), "");
        let client = UdpClient::bind(&net.client, (client_pool(0), 0));
        assert_eq!(client.ask_text(front(), "first"), "first");
        steering.wait_steered(client.address());
        steering.wait_forwarded(2, || client.ask_again(front(), "ready?"));
        let before = steering.counted("steered");
        for n in 0..20 {
            assert_eq!(client.ask_text(front(), &format!("{n}")), format!("{n}"), "{mode}");
        }
        assert!(steering.counted("steered") >= before + 40, "{mode}");
    }
}

/// A router on the way to the client takes no more than 1,400 bytes. The answer that finds out is lost, others are not.
#[test]
fn answers_that_are_too_large_for_the_path_to_a_client_arrive() {
    for (mode, v6) in MODES.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let Some(net) = with_object() else { return };
        let (target, front, from): (_, _, SocketAddr) = if v6 {
            (at_v6(7000), front_v6(), (CLIENT_V6, 0).into())
        } else {
            (at(7000), front(), (CLIENT_V4, 0).into())
        };
        let _server = UdpServer::echo(&net.backend, target, "");
        let steering = Steering::start(&net, target, &format!("mode = \"{mode}\""), "");
        let client = UdpClient::bind(&net.client, from);
        assert_eq!(client.ask_text(front, "first"), "first");
        steering.wait_steered(client.address());
        steering.wait_forwarded(2, || client.ask_again(front, "ready?"));
        say_too_big(&net.client, front, client.address(), 1400);
        wait::until("the program has seen it", || (steering.counted("icmp_too_big") > 0).then_some(()));
        let large = "x".repeat(1440);
        let seen = steering.counted("mtu");
        wait::until("answers are left to the daemon", || {
            client.ask_again(front, &large);
            (steering.counted("mtu") > seen).then_some(())
        });
        assert_eq!(client.ask_text(front, &large), large, "{mode}, {front}");
        steering.wait_forwarded(2, || client.ask_again(front, "small"));
    }
}

/// Tells the sender of UDP packets from `from` to `to` that a router on the way takes no more than `mtu` bytes.
fn say_too_big(host: &Host, from: SocketAddr, to: SocketAddr, mtu: u16) {
    let ports = [from.port(), to.port(), 1448, 0].map(u16::to_be_bytes).concat();
    let (mut message, domain, protocol, to) = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            let addresses = [from.ip().octets(), to.ip().octets()].concat();
            let header = [&[0x45, 0, 5, 0xbc, 0, 0, 0x40, 0, 64, 17, 0, 0], &addresses[..]].concat();
            let message = [&[3, 4, 0, 0, 0, 0], &mtu.to_be_bytes()[..], &header, &ports].concat();
            (message, Domain::IPV4, Protocol::ICMPV4, SockAddr::from(SocketAddrV4::new(*from.ip(), 0)))
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            let addresses = [from.ip().octets(), to.ip().octets()].concat();
            let header = [&[0x60, 0, 0, 0, 5, 0xa8, 17, 64], &addresses[..]].concat();
            let message = [&[2, 0, 0, 0, 0, 0], &mtu.to_be_bytes()[..], &header, &ports].concat();
            (message, Domain::IPV6, Protocol::ICMPV6, SockAddr::from(SocketAddrV6::new(*from.ip(), 0, 0, 0)))
        }
        mixed => panic!("addresses of two families: {mixed:?}"),
    };
    if domain == Domain::IPV4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum);
    }
    host.run(|| {
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        socket.send_to(&message, &to).unwrap();
    });
}
