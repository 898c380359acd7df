//! Which target gets new connections while checks find some of them down.

use std::{io::Write as _, net::IpAddr, os::unix::net::UnixListener};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    peers::{
        programs::{self, curl},
        server::{Recorder, Server},
        udp::{UdpClient, UdpServer},
    },
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_INSIDE_V4, Topology},
    wait,
};

use crate::support::{PORT, front, reached_by};

/// Two default targets at port 7000, checked by connecting, with `keys` at the top and `check` in the table.
fn two(keys: &str, check: &str) -> String {
    let [first, second, _] = BACKENDS_V4;
    format!(
        "listen_port = {PORT}\n{keys}\ntcp_target = [\"{first}:7000\", \"{second}:7000\"]\ntcp_health = \"alive\"\n\
         [health.\"alive\"]\nkind = \"connect\"\n{check}\n"
    )
}

fn server(net: &Topology, index: usize, tag: &str) -> Server {
    Server::tagged(&net.backend, (BACKENDS_V4[index], 7000), tag)
}

#[test]
fn a_target_falls_and_rises_by_its_checks_alone() {
    let Some(net) = Topology::or_skip() else { return };
    let (one, _two) = (server(&net, 0, "one"), server(&net, 1, "two"));
    let config = two("", "interval = \"100ms\"\nfall = 3\nrise = 2");
    let daemon = Daemon::builder(&config).allow(": down, check").start(&net.gateway);
    one.wait_for_accepted(1);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
    drop(one);
    let line = daemon.wait_for(0, "WARN 198.51.100.10:7000: down, check \"alive\" has failed 3 times: ");
    assert!(line.contains("Connection refused"), "{line}");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
    let one = server(&net, 0, "one");
    daemon.wait_for(0, "INFO 198.51.100.10:7000: up again, check \"alive\" has passed 2 times");
    assert!(one.accepted() >= 2);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
    assert_eq!(daemon.lines_with("cannot be reached"), [""; 0], "no client has met it");
}

#[test]
fn a_target_that_is_down_is_tried_last_unless_only_healthy_ones_are_wanted() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, ..] = BACKENDS_V4;
    // The check asks elsewhere, so that the target itself can be reached.
    let config = |keys: &str| {
        format!(
            "listen_port = {PORT}\nmetrics_listen = \"127.0.0.1:9100\"\n{keys}\n\
             tcp_target = [\"{first}:7000\"]\ntcp_health = \"alive\"\n\
             udp_target = [\"{first}:7000\"]\nudp_health = \"alive\"\n\
             [health.\"alive\"]\nkind = \"connect\"\nport = 7001\ninterval = \"100ms\"\n"
        )
    };
    let _server = server(&net, 0, "one");
    let _udp = UdpServer::echo(&net.backend, (first, 7000), "one:");
    let mut daemon = Daemon::builder(&config("")).allow(": down, check").start(&net.gateway);
    daemon.wait_for(0, ": down, check");
    let line = daemon.wait_for(0, ": down, check \"alive\" has failed: ");
    assert!(line.contains("198.51.100.10:7000, 198.51.100.10:7000: down"), "one checker for both: {line}");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    assert_eq!(client.ask_text(front(), "x"), "one:x");

    daemon.reload(Edit::Rename, &config("tcp_only_healthy = true\nudp_only_healthy = true"));
    assert_eq!(reached_by(&net, b"x"), None);
    assert_eq!(client.ask_text(front(), "x"), "one:x", "what it has goes on");
    UdpClient::bind(&net.client, (CLIENT_V4, 0)).send(front(), b"x");
    wait::until("both refusals are counted", || {
        let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
        let counted = ["tcp_ended_total{outcome=\"unhealthy\"} 1", "udp_dropped_total{reason=\"unhealthy\"} 1"];
        counted.iter().all(|line| text.contains(line)).then_some(())
    });
    let _alive = Server::tagged(&net.backend, (first, 7001), "alive");
    daemon.wait_for(0, ": up again, check");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
    assert_eq!(daemon.lines_with(": down, check").len(), 1, "the reload has not started over");
}

#[test]
fn findings_outlive_a_reload_in_which_target_and_check_stay() {
    let Some(net) = Topology::or_skip() else { return };
    let _two = server(&net, 1, "two");
    let slow = "interval = \"1d\"";
    let mut daemon = Daemon::builder(&two("", slow)).allow(": down, check").start(&net.gateway);
    daemon.wait_for(0, "198.51.100.10:7000: down, check");
    let one = server(&net, 0, "one");
    for (what, config) in [
        ("another key", two("tcp_backlog = 100", slow)),
        ("another interval", two("", "interval = \"23h\"")),
        ("an invalid file", "listen_port = 0\n".to_owned()),
    ] {
        if what == "an invalid file" {
            daemon.reload_refused(Edit::Rename, &config);
        } else {
            daemon.reload(Edit::Rename, &config);
        }
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"), "{what}");
        assert_eq!(one.accepted(), 0, "{what}: it was not even asked");
    }
    // Another question has an answer of its own, and soon.
    daemon.reload(Edit::Rename, &two("", "interval = \"1d\"\nport = 7000"));
    daemon.wait_for(0, "198.51.100.10:7000: up again, check \"alive\" has passed");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
}

#[test]
fn connections_that_fail_have_the_target_checked_at_once_and_a_check_that_passes_refutes_them() {
    let Some(net) = Topology::or_skip() else { return };
    let (one, _two) = (server(&net, 0, "one"), server(&net, 1, "two"));
    let config = two("tcp_target_retry = \"1h\"", "interval = \"20s\"\nfall = 2");
    let daemon = Daemon::builder(&config).allow("cannot be reached").start(&net.gateway);
    one.wait_for_accepted(1);
    drop(one);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
    daemon.wait_for(0, "198.51.100.10:7000 cannot be reached");
    let _one = server(&net, 0, "one");
    daemon.wait_for(0, "198.51.100.10:7000 can be reached again");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "long before tcp_target_retry");
}

#[test]
fn each_address_of_a_name_is_checked_and_what_is_down_is_left_out() {
    const NAME: &str = "backend.test";
    let Some(net) = Topology::or_skip() else { return };
    let dns = crate::support::dns(&net);
    let addresses: Vec<IpAddr> = BACKENDS_V4.iter().copied().map(IpAddr::from).collect();
    dns.set(NAME, 1, &addresses[..2]);
    let config = format!(
        "listen_port = {PORT}\ndns_cache_min_ttl = \"1s\"\ndns_cache_max_ttl = \"1s\"\n\
         tcp_target = [\"{NAME}:7000\"]\ntcp_health = \"alive\"\ntcp_only_healthy = true\n\
         [health.\"alive\"]\nkind = \"connect\"\ninterval = \"100ms\"\nrise = 1\n"
    );
    let _second = server(&net, 1, "two");
    let daemon = Daemon::builder(&config).allow(": down, check").start(&net.gateway);
    daemon.wait_for(0, "backend.test:7000 at 198.51.100.10: down, check");
    for _ in 0..5 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
    }
    let _third = server(&net, 2, "three");
    dns.set(NAME, 1, &[addresses[0], addresses[2]]);
    wait::until("the new address is used", || (reached_by(&net, b"x").as_deref() == Some("three")).then_some(()));
    let first = server(&net, 0, "one");
    daemon.wait_for(0, "backend.test:7000 at 198.51.100.10: up again");
    wait::until("the first address is used", || (reached_by(&net, b"x").as_deref() == Some("one")).then_some(()));
    let starts = daemon.lines_with("[start]");
    assert!(starts.len() >= 7 && first.accepted() > 0, "{starts:#?}");
}

#[test]
fn checks_come_from_where_connections_do() {
    let Some(net) = Topology::or_skip() else { return };
    net.gateway.ip("addr add 198.51.100.7/24 dev eth1").unwrap();
    let recorder = Recorder::start(&net.backend, (BACKENDS_V4[0], 7000));
    let _second = server(&net, 1, "two");
    let mut daemon = Daemon::start(&net.gateway, &two("", "interval = \"100ms\""));
    let from = || recorder.next().peer.ip();
    assert_eq!(from(), IpAddr::from(GATEWAY_INSIDE_V4));
    let sources = "tcp_source_addresses = [\"198.51.100.77\", \"198.51.100.7\", \"2001:db8::7\"]";
    daemon.allow("does not have");
    daemon.reload(Edit::Rename, &two(sources, "interval = \"100ms\""));
    wait::until("checks come from the other address", || (from() == IpAddr::from([198, 51, 100, 7])).then_some(()));
    for _ in 0..5 {
        assert_eq!(from(), IpAddr::from([198, 51, 100, 7]), "also where the machine lacks the other one");
    }
}

#[test]
fn a_unix_socket_is_checked_like_an_address() {
    let Some(net) = Topology::or_skip() else { return };
    let _two = server(&net, 1, "two");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backend.sock");
    let first = format!("\"{}:7000\"", BACKENDS_V4[0]);
    let config = two("", "interval = \"100ms\"").replace(&first, &format!("\"unix:{}\"", path.display()));
    let daemon = Daemon::builder(&config).allow(": down, check").start(&net.gateway);
    daemon.wait_for(0, "backend.sock: down, check \"alive\" has failed");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        // Ends with the test's process.
        while let Ok((mut stream, _)) = listener.accept() {
            let _gone = stream.write_all(b"unix\n");
        }
    });
    daemon.wait_for(0, "backend.sock: up again");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("unix"));
}

#[test]
fn a_target_that_passes_its_checks_and_refuses_clients_is_tried_last_and_spoken_of_once() {
    let Some(net) = Topology::or_skip() else { return };
    // The check asks elsewhere, where all is well.
    let alive = [0, 1].map(|index| Server::tagged(&net.backend, (BACKENDS_V4[index], 7001), "alive"));
    let _two = server(&net, 1, "two");
    let config = two("tcp_target_retry = \"1h\"", "port = 7001\ninterval = \"100ms\"");
    let mut daemon = Daemon::builder(&config).allow("198.51.100.10:7000 cannot be reached").start(&net.gateway);
    let asked = alive[0].accepted();
    for _ in 0..20 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
    }
    alive[0].wait_for_accepted(asked + 5);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"), "checks that pass elsewhere refute nothing");
    assert_eq!(daemon.lines_with("cannot be reached").len(), 1);
    daemon.reload(Edit::Rename, &config.replace("\nport = 7001", ""));
    daemon.allow(": down, check");
    let line = daemon.wait_for(0, ": down, check");
    assert!(line.contains("198.51.100.10:7000: down"), "{line}");
}
