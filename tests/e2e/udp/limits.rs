//! Limits on the sessions of one rule and of one target: whom they keep out, and whom they let go on.

use std::time::Duration;

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    peers::{
        programs::{self, curl},
        udp::{UdpClient, UdpServer},
    },
    topology::{CLIENT_V4, Topology},
    wait,
};

use crate::support::{PORT, at, front, rule};

rpxy_l4_tests::offload_modes! {
    Steered {
        a_target_takes_no_more_sessions_than_it_may_and_the_next_one_gets_them,
        a_full_target_keeps_new_clients_out_and_a_reload_lets_them_in,
    }
    Unknown {
        a_flood_at_the_limit_of_a_rule_lets_new_clients_in_and_leaves_other_rules_alone,
    }
}

const METRICS: &str = "metrics_listen = \"127.0.0.1:9100\"";

fn client(net: &Topology) -> UdpClient {
    UdpClient::bind(&net.client, (CLIENT_V4, 0))
}

fn target(port: u16, most: u32) -> String {
    format!("{{ address = \"{}\", max_connections = {most} }}", at(port))
}

fn config(targets: &str) -> String {
    format!("listen_port = {PORT}\nworkers = 1\n{METRICS}\nudp_target = [{targets}]\n")
}

/// A client that has taken turns with what answers with `tag`.
fn served(net: &Topology, tag: &str) -> UdpClient {
    let client = client(net);
    for _ in 0..5 {
        assert_eq!(client.ask_text(front(), "x"), format!("{tag}:x"));
    }
    client
}

fn wait_for_metric(net: &Topology, line: &str) {
    wait::until(line, || {
        let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
        text.contains(line).then_some(())
    });
}

fn a_target_takes_no_more_sessions_than_it_may_and_the_next_one_gets_them() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = [7001, 7002].map(|port| UdpServer::echo(&net.backend, at(port), &format!("{port}:")));
    let targets = format!("{}, {}", target(7001, 2), target(7002, 1));
    let _daemon = Daemon::start(&net.gateway, &config(&targets));
    let clients = [served(&net, "7001"), served(&net, "7001"), served(&net, "7002")];
    for (client, tag) in clients.iter().zip(["7001", "7001", "7002"]) {
        assert_eq!(client.ask_text(front(), "y"), format!("{tag}:y"));
    }
}

fn a_full_target_keeps_new_clients_out_and_a_reload_lets_them_in() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7001), "7001:");
    let mut daemon = Daemon::start(&net.gateway, &config(&target(7001, 2)));
    let clients = [served(&net, "7001"), served(&net, "7001")];
    let other = client(&net);
    // What the kernel forwards is known at the next look at it.
    wait::until("both are known to take turns, and a third client is kept out", || {
        for client in clients.iter().cycle().take(10) {
            assert_eq!(client.ask_text(front(), "y"), "7001:y");
            // The kernel's clock is coarse: what comes within one of its ticks is one turn.
            wait::pause(Duration::from_millis(20));
        }
        wait::pause(Duration::from_millis(600));
        other.try_ask(front(), b"x").is_none().then_some(())
    });
    wait_for_metric(&net, "rpxy_l4_udp_dropped_total{reason=\"target_connections\"}");
    for client in &clients {
        assert_eq!(client.ask_text(front(), "y"), "7001:y", "who is there goes on");
    }
    daemon.reload(Edit::Rename, &config(&target(7001, 3)));
    assert_eq!(other.ask_text(front(), "x"), "7001:x");
    for client in &clients {
        assert_eq!(client.ask_text(front(), "y"), "7001:y");
    }
}

fn a_flood_at_the_limit_of_a_rule_lets_new_clients_in_and_leaves_other_rules_alone() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = [7001, 7002].map(|port| UdpServer::echo(&net.backend, at(port), &format!("{port}:")));
    let limited = rule("wg", "wireguard", at(7002), "max_connections = 4");
    let config = config(&format!("\"{}\"", at(7001))) + &limited;
    let daemon = Daemon::builder(&config).allow("wg has 4 sessions, its max_connections").start(&net.gateway);
    let other = served(&net, "7001");
    let mut initiation = vec![0; 148];
    initiation[0] = 1;
    let clients: Vec<UdpClient> = (0..50).map(|_| client(&net)).collect();
    for client in &clients {
        let answer = client.ask(front(), &initiation);
        assert!(answer.starts_with(b"7002:"), "{answer:?}");
    }
    assert_eq!(other.ask_text(front(), "y"), "7001:y");
    wait::until("all but the latest four have ended", || {
        (daemon.lines_with("[finish] udp:wireguard").len() >= 46).then_some(())
    });
    assert_eq!(daemon.lines_with("[finish] udp 192").len(), 0, "the other rule has lost none");
}
