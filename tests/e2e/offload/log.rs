//! A daemon whose programs log: every verdict is told, with its flow and reason, where RUST_LOG asks for it.

use std::net::IpAddr;

use rpxy_l4_tests::{
    daemon::{Daemon, logging_binary, message},
    peers::udp::{UdpClient, UdpServer},
    privilege,
    topology::{CLIENT_V4, CLIENT_V6, Topology, client_pool},
    wait,
};

use crate::support::{at, at_v6, front, front_v6, steering::config};

/// The network, if there is such a daemon.
fn with_log() -> Option<Topology> {
    if !logging_binary().exists() {
        privilege::skip(&format!("{} is missing; run `cargo xtask test`", logging_binary().display()));
        return None;
    }
    Topology::or_skip()
}

#[test]
fn verdicts_are_told_on_both_hooks() {
    for (mode, name) in [("tc", "tc"), ("xdp-generic", "xdp")] {
        for (target, from, to) in
            [(at(7000), IpAddr::from(CLIENT_V4), front()), (at_v6(7000), CLIENT_V6.into(), front_v6())]
        {
            let Some(net) = with_log() else { return };
            let _server = UdpServer::echo(&net.backend, target, "");
            let banned = format!("mode = \"{mode}\"\nban = [\"{}\"]", client_pool(1));
            let daemon = Daemon::builder(&config(443, target, &banned))
                .binary(logging_binary())
                .env("RUST_LOG", "info,rpxy_l4::ebpf=trace")
                .start(&net.gateway);
            let client = UdpClient::bind(&net.client, (from, 0));
            let flow = format!("{} -> {to} {name}", client.address());
            assert_eq!(client.ask_text(to, "first"), "first");
            daemon.wait_for(0, &format!("DEBUG {flow} pass no_flow"));
            let other = UdpClient::bind(&net.client, (client_pool(1), 0));
            other.send(front(), b"banned");
            let banned = format!("{} -> {} {name} drop banned", other.address(), front());
            assert_eq!(message(&daemon.wait_for(0, &banned)), banned);
            // Not at full speed: more than the rate allows is withheld.
            wait::until("the flow is steered", || {
                assert_eq!(client.ask_text(to, "more"), "more");
                daemon.lines_with(&format!("TRACE {flow} steered")).pop()
            });
        }
    }
}

#[test]
fn without_being_asked_nothing_is_told() {
    let Some(net) = with_log() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let daemon = Daemon::builder(&config(443, at(7000), "mode = \"tc\"")).binary(logging_binary()).start(&net.gateway);
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    for _ in 0..20 {
        assert_eq!(client.ask_text(front(), "x"), "x");
    }
    daemon.wait_for(0, "built to log verdicts, which RUST_LOG=rpxy_l4::ebpf=debug turns on");
    assert_eq!(daemon.lines_with(" tc pass "), Vec::<String>::new());
}
