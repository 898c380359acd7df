//! Targets that refuse, swallow, do not exist, or are slow.

use std::{net::Ipv4Addr, time::Duration};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::{
        server::{Recorder, Server},
        udp::UdpClient,
    },
    socket,
    topology::{BACKENDS_V4, BACKENDS_V6, CLIENT_V4, Topology},
    wait,
};

use crate::support::{PORT, front, reached_by};

rpxy_l4_tests::splice_modes! {
    Unknown {
        the_next_target_takes_over,
        a_target_of_an_ip_version_that_the_machine_does_not_have_is_explained_once,
        without_any_target_the_client_is_closed_and_the_daemon_lives,
        a_first_target_that_comes_back_is_used_again,
        a_target_that_failed_is_tried_last_for_its_time,
        a_slow_backend_is_waited_for,
        what_the_client_sent_is_not_lost_to_a_target_that_fails,
        a_name_with_a_dead_address_is_reached_by_its_living_one,
        one_connection_tries_a_few_targets_and_no_own_listener,
    }
}

/// A daemon with these targets in order, each `host:port`. What it says about targets is expected.
fn start(net: &Topology, targets: &[&str]) -> Daemon {
    let config = format!(
        "listen_port = {PORT}\ntcp_connect_timeout = \"300ms\"\ntcp_target_retry = \"200ms\"\ntcp_target = {targets:?}\n"
    );
    targets.iter().fold(Daemon::builder(&config), |builder, target| builder.allow(target)).start(&net.gateway)
}

fn the_next_target_takes_over() {
    let [first, second, third] = BACKENDS_V4;
    let good = format!("{second}:7000");
    let unroutable = "203.0.113.1:7000";
    let rows: [(&str, String); 5] = [
        ("refusing", format!("{first}:7000")),
        ("swallowing", format!("{third}:7000")),
        ("without a route", unroutable.to_owned()),
        ("a name that does not exist", "nowhere.test:7000".to_owned()),
        ("port 0", format!("{first}:0")),
    ];
    for (name, bad) in rows {
        let Some(net) = Topology::or_skip() else { return };
        net.blackhole(third).unwrap();
        let _server = Server::tagged(&net.backend, (second, 7000), "good");
        let mut daemon = start(&net, &[&bad, &good]);
        daemon.allow("nowhere.test");
        for _ in 0..3 {
            assert_eq!(reached_by(&net, b"x").as_deref(), Some("good"), "{name}");
        }
    }
}

fn a_target_of_an_ip_version_that_the_machine_does_not_have_is_explained_once() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, ..] = BACKENDS_V4;
    let _server = Server::tagged(&net.backend, (first, 7000), "good");
    let [v6, ..] = BACKENDS_V6;
    // Somewhere else, on the same link, and itself.
    for target in ["[2001:db8:ffff::1]:7000".to_owned(), format!("[{v6}]:7000"), "[::1]:7000".to_owned()] {
        for device in ["all", "default", "lo"] {
            net.gateway.sysctl(&format!("ipv6/conf/{device}/disable_ipv6"), "1").unwrap();
        }
        let config = format!(
            "listen_port = {PORT}\ntcp_target = [\"{target}\", \"{first}:7000\"]\nudp_target = [\"{target}\"]\n"
        );
        let daemon = Daemon::builder(&config).allow(&target).start(&net.gateway);
        for _ in 0..3 {
            assert_eq!(reached_by(&net, b"x").as_deref(), Some("good"), "{target}");
        }
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        client.send(front(), b"hello");
        wait::until("TCP and UDP have said so", || (daemon.lines_with("cannot be reached").len() == 2).then_some(()));
        for line in daemon.lines_with("cannot be reached") {
            assert!(line.contains("this machine has no IPv6"), "{line}");
        }
        assert!(daemon.lines_with("ip_local_port_range").is_empty());
        daemon.stop();
    }
}

fn without_any_target_the_client_is_closed_and_the_daemon_lives() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, _, third] = BACKENDS_V4;
    net.blackhole(third).unwrap();
    let targets = [format!("{first}:7000"), format!("{third}:7000"), "nowhere.test:7000".to_owned()];
    let mut daemon = start(&net, &targets.each_ref().map(String::as_str));
    daemon.allow("target");
    daemon.allow("nowhere.test");
    for _ in 0..3 {
        assert_eq!(reached_by(&net, b"x"), None);
    }
    // And they are used as soon as they are there.
    let _server = Server::tagged(&net.backend, (first, 7000), "back");
    wait::until("the first target is used", || reached_by(&net, b"x"));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("back"));
}

fn a_first_target_that_comes_back_is_used_again() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let one = Server::tagged(&net.backend, (first, 7000), "one");
    let _two = Server::tagged(&net.backend, (second, 7000), "two");
    let daemon = start(&net, &[&format!("{first}:7000"), &format!("{second}:7000")]);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
    drop(one);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
    daemon.wait_for(0, "cannot be reached");
    let _one = Server::tagged(&net.backend, (first, 7000), "one");
    wait::until("the first target is used", || (reached_by(&net, b"x").as_deref() == Some("one")).then_some(()));
    daemon.wait_for(0, "can be reached again");
}

fn a_target_that_failed_is_tried_last_for_its_time() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let two = Server::tagged(&net.backend, (second, 7000), "two");
    let config = format!(
        "listen_port = {PORT}\ntcp_target_retry = \"1h\"\ntcp_target = [\"{first}:7000\", \"{second}:7000\"]\n"
    );
    let _daemon = Daemon::builder(&config).allow("cannot be reached").start(&net.gateway);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
    let _one = Server::tagged(&net.backend, (first, 7000), "one");
    for _ in 0..5 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"), "the first is not due yet");
    }
    // Last is not never.
    drop(two);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
}

fn a_slow_backend_is_waited_for() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let _slow = Server::start(&net.backend, (first, 7000), |mut stream, _| {
        wait::pause(Duration::from_millis(700));
        std::io::Write::write_all(&mut stream, b"at last\n").unwrap();
    });
    let _other = Server::tagged(&net.backend, (second, 7000), "other");
    // Twice the connect timeout without a byte: connected is connected.
    let _daemon = start(&net, &[&format!("{first}:7000"), &format!("{second}:7000")]);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("at last"));
}

fn what_the_client_sent_is_not_lost_to_a_target_that_fails() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, third] = BACKENDS_V4;
    net.blackhole(third).unwrap();
    let recorder = Recorder::start(&net.backend, (second, 7000));
    let targets = [format!("{first}:7000"), format!("{third}:7000"), format!("{second}:7000")];
    let _daemon = start(&net, &targets.each_ref().map(String::as_str));
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, b"early");
    socket::send(&stream, &[1; 100_000]);
    socket::finish(&stream);
    assert_eq!(recorder.next().bytes, [&b"early"[..], &[1; 100_000]].concat());
}

fn a_name_with_a_dead_address_is_reached_by_its_living_one() {
    let Some(net) = Topology::or_skip() else { return };
    let dead: Ipv4Addr = BACKENDS_V4[2];
    net.blackhole(dead).unwrap();
    let hosts = net.gateway.etc().join("hosts");
    std::fs::write(hosts, format!("{dead} dual.test\n{} dual.test\n", BACKENDS_V6[0])).unwrap();
    let _v6 = Server::tagged(&net.backend, (BACKENDS_V6[0], 7000), "v6");
    let _daemon = start(&net, &["dual.test:7000"]);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("v6"));
}

fn one_connection_tries_a_few_targets_and_no_own_listener() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, ..] = BACKENDS_V4;
    let refusing: Vec<String> = (0..1000).map(|port| format!("{first}:{}", 10_000 + port)).collect();
    let mut daemon = start(&net, &refusing.iter().map(String::as_str).collect::<Vec<_>>());
    daemon.allow("cannot be reached");
    assert_eq!(reached_by(&net, b"x"), None);
    let said = |text: &str| daemon.lines_with(text).len();
    wait::until("five were tried", || (said("cannot be reached") >= 5).then_some(()));
    assert_eq!(said("cannot be reached"), 5);

    // By a name, and by an address that only the machine knows to be its own.
    drop(daemon);
    std::fs::write(net.gateway.etc().join("hosts"), "127.0.0.1 me.test\n").unwrap();
    let own = [format!("me.test:{PORT}"), front().to_string()];
    let mut daemon = start(&net, &own.each_ref().map(String::as_str));
    daemon.allow("own listener");
    for _ in 0..3 {
        assert_eq!(reached_by(&net, b"x"), None);
    }
    wait::until("both are known", || (daemon.lines_with("own listener").len() == 2).then_some(()));
}
