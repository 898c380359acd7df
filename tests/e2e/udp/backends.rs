//! Backends that go, backends on a link of their own, and datagrams that would go round.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::{
        programs::{self, curl},
        server::Server,
        udp::{Datagram, UdpClient, UdpServer},
    },
    socket,
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_INSIDE_V4, GATEWAY_V4, GATEWAY_V6, Topology},
    wait,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{PORT, at, dns, front, udp_to};

rpxy_l4_tests::offload_modes! {
    Steered {
        a_client_that_keeps_its_port_goes_on_with_another_backend_when_its_own_is_gone,
        a_tunnel_goes_on_with_another_server_when_its_own_answers_no_handshakes,
        a_client_that_keeps_its_port_follows_its_targets_name_when_its_backend_is_gone,
        a_tunnel_follows_its_targets_name_when_its_server_is_silent,
    }
    NotSteered {
        a_name_that_leads_back_to_the_daemon_is_not_followed,
        link_local_targets_are_reached_by_their_interface,
        a_datagram_from_a_socket_of_the_daemon_itself_goes_nowhere,
        what_a_target_sends_to_the_listener_goes_nowhere,
    }
}

fn client(net: &Topology) -> UdpClient {
    UdpClient::bind(&net.client, (CLIENT_V4, 0))
}

fn a_client_that_keeps_its_port_goes_on_with_another_backend_when_its_own_is_gone() {
    let Some(net) = Topology::or_skip() else { return };
    // A refusal for every datagram, not for one a second.
    net.backend.sysctl("ipv4/icmp_ratelimit", "0").unwrap();
    let first = UdpServer::echo(&net.backend, at(7000), "first:");
    let _second = UdpServer::echo(&net.backend, at(7001), "second:");
    let config = format!("listen_port = {PORT}\nudp_target = [\"{}\", \"{}\"]\n", at(7000), at(7001));
    let daemon = Daemon::builder(&config).allow(&format!("{} cannot be reached", at(7000))).start(&net.gateway);
    let client = client(&net);
    for text in ["a", "b", "c"] {
        assert_eq!(client.ask_text(front(), text), format!("first:{text}"));
    }
    drop(first);
    wait::until("the second backend answers", || client.try_ask(front(), b"x").filter(|answer| answer == b"second:x"));
    daemon.wait_for(0, &format!("WARN {} cannot be reached", at(7000)));
    daemon.wait_for(0, &format!("[start] udp: {} -> {}", client.address(), at(7001)));
    for text in ["d", "e", "f"] {
        assert_eq!(client.ask_text(front(), text), format!("second:{text}"));
    }
    assert_eq!(daemon.lines_with("WARN").len(), 1, "it is said once");
}

/// Answers initiations as a WireGuard server does whose index is `index`, and echoes the rest.
fn server(index: u32) -> impl Fn(&Datagram) -> Vec<Vec<u8>> + Send + 'static {
    move |datagram| match datagram.bytes.as_slice() {
        [1, 0, 0, 0, sender @ ..] => vec![message(2, index, &sender[..4], 92)],
        other => vec![other.to_vec()],
    }
}

/// A message whose first index is `index`, behind it `rest`.
fn message(kind: u8, index: u32, rest: &[u8], len: usize) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], &index.to_le_bytes(), rest].concat();
    message.resize(len, 0);
    message
}

fn a_tunnel_goes_on_with_another_server_when_its_own_answers_no_handshakes() {
    let Some(net) = Topology::or_skip() else { return };
    let silent = UdpServer::recorder(&net.backend, at(7000));
    let _second = UdpServer::start(&net.backend, at(7001), server(55));
    let config = format!(
        "listen_port = {PORT}\n[protocols.\"tunnel\"]\nprotocol = \"wireguard\"\ntarget = [\"{}\", \"{}\"]\n",
        at(7000),
        at(7001)
    );
    let said = format!("{} does not answer handshakes", at(7000));
    let daemon = Daemon::builder(&config).allow(&said).start(&net.gateway);
    let client = client(&net);
    let initiation = message(1, 7, &[], 148);
    let answer = wait::until("another server answers", || client.try_ask(front(), &initiation));
    assert_eq!(answer[..8], message(2, 55, &[], 8));
    assert!(silent.received().len() >= 2, "it was given time");
    daemon.wait_for(0, &format!("WARN {said}"));
    let data = message(4, 55, &[], 64);
    for _ in 0..3 {
        assert_eq!(client.ask(front(), &data), data);
    }
}

/// The name of a target, and the keys by which its addresses are asked for again soon.
const NAME: &str = "service.test";
const SOON: &str = "dns_cache_min_ttl = \"1s\"";

fn a_client_that_keeps_its_port_follows_its_targets_name_when_its_backend_is_gone() {
    let Some(net) = Topology::or_skip() else { return };
    net.backend.sysctl("ipv4/icmp_ratelimit", "0").unwrap();
    let dns = dns(&net);
    for (port, refuses) in [(7000, true), (7001, false)] {
        let [old, new, ..] = BACKENDS_V4;
        let first = UdpServer::echo(&net.backend, (old, port), "old:");
        let _second = UdpServer::echo(&net.backend, (new, port), "new:");
        dns.set(NAME, 1, &[old.into()]);
        let config = format!("listen_port = {PORT}\n{SOON}\nudp_target = [\"{NAME}:{port}\"]\n");
        let daemon = Daemon::start(&net.gateway, &config);
        let client = client(&net);
        for text in ["a", "b", "c"] {
            assert_eq!(client.ask_text(front(), text), format!("old:{text}"));
        }
        dns.set(NAME, 1, &[new.into()]);
        dns.wait_for_questions(4);
        assert_eq!(client.ask_text(front(), "answered"), "old:answered", "it stays");
        drop(first);
        let _silent = (!refuses).then(|| UdpServer::recorder(&net.backend, (old, port)));
        wait::until("the new address answers", || client.try_ask(front(), b"x").filter(|answer| answer == b"new:x"));
        for text in ["d", "e", "f"] {
            assert_eq!(client.ask_text(front(), text), format!("new:{text}"));
        }
        let finished = format!("[finish] udp: {} -> {old}:{port}", client.address());
        daemon.wait_for(0, &finished);
        daemon.stop();
    }
}

fn a_tunnel_follows_its_targets_name_when_its_server_is_silent() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = dns(&net);
    let [old, new, ..] = BACKENDS_V4;
    let first = UdpServer::start(&net.backend, (old, 7000), server(55));
    let _second = UdpServer::start(&net.backend, (new, 7000), server(77));
    dns.set(NAME, 1, &[old.into()]);
    let config = format!(
        "listen_port = {PORT}\n{SOON}\n[protocols.\"tunnel\"]\nprotocol = \"wireguard\"\ntarget = [\"{NAME}:7000\"]\n"
    );
    let _daemon = Daemon::start(&net.gateway, &config);
    let client = client(&net);
    let initiation = message(1, 7, &[], 148);
    let goes_on = |index| {
        let data = message(4, index, &[], 64);
        (0..3).for_each(|_| assert_eq!(client.ask(front(), &data), data));
    };
    assert_eq!(client.ask(front(), &initiation)[..8], message(2, 55, &[], 8));
    goes_on(55);
    dns.set(NAME, 1, &[new.into()]);
    dns.wait_for_questions(4);
    goes_on(55);
    drop(first);
    let silent = UdpServer::recorder(&net.backend, (old, 7000));
    let answer = wait::until("the server at the new address answers", || client.try_ask(front(), &initiation));
    assert_eq!(answer[..8], message(2, 77, &[], 8));
    goes_on(77);
    assert!(silent.received().len() >= 2, "it was given time");
}

fn a_name_that_leads_back_to_the_daemon_is_not_followed() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = dns(&net);
    let [_, elsewhere, ..] = BACKENDS_V4;
    let server = UdpServer::echo(&net.backend, (elsewhere, PORT), "");
    let keys = format!("{SOON}\nlisten_ipv6 = true\nudp_target_retry = \"1s\"");
    let config = format!("listen_port = {PORT}\n{keys}\nudp_target = [\"{NAME}:{PORT}\"]\n");
    let own: [IpAddr; 4] =
        [GATEWAY_V4.into(), Ipv4Addr::LOCALHOST.into(), GATEWAY_V6.into(), GATEWAY_V4.to_ipv6_mapped().into()];
    for address in own {
        dns.set(NAME, 1, &[address]);
        let said = format!("{NAME}:{PORT} cannot be reached: it is this daemon's own listener");
        let daemon = Daemon::builder(&config).allow(&said).start(&net.gateway);
        let client = client(&net);
        client.send(front(), b"round and round");
        daemon.wait_for(0, &format!("WARN {said}"));
        assert!(daemon.lines_with("[start]").is_empty() && server.received().is_empty(), "{address}");
        dns.set(NAME, 1, &[address, elsewhere.into()]);
        wait::until("its other address is used", || client.try_ask(front(), b"hello"));
        server.take();
        daemon.stop();
    }
}

fn link_local_targets_are_reached_by_their_interface() {
    let Some(net) = Topology::or_skip() else { return };
    net.gateway.ip("addr add fe80::1/64 dev eth1 nodad").unwrap();
    net.backend.ip("addr add fe80::10/64 dev eth0 nodad").unwrap();
    let anywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let _udp = UdpServer::echo(&net.backend, anywhere(7000), "udp:");
    let _tcp = Server::tagged(&net.backend, anywhere(7000), "tcp");
    let target = "[\"[fe80::10%eth1]:7000\"]";
    let config = format!("listen_port = {PORT}\ntcp_target = {target}\nudp_target = {target}\n");
    let daemon = Daemon::start(&net.gateway, &config);
    assert_eq!(socket::read_line(&socket::dial(&net.client, front())).as_deref(), Some("tcp"));
    let client = client(&net);
    for text in ["a", "b"] {
        assert_eq!(client.ask_text(front(), text), format!("udp:{text}"));
    }
    daemon.wait_for(0, &format!("[start] udp: {} -> [fe80::10%", client.address()));
    daemon.stop();

    let mut daemon = Daemon::start(&net.gateway, &config);
    let without = config.replace("%eth1", "");
    let refused = daemon.reload_refused(rpxy_l4_tests::daemon::Edit::Rename, &without);
    assert!(refused.contains("without a zone"), "{refused}");
    daemon.allow("configuration not reloaded");
}

/// A socket on the gateway that shares `address` with the daemon, as a source that is forged would be.
fn double(net: &Topology, address: SocketAddr) -> UdpSocket {
    net.gateway.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.into()
    })
}

fn a_datagram_from_a_socket_of_the_daemon_itself_goes_nowhere() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let keys = "listen_ipv6 = true\nmetrics_listen = \"127.0.0.1:9100\"";
    let _daemon = Daemon::start(&net.gateway, &udp_to(at(7000), keys));
    let pairs: [(IpAddr, IpAddr); 2] =
        [(GATEWAY_V6.into(), Ipv6Addr::LOCALHOST.into()), (GATEWAY_V4.into(), Ipv4Addr::LOCALHOST.into())];
    for (source, destination) in pairs {
        let socket = double(&net, (source, PORT).into());
        for _ in 0..3 {
            socket.send_to(b"round and round", (destination, PORT)).unwrap();
        }
    }
    let counted = "rpxy_l4_udp_dropped_total{reason=\"loop\"} 6";
    wait::until("all are counted", || {
        let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
        text.lines().any(|line| line == counted).then_some(())
    });
    assert!(server.received().is_empty(), "none went on");
    assert_eq!(client(&net).ask(front(), b"hello"), b"hello", "others are served");
}

fn what_a_target_sends_to_the_listener_goes_nowhere() {
    let Some(net) = Topology::or_skip() else { return };
    // Two that answer everything would answer each other for ever.
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let other = UdpClient::bind(&net.backend, (BACKENDS_V4[0], 7001));
    let neighbour = UdpClient::bind(&net.backend, (BACKENDS_V4[0], 7002));
    let config = format!(
        "listen_port = {PORT}\nmetrics_listen = \"127.0.0.1:9100\"\nudp_target = [\"{}\", \"{}\"]\n",
        at(7000),
        at(7001)
    );
    let _daemon = Daemon::start(&net.gateway, &config);
    let listener = SocketAddr::from((GATEWAY_INSIDE_V4, PORT));
    for _ in 0..3 {
        other.send(listener, b"round and round");
    }
    let counted = "rpxy_l4_udp_dropped_total{reason=\"loop\"} 3";
    wait::until("all are counted", || {
        let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
        text.lines().any(|line| line == counted).then_some(())
    });
    assert!(server.received().is_empty(), "none went on");
    assert_eq!(neighbour.ask(listener, b"hello"), b"hello", "another program of that host is a client");
}
