//! Flows in the kernel from their first answer to their end.

use std::time::Duration;

use rpxy_l4_tests::{
    peers::{
        programs::{self, curl},
        udp::{UdpClient, UdpServer},
    },
    topology::{CLIENT_V4, client_pool},
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    at, front,
    steering::{Steering, with_object},
};

#[test]
fn scrapers_and_status_see_what_the_programs_count() {
    for mode in ["tc", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        let _server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(
            &net,
            at(7000),
            &format!("mode = \"{mode}\"\nmax_flows = 7"),
            "metrics_listen = \"127.0.0.1:9901\"",
        );
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        steering.wait_forwarded(2, || assert_eq!(client.ask_text(front(), "ready?"), "ready?", "{mode}"));
        for n in 0..20 {
            assert_eq!(client.ask_text(front(), &n.to_string()), n.to_string(), "{mode}");
        }
        let plane = steering.kernel_plane();
        assert_eq!((plane["flows"].as_u64(), plane["max_flows"].as_u64()), (Some(1), Some(7)), "{mode}: {plane}");
        let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9901/metrics"));
        assert!(text.lines().any(|line| line == "rpxy_l4_kernel_flows 1"), "{mode}:\n{text}");
        let steered = text.lines().find_map(|line| {
            line.strip_prefix("rpxy_l4_kernel_packets_total{action=\"steer\",outcome=\"steered\"} ")?
                .parse::<u64>()
                .ok()
        });
        assert!(steered.is_some_and(|count| count >= 42), "{mode}: {steered:?}");
        assert_eq!(steering.counted("steered"), steered.unwrap(), "{mode}");
    }
}

#[test]
fn counters_are_told_when_no_descriptor_is_left() {
    let Some(net) = with_object() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let steering = Steering::start(&net, at(7000), "mode = \"tc\"", "");
    let mut admin = steering.admin();
    admin.ask(&json!({ "command": "bans" }));
    assert_eq!(UdpClient::bind(&net.client, (CLIENT_V4, 0)).ask_text(front(), "x"), "x");
    // Whatever is opened from now on fails.
    steering.daemon.limit_open_files(1);
    let status = admin.ask(&json!({ "command": "status" })).remove(0);
    let counters = status["kernel_plane"]["counters"].as_object();
    assert!(counters.is_some_and(|counters| !counters.is_empty()), "{status}");
    steering.daemon.limit_open_files(1024);
}

/// XDP is looked at in `attach`. A link of TC goes with the process; a filter, which older kernels have, stays and
/// does nothing any more when the lease is over.
#[test]
fn a_killed_daemon_leaves_nothing_that_forwards_on_tc() {
    let Some(net) = with_object() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let start = || Steering::start(&net, at(7000), "mode = \"tc\"", "");
    let mut steering = start();
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    assert_eq!(client.ask_text(front(), "x"), "x");
    steering.wait_forwarded(2, || assert_eq!(client.ask_text(front(), "y"), "y"));
    steering.daemon.process().signal(Signal::KILL).unwrap();
    steering.daemon.wait();
    wait::until("nothing is forwarded", || {
        client.send(front(), b"lost");
        client.receive_within(Duration::from_millis(200)).is_none().then_some(())
    });

    let steering = start();
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    assert_eq!(client.ask_text(front(), "x"), "x");
    steering.wait_forwarded(2, || assert_eq!(client.ask_text(front(), "y"), "y"));
    assert_eq!(steering.counted("lapsed"), 0);
}

#[test]
fn a_session_without_a_place_gets_one_when_another_ends() {
    for mode in ["tc", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        let _server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(&net, at(7000), &format!("mode = \"{mode}\"\nmax_flows = 1"), "");
        let first = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        let others = [1, 2].map(|n| UdpClient::bind(&net.client, (client_pool(n), 0)));
        assert_eq!(first.ask_text(front(), "x"), "x", "{mode}");
        for other in &others {
            assert_eq!(other.ask_text(front(), "y"), "y", "{mode}");
            steering.wait_in_userspace(other.address(), "full");
        }
        assert_eq!(steering.session_of(first.address()), (json!("kernel"), Value::Null), "{mode}");

        steering.admin().ask(&json!({ "command": "ban", "network": CLIENT_V4.to_string() }));
        let steered = || others.iter().filter(|other| steering.session_of(other.address()).0 == "kernel").count();
        wait::until("one of them is steered", || (steered() == 1).then_some(()));
        for other in &others {
            assert_eq!(other.ask_text(front(), "z"), "z", "{mode}");
        }
        assert_eq!(steered(), 1, "{mode}");
    }
}

#[test]
fn a_session_without_a_way_is_steered_when_there_is_one() {
    let Some(net) = with_object() else { return };
    let server = UdpServer::recorder(&net.backend, at(7000));
    let steering = Steering::start(&net, at(7000), "mode = \"tc\"", "");
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    client.send(front(), b"question");
    let upstream = server.wait_for(1)[0].source;
    net.gateway.ip("route del 192.0.2.0/24 dev eth0").unwrap();
    server.send(upstream, b"answer to nowhere");
    steering.wait_in_userspace(client.address(), "no_route");
    net.gateway.ip("route add 192.0.2.0/24 dev eth0").unwrap();
    steering.wait_steered(client.address());
    server.send(upstream, b"answer");
    assert_eq!(client.receive().bytes, b"answer");
}

#[test]
fn a_session_that_leaves_by_an_interface_without_program_stays_in_the_daemon() {
    let Some(net) = with_object() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let steering = Steering::start(&net, at(7000), "mode = \"tc\"\ninterfaces = [\"eth0\"]", "");
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    assert_eq!(client.ask_text(front(), "x"), "x");
    steering.wait_in_userspace(client.address(), "interface");
}
