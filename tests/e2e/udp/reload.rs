//! Reloads under UDP sessions: what is still in the file goes on, the rest ends.

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    hello::Hello,
    initial::Initial,
    peers::udp::{self, UdpClient, UdpServer},
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_V4, Topology, client_pool},
    wait,
};
use serde_json::Value;

use crate::support::{PORT, at, front, rule, udp_to};

rpxy_l4_tests::offload_modes! {
    Steered {
        a_session_goes_on_while_its_target_is_in_the_file,
        removing_a_rule_ends_its_sessions_and_no_others,
        sockets_come_and_go_with_the_destinations_and_ports,
        a_port_that_cannot_be_bound_keeps_the_old_state,
        nothing_is_lost_while_the_configuration_changes_all_the_time,
    }
}

fn client(net: &Topology) -> UdpClient {
    UdpClient::bind(&net.client, (CLIENT_V4, 0))
}

fn a_session_goes_on_while_its_target_is_in_the_file() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let one = UdpServer::echo(&net.backend, (first, 7000), "one:");
    let _two = UdpServer::echo(&net.backend, (second, 7000), "two:");
    let (one_at, two_at) = (format!("\"{first}:7000\""), format!("\"{second}:7000\""));
    let config = |keys: &str, targets: &str| {
        format!("listen_port = {PORT}\naccess_log_format = \"json\"\n{keys}\nudp_target = [{targets}]\n")
    };
    let mut daemon = Daemon::start(&net.gateway, &config("", &one_at));
    let client = client(&net);
    assert_eq!(client.ask_text(front(), "x"), "one:x");
    let source = one.take().pop().unwrap().source;

    let both = format!("{two_at}, {one_at}");
    for (what, keys, targets) in [
        ("a limit", "udp_max_connections = 100", one_at.as_str()),
        ("another target before its own", "", &both),
        ("another balance", "udp_load_balance = \"random\"", &both),
        ("an idle lifetime", "udp_idle_lifetime = 100", &both),
    ] {
        daemon.reload(Edit::Rename, &config(keys, targets));
        assert_eq!(client.ask_text(front(), "x"), "one:x", "{what}");
        assert_eq!(one.take().pop().unwrap().source, source, "{what}");
    }
    assert!(daemon.lines_with("\"finish\"").is_empty());

    daemon.reload(Edit::Rename, &config("", &two_at));
    let line = daemon.wait_for(0, "\"finish\"");
    let event: Value = serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap();
    assert_eq!(event["reason"], "withdrawn", "{line}");
    assert_eq!(event["src"], client.address().to_string());
    assert_eq!(client.ask_text(front(), "x"), "two:x", "the next datagram begins a session by the new file");
}

fn removing_a_rule_ends_its_sessions_and_no_others() {
    let Some(net) = Topology::or_skip() else { return };
    let answer = |datagram: &udp::Datagram| vec![datagram.bytes[..5].to_vec()];
    let _rule = UdpServer::start(&net.backend, at(7001), answer);
    let default = UdpServer::echo(&net.backend, at(7000), "");
    let base = udp_to(at(7000), "");
    let mut daemon =
        Daemon::start(&net.gateway, &(base.clone() + &rule("name", "quic", at(7001), "server_names = [\"one.test\"]")));
    let (plain, quic) = (client(&net), client(&net));
    let initial = Initial::v1(&[1; 8], &[2; 4]).datagrams(&Hello::to("one.test"));
    assert_eq!(plain.ask_text(front(), "plain"), "plain");
    assert_eq!(quic.ask(front(), &initial[0]).len(), 5);
    daemon.wait_for(0, &format!("[start] udp:quic: {} -> {}", quic.address(), at(7001)));
    let source = default.take().pop().unwrap().source;

    daemon.reload(Edit::Rename, &base);
    daemon.wait_for(0, &format!("[finish] udp:quic: {} -> {}", quic.address(), at(7001)));
    assert_eq!(plain.ask_text(front(), "plain"), "plain");
    assert_eq!(default.take().pop().unwrap().source, source);
    assert_eq!(daemon.lines_with("[finish]").len(), 1);
    // Without a rule for QUIC it is nothing special.
    assert_eq!(quic.ask(front(), &initial[0]), initial[0]);
}

fn sockets_come_and_go_with_the_destinations_and_ports() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let with_udp = |ports: &str| {
        format!("listen_port = {ports}\ntcp_target = [\"{}\"]\nudp_target = [\"{}\"]\n", at(7000), at(7000))
    };
    let without_udp = format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n", at(7000));
    let mut daemon = Daemon::start(&net.gateway, &without_udp);
    assert!(!udp::is_bound(&net.gateway, PORT));

    daemon.reload(Edit::Rename, &with_udp("443"));
    let client = client(&net);
    assert_eq!(client.ask(front(), b"x"), b"x");
    daemon.reload(Edit::Rename, &with_udp("[443, 8443]"));
    assert_eq!(client.ask(front(), b"x"), b"x");
    assert_eq!(client.ask((GATEWAY_V4, 8443), b"x"), b"x");
    daemon.reload(Edit::Rename, &with_udp("[8443]"));
    wait::until("port 443 is closed", || (!udp::is_bound(&net.gateway, 443)).then_some(()));
    assert_eq!(client.ask((GATEWAY_V4, 8443), b"y"), b"y");
    daemon.reload(Edit::Rename, &without_udp);
    wait::until("port 8443 is closed", || (!udp::is_bound(&net.gateway, 8443)).then_some(()));
}

fn a_port_that_cannot_be_bound_keeps_the_old_state() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = UdpServer::echo(&net.backend, at(7001), "one:");
    let _two = UdpServer::echo(&net.backend, at(7002), "two:");
    let taken = UdpServer::recorder(&net.gateway, (GATEWAY_V4, 9000));
    let mut daemon = Daemon::start(&net.gateway, &udp_to(at(7001), ""));
    let kept = client(&net);
    assert_eq!(kept.ask_text(front(), "x"), "one:x");
    let wanted = format!("listen_port = [{PORT}, 8000, 9000]\nudp_target = [\"{}\"]\n", at(7002));
    let line = daemon.reload_refused(Edit::InPlace, &wanted);
    assert!(line.contains("9000"), "{line}");
    assert_eq!(kept.ask_text(front(), "x"), "one:x");
    assert_eq!(client(&net).ask_text(front(), "x"), "one:x");
    assert!(!udp::is_bound(&net.gateway, 8000), "half of the new state is in force");
    drop(taken);
}

fn nothing_is_lost_while_the_configuration_changes_all_the_time() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let config = |n: usize| udp_to(at(7000), &format!("udp_max_connections = {}", 2000 + n));
    let mut daemon = Daemon::start(&net.gateway, &config(0));
    let clients: Vec<_> = (0..20).map(|n| UdpClient::bind(&net.client, (client_pool(n), 0))).collect();
    for round in 1..10 {
        let mark = daemon.edit(Edit::Rename, &config(round));
        // Some of these meet the old state and some the new one.
        for n in 0..10 {
            for client in &clients {
                let text = format!("{n} of {round} by {}", client.address());
                assert_eq!(client.ask_text(front(), &text), text);
            }
        }
        daemon.wait_for(mark, "configuration reloaded");
    }
    let mut sources: Vec<_> = server.received().into_iter().map(|datagram| datagram.source).collect();
    sources.sort();
    sources.dedup();
    assert_eq!(sources.len(), clients.len(), "every session has kept its socket");
}
