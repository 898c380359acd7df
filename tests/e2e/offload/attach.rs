//! The kernel plane on the interfaces: attached, told what to drop, and gone without a trace.

use std::net::IpAddr;

use rpxy_l4_tests::{
    daemon::{Daemon, Edit, run_to_end},
    owned,
    peers::{
        programs,
        udp::{UdpClient, UdpServer},
    },
    topology::{CLIENT_V4, CLIENT_V6, Topology, client_pool},
    wait,
};
use rustix::process::Signal;

use crate::support::{
    at, at_v6, front, front_v6,
    steering::{config, tc_hook, with_object},
};

/// Returns true when an XDP program is attached to an interface of the gateway.
fn has_xdp(net: &Topology) -> bool {
    programs::text(net.gateway.command("ip").args(["-d", "link", "show"])).contains("rpxy_l4_xdp")
}

#[test]
fn bans_hold_on_every_hook_and_follow_reloads() {
    // Native XDP is not among them: what it steers over a veth arrives only where the other end is prepared for it.
    for (mode, how) in [("tc", tc_hook()), ("auto", tc_hook()), ("xdp-generic", "xdp-generic")] {
        let Some(net) = with_object() else { return };
        let server = UdpServer::echo(&net.backend, at(7000), "");
        let with = |ban: &str| config(443, at(7000), &format!("mode = \"{mode}\"\nban = [{ban}]"));
        let mut daemon = Daemon::start(&net.gateway, &with(""));
        daemon.wait_for(0, &format!("on eth0 ({how}), eth1 ({how})"));
        let [ours, ours_v6, other] = [CLIENT_V4.into(), IpAddr::from(CLIENT_V6), client_pool(1).into()]
            .map(|from| UdpClient::bind(&net.client, (from, 0)));
        let all = [(&ours, front()), (&ours_v6, front_v6()), (&other, front())];
        for (client, to) in all {
            assert_eq!(client.ask_text(to, "x"), "x", "{mode}");
        }

        daemon.reload(Edit::Rename, &with(&format!("\"{CLIENT_V4}\", \"{CLIENT_V6}/127\"")));
        for (client, to) in &all[..2] {
            client.send(*to, b"banned");
        }
        assert_eq!(other.ask_text(front(), "y"), "y", "{mode}: not banned");

        daemon.reload(Edit::Rename, &with(&format!("\"{}/32\"", client_pool(1))));
        other.send(front(), b"banned");
        for (client, to) in &all[..2] {
            assert_eq!(client.ask_text(*to, "z"), "z", "{mode}: no more");
        }
        let payloads = server.payloads();
        assert!(!payloads.iter().any(|payload| payload == b"banned"), "{mode}: {payloads:?}");
    }
}

#[test]
fn answered_sessions_are_steered_and_their_answers_are_right() {
    for (mode, family) in [("tc", "IPv4"), ("tc", "IPv6"), ("xdp-generic", "IPv4"), ("xdp-generic", "IPv6")] {
        let Some(net) = with_object() else { return };
        let (target, from, to) = match family {
            "IPv4" => (at(7000), IpAddr::from(CLIENT_V4), front()),
            _ => (at_v6(7000), IpAddr::from(CLIENT_V6), front_v6()),
        };
        let _server = UdpServer::echo(&net.backend, target, "echo:");
        let directory = owned::directory();
        let socket = directory.path().join("admin").display().to_string();
        let keys = format!("mode = \"{mode}\"");
        let top = format!("admin_socket = \"{socket}\"\naccess_log_format = \"json\"");
        let config = format!("{top}\n{}", config(443, target, &keys));
        let mut daemon = Daemon::start(&net.gateway, &config);
        let client = UdpClient::bind(&net.client, (from, 0));
        let mut bytes_up = 0;
        let mut ask = |text: String| {
            assert_eq!(client.ask_text(to, &text), format!("echo:{text}"), "{mode} {family}");
            bytes_up += text.len();
        };
        let steered = || {
            let (_, lines) = run_to_end(&net.gateway, &["status", "--socket", &socket, "--json"]);
            let status: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
            status["kernel_plane"]["counters"]["steered"].as_u64().unwrap_or(0)
        };
        // The daemon learns of the neighbours a moment after it has installed the session.
        wait::until("the kernel forwards both ways", || {
            let before = steered();
            ask("ready?".to_owned());
            (steered() >= before + 2).then_some(())
        });
        let before = steered();
        (0..50).for_each(|n| ask(n.to_string()));
        assert!(steered() >= before + 100, "{mode} {family}");
        let (status, lines) = run_to_end(&net.gateway, &["flows", "--socket", &socket, "--json"]);
        assert!(status.success(), "{mode} {family}: {lines:?}");
        assert!(lines.iter().any(|line| line.contains("\"plane\":\"kernel\"")), "{mode} {family}: {lines:?}");
        daemon.process().signal(Signal::TERM).unwrap();
        let line = daemon.wait_for(0, "\"finish\"");
        let finish: serde_json::Value = serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap();
        assert_eq!(
            (&finish["plane"], &finish["bytes_up"]),
            (&"kernel".into(), &bytes_up.into()),
            "{mode} {family}: {line}"
        );
        assert!(daemon.wait().success());
    }
}

#[test]
fn native_xdp_is_taken_where_it_is_asked_for() {
    let Some(net) = with_object() else { return };
    let daemon = Daemon::start(&net.gateway, &config(443, at(7000), "mode = \"xdp\""));
    daemon.wait_for(0, "on eth0 (xdp), eth1 (xdp)");
    assert!(has_xdp(&net));
}

#[test]
fn a_killed_daemon_leaves_no_program() {
    let Some(net) = with_object() else { return };
    let mut daemon = Daemon::start(&net.gateway, &config(443, at(7000), "mode = \"xdp-generic\""));
    assert!(has_xdp(&net));
    daemon.process().signal(Signal::KILL).unwrap();
    daemon.wait();
    wait::until("the program is gone", || (!has_xdp(&net)).then_some(()));

    let daemon = Daemon::start(&net.gateway, &config(443, at(7000), "mode = \"xdp-generic\""));
    assert!(has_xdp(&net));
    daemon.stop();
    assert!(!has_xdp(&net));
}

#[test]
fn a_program_of_somebody_else_stays() {
    let Some(net) = with_object() else { return };
    let first = Daemon::start(&net.gateway, &config(443, at(7000), "mode = \"xdp-generic\""));
    let builder = Daemon::builder(&config(444, at(7000), "mode = \"xdp-generic\""));
    let second = builder.allow("another XDP program, which is left alone").start(&net.gateway);
    second.wait_for(0, &format!("kernel plane: tc on eth0 ({how}), eth1 ({how})", how = tc_hook()));
    second.stop();
    assert!(has_xdp(&net));
    first.stop();
}

#[test]
fn interfaces_that_come_later_are_taken() {
    let Some(net) = with_object() else { return };
    let builder = Daemon::builder(&config(443, at(7000), "mode = \"xdp-generic\"\ninterfaces = [\"late\"]"));
    let daemon = builder.allow("late does not exist").start(&net.gateway);
    // With nobody there to refuse, it is what was asked for.
    daemon.wait_for(0, "kernel plane: xdp-generic on no interface yet");
    net.gateway.ip("link add late type veth peer name later").unwrap();
    assert!(!has_xdp(&net));
    net.gateway.ip("link set late up").unwrap();
    wait::until("the program is attached", || has_xdp(&net).then_some(()));
    net.gateway.ip("link del late").unwrap();
    wait::until("it is gone", || (!has_xdp(&net)).then_some(()));
    daemon.stop();
}

#[test]
fn what_needs_a_restart_is_told() {
    let Some(net) = with_object() else { return };
    let mut daemon = Daemon::start(&net.gateway, &config(443, at(7000), "mode = \"tc\""));
    daemon.allow("takes effect when the daemon is started again");
    daemon.reload(Edit::Rename, &config(443, at(7000), "mode = \"xdp-generic\""));
    assert_eq!(daemon.lines_with("ebpf: a change of mode").len(), 1);
    assert!(!has_xdp(&net));
}
