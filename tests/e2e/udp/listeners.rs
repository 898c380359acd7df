//! Listeners over UDP: WireGuard on a port of its own beside QUIC and HTTPS on another, with other clients and limits.

use std::net::{Ipv4Addr, SocketAddr};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    hello::Hello,
    initial::Initial,
    peers::{
        server::Server,
        udp::{UdpClient, UdpServer},
        wireguard::{Implementation, KeyPair, Peer, Tunnel},
    },
    socket,
    topology::{CLIENT_V4, CLIENT_V6, GATEWAY_V4, GATEWAY_V6, Topology},
    wait,
};

use crate::support::{PORT, at, front, rule, steering::with_object};

rpxy_l4_tests::offload_modes! {
    Steered {
        a_tunnel_on_its_own_listener_outlives_what_happens_to_the_other,
        datagrams_go_by_the_rules_of_the_socket_that_they_arrive_at,
        access_lists_of_one_listener_hold_for_its_datagrams_alone,
        where_a_client_comes_from_decides_at_the_start_of_its_session,
        a_flood_on_one_listener_costs_one_with_a_limit_of_its_own_nothing,
    }
}

const WG: u16 = 51820;

fn other() -> SocketAddr {
    (GATEWAY_V4, WG).into()
}

fn client(net: &Topology) -> UdpClient {
    UdpClient::bind(&net.client, (CLIENT_V4, 0))
}

fn a_tunnel_on_its_own_listener_outlives_what_happens_to_the_other() {
    let Some(net) = Topology::or_skip() else { return };
    let (server_keys, client_keys) = (KeyPair::new(), KeyPair::new());
    let (inside, outside) = (Ipv4Addr::new(10, 9, 1, 1), Ipv4Addr::new(10, 9, 1, 2));
    let caller = Peer { public: &client_keys.public, inside: outside, endpoint: None };
    let server = Tunnel::start(Implementation::Go, &net.backend, 7001, &server_keys, inside, &[caller]);
    let callee = Peer { public: &server_keys.public, inside, endpoint: Some(other()) };
    let tunnel = Tunnel::start(Implementation::Go, &net.client, 5001, &client_keys, outside, &[callee]);
    let _quic = UdpServer::echo(&net.backend, at(7002), "quic:");
    let _tls = Server::tagged(&net.backend, at(7003), "tls");
    let wg = format!("[listeners.wg]\nlisten_port = {WG}\nallow = [\"{CLIENT_V4}\"]\n");
    let wireguard = rule("home", "wireguard", at(7001), "listeners = [\"wg\"]");
    let web = [rule("quic", "quic", at(7002), ""), rule("tls", "tls", at(7003), "")].concat();
    let mut daemon = Daemon::start(&net.gateway, &format!("listen_port = {PORT}\n{wg}{wireguard}{web}"));
    tunnel.wait_for_ping(inside);
    let handshake = server.latest_handshake(&client_keys.public);

    let initial = Initial::v1(&[1; 8], &[2; 4]).datagrams(&Hello::to("one.test"));
    assert!(client(&net).ask(front(), &initial[0]).starts_with(b"quic:"));
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, &Hello::to("one.test").bytes());
    assert_eq!(socket::read_line(&stream).as_deref(), Some("tls"));

    // The other listener goes, comes back on another port, and has other rules.
    for config in [
        format!("{wg}{wireguard}"),
        format!("listen_port = 8443\n{wg}{wireguard}{web}"),
        format!("listen_port = {PORT}\n{wg}{web}{wireguard}"),
    ] {
        daemon.reload(Edit::Rename, &config);
        tunnel.wait_for_ping(inside);
        assert_eq!(server.latest_handshake(&client_keys.public), handshake, "by the old keys: {config}");
    }
    assert!(daemon.lines_with("[finish] udp:wireguard").is_empty());

    daemon.reload(Edit::Rename, &format!("listen_port = {PORT}\n{web}"));
    daemon.wait_for(0, "[finish] udp:wireguard");
    assert!(client(&net).ask(front(), &initial[0]).starts_with(b"quic:"));
}

fn datagrams_go_by_the_rules_of_the_socket_that_they_arrive_at() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = UdpServer::echo(&net.backend, at(7001), "one:");
    let _two = UdpServer::echo(&net.backend, at(7002), "two:");
    let _quic = UdpServer::echo(&net.backend, at(7003), "quic:");
    let config = format!(
        "listen_port = {PORT}\nudp_target = \"{}\"\n[listeners.wg]\nlisten_port = {WG}\nudp_target = \"{}\"\n{}",
        at(7001),
        at(7002),
        rule("quic", "quic", at(7003), "listeners = \"wg\"")
    );
    let _daemon = Daemon::start(&net.gateway, &config);
    // One socket of a client, which uses both.
    let client = client(&net);
    let initial = Initial::v1(&[1; 8], &[2; 4]).datagrams(&Hello::to("one.test"));
    for _ in 0..3 {
        assert_eq!(client.ask_text(front(), "x"), "one:x");
        assert_eq!(client.ask_text(other(), "x"), "two:x");
    }
    assert!(client.ask(front(), &initial[0]).starts_with(b"one:"), "no rule there is about QUIC");
    assert!(client.ask(other(), &initial[0]).starts_with(b"quic:"));
}

fn access_lists_of_one_listener_hold_for_its_datagrams_alone() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = UdpServer::echo(&net.backend, at(7001), "one:");
    let config = |lists: &str| {
        let target = format!("udp_target = \"{}\"\n", at(7001));
        format!(
            "listen_port = {PORT}\nlisten_ipv6 = true\n{target}[listeners.wg]\nlisten_port = {WG}\n{target}{lists}\n"
        )
    };
    let mut daemon = Daemon::start(&net.gateway, &config(""));
    let (v4, v6) = (client(&net), UdpClient::bind(&net.client, (CLIENT_V6, 0)));
    let other_v6 = SocketAddr::from((GATEWAY_V6, WG));
    for _ in 0..3 {
        assert_eq!((v4.ask_text(other(), "x"), v6.ask_text(other_v6, "x")), ("one:x".into(), "one:x".into()));
    }
    assert_eq!(v4.ask_text(front(), "x"), "one:x");
    // The session of a client that is denied ends, also if the kernel steers it; those of others go on.
    daemon.reload(Edit::Rename, &config(&format!("deny = [\"{CLIENT_V4}/24\"]")));
    daemon.wait_for(0, &format!("[finish] udp: {}", v4.address()));
    assert_eq!(v4.try_ask(other(), b"x"), None);
    assert_eq!(v6.ask_text(other_v6, "x"), "one:x");
    assert_eq!(v4.ask_text(front(), "x"), "one:x", "the other listener");
    assert_eq!(daemon.lines_with("[finish]").len(), 1);
    daemon.reload(Edit::Rename, &config(&format!("allow = [\"{CLIENT_V4}\"]")));
    daemon.wait_for(0, &format!("[finish] udp: {}", v6.address()));
    assert_eq!(v6.try_ask(other_v6, b"x"), None);
    assert_eq!(v4.ask_text(other(), "x"), "one:x");
}

fn where_a_client_comes_from_decides_at_the_start_of_its_session() {
    let Some(net) = Topology::or_skip() else { return };
    let _any = UdpServer::echo(&net.backend, at(7001), "any:");
    let _lan = UdpServer::echo(&net.backend, at(7002), "lan:");
    let config = |from: &str| {
        let rules = rule("any", "quic", at(7001), "") + &rule("lan", "quic", at(7002), &format!("from = [\"{from}\"]"));
        format!("listen_port = {PORT}\n{rules}")
    };
    let mut daemon = Daemon::start(&net.gateway, &config(&format!("{CLIENT_V4}/24")));
    let initial = |n: u8| Initial::v1(&[n; 8], &[n; 4]).datagrams(&Hello::to("one.test")).remove(0);
    let first = client(&net);
    assert!(first.ask(front(), &initial(1)).starts_with(b"lan:"));
    daemon.reload(Edit::Rename, &config("203.0.113.0/24"));
    assert!(first.ask(front(), &initial(1)).starts_with(b"lan:"), "the session goes on");
    assert!(client(&net).ask(front(), &initial(2)).starts_with(b"any:"), "a new one does not begin");
}

fn a_flood_on_one_listener_costs_one_with_a_limit_of_its_own_nothing() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = UdpServer::echo(&net.backend, at(7001), "one:");
    let target = format!("udp_target = \"{}\"\n", at(7001));
    let config = format!(
        "listen_port = {PORT}\nudp_max_connections = 4\n{target}[listeners.wg]\nlisten_port = {WG}\n         udp_max_connections = 2\n{target}"
    );
    let daemon = Daemon::builder(&config).allow("udp_max_connections").start(&net.gateway);
    let kept = client(&net);
    for _ in 0..4 {
        assert_eq!(kept.ask_text(other(), "x"), "one:x");
    }
    for _ in 0..40 {
        let one_of_many = client(&net);
        // The places may all be another worker's, which is asked for one; the client tries again.
        wait::until("there is a place", || one_of_many.try_ask(front(), b"x"));
    }
    daemon.wait_for(0, "udp_max_connections");
    wait::until("its session goes on", || kept.try_ask(other(), b"x"));
    assert!(!daemon.lines_with("[finish]").iter().any(|line| line.contains(&kept.address().to_string())));
}

#[test]
fn each_listener_has_source_limits_of_its_own_whatever_the_kernel_drops_early() {
    const STRICT: u16 = 4001;
    const FREE: u16 = 4002;
    for mode in ["off", "tc", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        let _server = UdpServer::echo(&net.backend, at(7001), "wg:");
        // The programs hold one limit, the first of the file; it must not be that of the others.
        let config = format!(
            "listen_port = {PORT}\nudp_new_sessions_per_source = 1000\nudp_new_sessions_burst = 1000\n\
             [listeners.strict]\nlisten_port = {STRICT}\nudp_new_sessions_per_source = 1\nudp_new_sessions_burst = 3\n\
             [listeners.free]\nlisten_port = {FREE}\nudp_new_sessions_per_source = 0\n\
             [ebpf]\nmode = \"{mode}\"\nearly_drop = {}\n{}",
            mode != "off",
            rule("wg", "wireguard", at(7001), "listeners = [\"default\", \"strict\", \"free\"]")
        );
        let _daemon = Daemon::start(&net.gateway, &config);
        let mut initiation = vec![0; 148];
        initiation[0] = 1;
        // Before the others have used up anything that they might share, and after.
        for (port, all) in [(STRICT, false), (PORT, true), (FREE, true), (PORT, true)] {
            let served = (0..20).filter(|_| client(&net).try_ask((GATEWAY_V4, port), &initiation).is_some()).count();
            if all {
                assert_eq!(served, 20, "{mode}: {port}");
            } else {
                assert!((3..20).contains(&served), "{mode}: {served} at {port}");
            }
        }
    }
}
