//! Several listeners in one process: each has sockets, rules, clients and limits of its own.

use std::net::{IpAddr, SocketAddr};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    hello::Hello,
    peers::server::Server,
    socket,
    topology::{CLIENT_V4, CLIENT_V6, GATEWAY_V4, GATEWAY_V6, Topology},
    wait,
};

use crate::support::{PORT, at, front, front_v6, rule};

/// Port of the second listener.
const OTHER: u16 = 8443;

fn other() -> SocketAddr {
    (GATEWAY_V4, OTHER).into()
}

/// The tag of the server that `first` reaches at `to`.
fn reached(net: &Topology, to: SocketAddr, first: &[u8]) -> Option<String> {
    let stream = socket::try_dial(&net.client, None, to).ok()?;
    socket::send(&stream, first);
    socket::read_line(&stream)
}

#[test]
fn each_listener_has_rules_and_default_targets_of_its_own() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = [7001, 7002, 7003, 7004].map(|port| Server::tagged(&net.backend, at(port), &port.to_string()));
    let config = [
        format!("listen_port = {PORT}\ntcp_target = \"{}\"\n", at(7001)),
        format!("[listeners.other]\nlisten_port = [{OTHER}, \"8444-8445\"]\n"),
        rule("here", "tls", at(7002), ""),
        rule("there", "tls", at(7003), "listeners = \"other\""),
        rule("both", "ssh", at(7004), "listeners = [\"default\", \"other\"]"),
    ]
    .concat();
    let daemon = Daemon::start(&net.gateway, &config);
    let hello = Hello::to("one.test").bytes();
    for (row, to, first, expected) in [
        ("a rule of the top", front(), &hello[..], Some("7002")),
        ("the same hello elsewhere", other(), &hello, Some("7003")),
        ("a port of a range", (GATEWAY_V4, 8445).into(), &hello, Some("7003")),
        ("a rule of both, at the top", front(), b"SSH-2.0-x\r\n", Some("7004")),
        ("a rule of both, elsewhere", other(), b"SSH-2.0-x\r\n", Some("7004")),
        ("the default target", front(), b"\0", Some("7001")),
        ("there is none elsewhere", other(), b"\0", None),
    ] {
        assert_eq!(reached(&net, to, first).as_deref(), expected, "{row}");
    }
    daemon.wait_for(0, &format!("{}:{OTHER} (other)", std::net::Ipv4Addr::UNSPECIFIED));
}

#[test]
fn access_lists_are_of_one_listener_and_a_reload_changes_them() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let config = |lists: &str| {
        let target = format!("tcp_target = \"{}\"\n", at(7001));
        format!(
            "listen_port = {PORT}\nlisten_ipv6 = true\n{target}[listeners.other]\nlisten_port = {OTHER}\n{target}{lists}"
        )
    };
    let mut daemon = Daemon::start(&net.gateway, &config(""));
    let v6 = SocketAddr::from((GATEWAY_V6, OTHER));
    for (row, lists, over_v4, over_v6) in [
        ("no lists", String::new(), true, true),
        ("allowed", format!("allow = \"{CLIENT_V4}/24\""), true, false),
        ("both are allowed", format!("allow = [\"{CLIENT_V4}\", \"{CLIENT_V6}\"]"), true, true),
        ("denied", format!("deny = [\"{CLIENT_V4}\"]"), false, true),
        ("deny wins", format!("allow = \"{CLIENT_V4}\"\ndeny = \"{CLIENT_V4}/16\""), false, false),
    ] {
        if !lists.is_empty() {
            daemon.reload(Edit::Rename, &config(&lists));
        }
        let one = |expected: bool| expected.then_some("one");
        assert_eq!(reached(&net, other(), b"x").as_deref(), one(over_v4), "{row}, IPv4");
        assert_eq!(reached(&net, v6, b"x").as_deref(), one(over_v6), "{row}, IPv6");
        assert_eq!(reached(&net, front(), b"x").as_deref(), Some("one"), "{row}, the other listener");
    }
}

#[test]
fn rules_may_differ_in_where_clients_come_from_alone() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = ["any", "v4", "host"].map(|tag| {
        let port = match tag {
            "any" => 7001,
            "v4" => 7002,
            _ => 7003,
        };
        Server::tagged(&net.backend, at(port), tag)
    });
    let from = |network: String| format!("from = [\"{network}\"]");
    let base = format!("listen_port = {PORT}\nlisten_ipv6 = true\n");
    let any = rule("any", "ssh", at(7001), "");
    let wide = rule("wide", "ssh", at(7002), &from(format!("{CLIENT_V4}/16")));
    let host = rule("host", "ssh", at(7003), &from(CLIENT_V4.to_string()));
    let mut daemon = Daemon::start(&net.gateway, &format!("{base}{any}{wide}{host}"));
    let greeting = b"SSH-2.0-x\r\n";
    assert_eq!(reached(&net, front(), greeting).as_deref(), Some("host"), "the smallest network, wherever in the file");
    assert_eq!(reached(&net, front_v6(), greeting).as_deref(), Some("any"));
    daemon.reload(Edit::Rename, &format!("{base}{any}{wide}"));
    assert_eq!(reached(&net, front(), greeting).as_deref(), Some("v4"));
    daemon.reload(Edit::Rename, &format!("{base}{wide}"));
    assert_eq!(reached(&net, front(), greeting).as_deref(), Some("v4"));
    assert_eq!(reached(&net, front_v6(), greeting), None, "recognised, and no rule is for this client");
}

#[test]
fn a_listener_comes_and_goes_while_the_other_serves() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::echo(&net.backend, at(7001));
    let _two = Server::echo(&net.backend, at(7002));
    let base = format!("listen_port = {PORT}\ntcp_target = \"{}\"\n", at(7001));
    let more = format!("{base}[listeners.other]\nlisten_port = {OTHER}\ntcp_target = \"{}\"\n", at(7002));
    let mut daemon = Daemon::start(&net.gateway, &base);
    let kept = socket::dial(&net.client, front());
    let exchange = |stream: &std::net::TcpStream| {
        socket::send(stream, b"still here");
        assert_eq!(socket::read_exactly(stream, 10), b"still here");
    };
    exchange(&kept);
    for edit in [Edit::Rename, Edit::InPlace] {
        assert!(!socket::is_listening(&net.gateway, OTHER));
        daemon.reload(edit, &more);
        let of_other = socket::dial(&net.client, other());
        exchange(&of_other);
        exchange(&kept);
        daemon.reload(edit, &base);
        wait::until("the listener is gone", || (!socket::is_listening(&net.gateway, OTHER)).then_some(()));
        exchange(&kept);
        exchange(&of_other);
        exchange(&socket::dial(&net.client, front()));
    }
    let line = daemon.reload_refused(Edit::Rename, &more.replace(&OTHER.to_string(), &PORT.to_string()));
    assert!(line.contains("belongs to the listener \"default\" already"), "{line}");
    exchange(&kept);
}

#[test]
fn a_socket_changes_its_listener_without_being_closed() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let _two = Server::tagged(&net.backend, at(7002), "two");
    let (one, two) = (format!("tcp_target = \"{}\"\n", at(7001)), format!("tcp_target = \"{}\"\n", at(7002)));
    let of_top = format!("listen_port = [{PORT}, {OTHER}]\n{one}[listeners.other]\nlisten_port = 9443\n{two}");
    let of_other = format!("listen_port = {PORT}\n{one}[listeners.other]\nlisten_port = [9443, {OTHER}]\n{two}");
    let mut daemon = Daemon::start(&net.gateway, &of_top);
    let check = |tag: &str| {
        assert_eq!(reached(&net, other(), b"x").as_deref(), Some(tag));
        assert_eq!(reached(&net, front(), b"x").as_deref(), Some("one"));
    };
    check("one");
    for (config, tag) in [(&of_other, "two"), (&of_top, "one")] {
        daemon.reload(Edit::Rename, config);
        check(tag);
    }
}

#[test]
fn one_port_on_several_addresses_belongs_to_the_most_specific() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let _two = Server::tagged(&net.backend, at(7002), "two");
    let config = format!(
        "listen_port = {PORT}\ntcp_target = \"{}\"\n[listeners.inside]\nlisten_address_v4 = \"{GATEWAY_V4}\"\n\
         tcp_target = \"{}\"\n",
        at(7001),
        at(7002)
    );
    let _daemon = Daemon::start(&net.gateway, &config);
    assert_eq!(reached(&net, front(), b"x").as_deref(), Some("two"));
    let inside = SocketAddr::from((IpAddr::from(rpxy_l4_tests::topology::GATEWAY_INSIDE_V4), PORT));
    let stream = socket::dial(&net.backend, inside);
    socket::send(&stream, b"x");
    assert_eq!(socket::read_line(&stream).as_deref(), Some("one"));
}

#[test]
fn a_limit_of_its_own_keeps_a_listener_apart() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::echo(&net.backend, at(7001));
    let target = format!("tcp_target = \"{}\"\n", at(7001));
    let config = format!(
        "listen_port = {PORT}\ntcp_max_connections = 2\n{target}[listeners.other]\nlisten_port = {OTHER}\n\
         tcp_max_connections = 1\n{target}[listeners.shares]\nlisten_port = 9443\n{target}"
    );
    let _daemon = Daemon::builder(&config).allow("tcp_max_connections").start(&net.gateway);
    let serves = |to: SocketAddr| {
        let stream = socket::dial(&net.client, to);
        socket::send(&stream, b"x\n");
        socket::read_line(&stream).map(|_echo| stream)
    };
    let shares = SocketAddr::from((GATEWAY_V4, 9443));
    let held = [serves(front()).unwrap(), serves(shares).unwrap()];
    assert!(serves(front()).is_none() && serves(shares).is_none(), "the limit of the top is one for both");
    let own = serves(other()).unwrap();
    assert!(serves(other()).is_none(), "the one of its own is reached");
    drop(held);
    wait::until("there is room again", || serves(shares).map(drop));
    drop(own);
}
