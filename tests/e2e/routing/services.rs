//! Targets by SRV records (RFC 2782), with dnsmasq as name server: hosts, ports, priorities and weights, followed over time.

use std::{fs, net::Ipv4Addr, time::Duration};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    peers::{
        dnsmasq::{Dnsmasq, question},
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_V4, Topology, client_pool},
    wait,
};

use crate::support::{PORT, admin::Scratch, front, reached_by};

rpxy_l4_tests::offload_modes! {
    Steered {
        sessions_go_to_the_host_and_port_of_a_record_and_leave_one_that_refuses,
        a_name_server_is_found_by_its_own_records,
    }
}

const TCP: &str = "_app._tcp.service.test";
const UDP: &str = "_app._udp.service.test";

/// dnsmasq on the first of the backend's addresses, which the gateway asks: `a.service.test` and so on are its addresses.
fn name_server(net: &Topology, records: &[&str]) -> Dnsmasq {
    let hosts = ["a", "b", "c"].into_iter().zip(BACKENDS_V4);
    let hosts = hosts.map(|(host, address)| format!("host-record={host}.service.test,{address}"));
    let records = records.iter().map(|record| format!("srv-host={record}"));
    let lines: Vec<String> = hosts.chain(records).collect();
    let [address, ..] = BACKENDS_V4;
    fs::write(net.gateway.etc().join("resolv.conf"), format!("nameserver {address}\n")).unwrap();
    Dnsmasq::start(&net.backend, address, &lines.join("\n"))
}

fn config(keys: &str, more: &str) -> String {
    format!(
        "listen_port = {PORT}\ndns_cache_min_ttl = \"1s\"\ndns_cache_max_ttl = \"1s\"\n{keys}\n\
         tcp_target = \"srv:{TCP}\"\n{more}"
    )
}

fn tagged(net: &Topology, address: Ipv4Addr, port: u16, tag: &str) -> Server {
    Server::tagged(&net.backend, (address, port), tag)
}

fn becomes(net: &Topology, expected: Option<&str>) {
    wait::until(&format!("clients reach {expected:?}"), || {
        (reached_by(net, b"x").as_deref() == expected).then_some(())
    });
}

#[test]
fn records_are_tried_by_priority_and_followed_over_time() {
    let Some(net) = Topology::or_skip() else { return };
    let [a, b, c] = BACKENDS_V4;
    let first = tagged(&net, a, 7001, "first");
    let _second = tagged(&net, b, 7002, "second");
    let _other = tagged(&net, c, 7003, "other");
    let in_order = [&*format!("{TCP},b.service.test,7002,20,0"), &*format!("{TCP},a.service.test,7001,10,0")];
    let dns = name_server(&net, &in_order);
    let mut daemon = Daemon::builder(&config("tcp_target_retry = \"1s\"\naccess_log_format = \"json\"", ""))
        .allow(TCP)
        .start(&net.gateway);
    for _ in 0..10 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("first"));
    }
    let line = daemon.wait_for(0, "\"start\"");
    let both = format!("\"dst\":\"198.51.100.10:7001\",\"target\":\"srv:{TCP}\"");
    assert!(line.contains(&both), "{line}");
    drop(first);
    for _ in 0..10 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("second"), "the next priority");
    }
    let _first = tagged(&net, a, 7001, "first");
    becomes(&net, Some("first"));
    assert_eq!(daemon.lines_with("cannot be reached"), [""; 0], "one of its hosts was there all the time");

    // While the name server is away, its last answer holds.
    drop(dns);
    daemon.wait_for(0, "cannot resolve");
    for _ in 0..10 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("first"));
    }
    // Back with other records.
    let dns = name_server(&net, &[&format!("{TCP},c.service.test,7003,10,0")]);
    becomes(&net, Some("other"));
    drop(dns);
    // "." is no host: the service is not offered.
    daemon.allow("cannot resolve");
    let _dns = name_server(&net, &[TCP]);
    becomes(&net, None);
    let line = daemon.wait_for(0, "cannot be reached");
    assert!(line.contains(&format!("srv:{TCP} cannot be reached: its name server says")), "{line}");
}

#[test]
fn hosts_of_one_priority_are_chosen_by_weight_and_clients_keep_theirs_where_that_is_wanted() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers =
        ["a", "b", "c"].into_iter().zip(BACKENDS_V4).map(|(tag, ip)| tagged(&net, ip, 7000, tag)).collect::<Vec<_>>();
    let records =
        [("a", 1), ("b", 3), ("c", 6)].map(|(host, weight)| format!("{TCP},{host}.service.test,7000,5,{weight}"));
    let _dns = name_server(&net, &records.each_ref().map(String::as_str));
    let mut daemon = Daemon::start(&net.gateway, &config("", ""));
    let visit = |n| socket::read_line(&socket::dial_from(&net.client, client_pool(n), front())).unwrap();
    let tags: Vec<String> = (0..200).map(|n| visit(n % 100)).collect();
    let count = |tag: &str| tags.iter().filter(|seen| *seen == tag).count();
    // 20, 60 and 120 on average, with more than five standard deviations to either side.
    for (tag, expected) in [("a", 1..=45), ("b", 25..=95), ("c", 80..=160)] {
        assert!(expected.contains(&count(tag)), "{tag}: {}", count(tag));
    }
    daemon.reload(Edit::Rename, &config("tcp_load_balance = \"source_ip\"", ""));
    let before: Vec<String> = (0..40).map(visit).collect();
    assert!(["a", "b", "c"].iter().all(|tag| before.iter().any(|seen| seen == tag)), "{before:?}");
    assert_eq!((0..40).map(visit).collect::<Vec<_>>(), before);
}

#[test]
fn a_service_is_one_target_beside_others() {
    let Some(net) = Topology::or_skip() else { return };
    let [a, b, c] = BACKENDS_V4;
    let _main = tagged(&net, a, 7001, "service");
    let backup = tagged(&net, c, 7003, "backup");
    let _dns =
        name_server(&net, &[&format!("{TCP},a.service.test,7001,1,1"), &format!("{TCP},b.service.test,7002,1,1")]);
    let targets = |first: &str, second: &str| {
        config("", "").replace(&format!("tcp_target = \"srv:{TCP}\""), &format!("tcp_target = [{first}, {second}]"))
    };
    let service = |keys: &str| format!("{{ address = \"srv:{TCP}\"{keys} }}");
    let literal = |keys: &str| format!("{{ address = \"{c}:7003\"{keys} }}");
    let mut daemon =
        Daemon::start(&net.gateway, &targets(&service(", max_connections = 1"), &literal(", backup = true")));
    let held = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&held).as_deref(), Some("service"), "b refuses");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("backup"), "the limit is of all its hosts together");
    drop(held);
    becomes(&net, Some("service"));
    daemon.reload(Edit::Rename, &targets(&literal(""), &service(", backup = true")));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("backup"), "it comes first now");
    daemon.allow("7003 cannot be reached");
    drop(backup);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("service"));
    let _b = tagged(&net, b, 7002, "service");
}

#[test]
fn each_host_of_a_service_is_checked() {
    let Some(net) = Topology::or_skip() else { return };
    let [a, b, _] = BACKENDS_V4;
    let scratch = Scratch::new();
    // One host offers it at two ports, which are told apart.
    let records = [(7001, 10), (7002, 20)].map(|(port, priority)| format!("{TCP},a.service.test,{port},{priority},0"));
    let third = format!("{TCP},b.service.test,7003,30,0");
    let _dns = name_server(&net, &[&records[0], &records[1], &third]);
    let first = tagged(&net, a, 7001, "first");
    let _second = tagged(&net, a, 7002, "second");
    let _third = tagged(&net, b, 7003, "third");
    let check = "[health.alive]\nkind = \"connect\"\ninterval = \"100ms\"\n";
    let keys =
        format!("admin_socket = \"{}\"\ntcp_health = \"alive\"\ntcp_only_healthy = true", scratch.socket().display());
    let daemon = Daemon::builder(&config(&keys, check)).allow(": down, check").start(&net.gateway);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("first"));
    drop(first);
    let line = daemon.wait_for(0, ": down, check");
    assert!(line.contains(&format!("srv:{TCP} at {a}:7001: down, check")), "{line}");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("second"), "the same host, another port");
    let _first = tagged(&net, a, 7001, "first");
    daemon.wait_for(0, ": up again, check");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("first"));
    assert_eq!(daemon.lines_with("cannot be reached"), [""; 0]);
}

#[test]
fn hosts_that_are_silent_hold_nobody_up_twice() {
    let Some(net) = Topology::or_skip() else { return };
    let [a, _, silent] = BACKENDS_V4;
    net.blackhole(silent).unwrap();
    let _second = tagged(&net, a, 7001, "second");
    let _dns =
        name_server(&net, &[&format!("{TCP},c.service.test,7000,1,0"), &format!("{TCP},a.service.test,7001,2,0")]);
    let keys = "tcp_connect_timeout = \"30s\"\ntcp_target_retry = \"1h\"";
    let daemon = Daemon::start(&net.gateway, &config(keys, ""));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("second"), "though the first priority says nothing");
    for _ in 0..20 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("second"));
    }
    assert_eq!(daemon.lines_with("cannot be reached"), [""; 0]);
}

fn sessions_go_to_the_host_and_port_of_a_record_and_leave_one_that_refuses() {
    let Some(net) = Topology::or_skip() else { return };
    let [a, b, _] = BACKENDS_V4;
    let first = UdpServer::echo(&net.backend, (a, 7001), "first:");
    let _second = UdpServer::echo(&net.backend, (b, 7002), "second:");
    let _dns =
        name_server(&net, &[&format!("{UDP},a.service.test,7001,10,0"), &format!("{UDP},b.service.test,7002,20,0")]);
    let _daemon = Daemon::start(&net.gateway, &format!("listen_port = {PORT}\nudp_target = \"srv:{UDP}\"\n"));
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    for _ in 0..5 {
        assert_eq!(client.ask_text(front(), "x"), "first:x");
    }
    drop(first);
    let other = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    wait::until("another client is sent to the next priority", || {
        other.try_ask(front(), b"x").filter(|answer| answer == b"second:x")
    });
    for _ in 0..5 {
        assert_eq!(UdpClient::bind(&net.client, (CLIENT_V4, 0)).ask_text(front(), "x"), "second:x");
    }
}

fn a_name_server_is_found_by_its_own_records() {
    let Some(net) = Topology::or_skip() else { return };
    let _dns = name_server(&net, &["_dns._udp.service.test,a.service.test,53"]);
    let config = format!(
        "listen_port = {PORT}\ntcp_target = \"192.0.2.99:1\"\n\
         [listeners.\"dns\"]\nlisten_port = 53\ntransport = \"udp\"\nudp_target = \"srv:_dns._udp.service.test\"\n"
    );
    let _daemon = Daemon::start(&net.gateway, &config);
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    for id in 1..=5 {
        let answer = client.ask((GATEWAY_V4, 53), &question(id, "b.service.test"));
        assert_eq!(answer[..2], id.to_be_bytes());
        assert!(answer.ends_with(&BACKENDS_V4[1].octets()), "{answer:?}");
        wait::pause(Duration::from_millis(1));
    }
}
