//! Flows that outlive their daemon (`ebpf.pin`), and the daemon that inherits them.

use std::{net::IpAddr, path::Path};

use rpxy_l4_tests::{
    daemon::{Daemon, run_to_end},
    peers::{
        programs,
        udp::{UdpClient, UdpServer},
    },
    topology::{CLIENT_V4, CLIENT_V6, client_pool},
    wait,
};
use serde_json::json;

use crate::support::{
    at, at_v6,
    bpf_fs::{BpfFs, kill},
    front, front_v6,
    steering::{Steering, config, with_object},
};

/// Names of pinned files.
fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn flows_go_on_without_a_daemon_and_the_next_one_inherits_them() {
    let rows = [
        ("tc", 1, at(7000), front()),
        ("tc", 4, at(7000), front()),
        ("tc", 4, at_v6(7000), front_v6()),
        ("xdp-generic", 4, at(7000), front()),
    ];
    for (mode, workers, target, front) in rows {
        let address = |n| if front.is_ipv4() { IpAddr::from(client_pool(n)) } else { CLIENT_V6.into() };
        let Some(net) = with_object() else { return };
        let (fs, server) = (BpfFs::mount(), UdpServer::echo(&net.backend, target, ""));
        let top = format!("workers = {workers}");
        let mut steering = Steering::start(&net, target, &fs.keys(mode), &top);
        let clients: Vec<_> = (0..8).map(|n| UdpClient::bind(&net.client, (address(n), 0))).collect();
        let ask_all = |text: &str| {
            for client in &clients {
                assert_eq!(client.ask_text(front, text), text, "{mode}");
            }
        };
        ask_all("before");
        steering.wait_forwarded(16, || ask_all("again"));
        kill(&mut steering);
        ask_all("without");
        ask_all("without, again");

        let mut steering = Steering::start(&net, target, &fs.keys(mode), &top);
        steering.daemon.wait_for(0, "8 of 8 sessions of an earlier daemon go on");
        for client in &clients {
            steering.wait_steered(client.address());
        }
        steering.wait_forwarded(16, || ask_all("after"));

        // What only the daemon can forward goes by the same port, whichever worker gets it.
        let long = "x".repeat(3000);
        ask_all(&long);
        let sources = server.received();
        for client in &clients {
            assert_eq!(client.ask_text(front, "last"), "last");
        }
        let mut ports: Vec<_> = sources.iter().map(|datagram| datagram.source).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8, "{mode}, {workers} workers: a backend must see one port for each client: {ports:?}");

        // Once more: what was inherited can be inherited again.
        kill(&mut steering);
        ask_all("without");
        let steering = Steering::start(&net, target, &fs.keys(mode), &top);
        steering.daemon.wait_for(0, "8 of 8 sessions of an earlier daemon go on");
        ask_all(&long);
        let now = server.received();
        assert!(now.iter().all(|datagram| ports.contains(&datagram.source)), "{mode}: {ports:?}");
    }
}

#[test]
fn a_planned_restart_keeps_flows_and_unpin_ends_them() {
    for mode in ["tc", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        let (fs, _server) = (BpfFs::mount(), UdpServer::echo(&net.backend, at(7000), ""));
        let start = || Steering::start(&net, at(7000), &fs.keys(mode), "");
        let steering = start();
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        assert_eq!(client.ask_text(front(), "x"), "x");
        let path = fs.pins().display().to_string();
        let (status, lines) = run_to_end(&net.gateway, &["unpin", "--path", &path]);
        assert!(!status.success() && lines.iter().any(|line| line.contains("a running daemon uses it")), "{lines:?}");

        steering.daemon.stop();
        assert_eq!(client.ask_text(front(), "without"), "without", "{mode}");
        let steering = start();
        steering.daemon.wait_for(0, "1 of 1 sessions of an earlier daemon go on");
        assert_eq!(client.ask_text(front(), "after"), "after", "{mode}");
        steering.daemon.stop();

        let keys = fs.keys(mode).replace("pin = true", "pin = false");
        let without = Daemon::builder(&config(444, at(7000), &keys));
        let without = without.allow("flows of an earlier daemon are still steered").allow("another XDP program");
        let without = without.start(&net.gateway);
        without.wait_for(0, &format!("`rpxy-l4 unpin --path {path}` ends them"));
        without.stop();

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, config(443, at(7000), &fs.keys(mode))).unwrap();
        let (status, lines) = run_to_end(&net.gateway, &["doctor", "--config", &file.path().display().to_string()]);
        let pinned = format!("pinned: programs on 2 interfaces in {path}, used by no daemon");
        assert!(status.success() && lines.contains(&pinned), "{mode}: {lines:?}");
        assert!(lines.iter().any(|line| line.contains(&format!("rpxy-l4 unpin --path {path}"))), "{mode}: {lines:?}");
        let (status, lines) = run_to_end(&net.gateway, &["unpin", "--path", &path]);
        assert!(status.success() && lines == ["removed the programs from 2 interfaces"], "{mode}: {lines:?}");
        assert!(!fs.pins().exists(), "{mode}");
        wait::until("the flow has ended", || client.try_ask(front(), b"gone").is_none().then_some(()));
        let shown = programs::text(net.gateway.command("ip").args(["-d", "link", "show"]));
        assert!(!shown.contains("rpxy_l4_xdp"), "{mode}");
        let (status, lines) = run_to_end(&net.gateway, &["unpin", "--path", &path]);
        assert!(status.success() && lines[0].contains("nothing is pinned"), "{mode}: {lines:?}");
    }
}

#[test]
fn what_the_configuration_gives_no_place_any_more_ends() {
    let ban = format!("ban = [\"{CLIENT_V4}\"]");
    let rows = [("another target", 443, 7001, ""), ("another port", 444, 7000, ""), ("banned", 443, 7000, &ban)];
    for (name, port, target, keys) in rows {
        let Some(net) = with_object() else { return };
        let (fs, server) = (BpfFs::mount(), UdpServer::echo(&net.backend, at(7000), ""));
        let _other = UdpServer::recorder(&net.backend, at(7001));
        let mut steering = Steering::start(&net, at(7000), &fs.keys("tc"), "");
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        assert_eq!(client.ask_text(front(), "x"), "x");
        kill(&mut steering);
        let keys = format!("{}\n{keys}", fs.keys("tc"));
        let steering = Steering::start_with(&net, &config(port, at(target), &keys));
        steering.daemon.wait_for(0, "0 of 1 sessions of an earlier daemon go on");
        assert_eq!(steering.kernel_plane()["flows"].as_u64(), Some(0), "{name}");
        server.take();
        client.send(front(), b"to nobody");
        wait::until("the datagram has been seen", || {
            let flows = steering.kernel_plane();
            let counted = |outcome: &str| flows["counters"][outcome].as_u64().unwrap_or(0);
            (counted("no_flow") + counted("banned") + counted("foreign") > 0).then_some(())
        });
        assert!(server.take().is_empty(), "{name}");
    }
}

#[test]
fn one_daemon_holds_a_directory_and_another_hook_replaces_the_first() {
    let Some(net) = with_object() else { return };
    let (fs, _server) = (BpfFs::mount(), UdpServer::echo(&net.backend, at(7000), ""));
    let mut first = Steering::start(&net, at(7000), &fs.keys("xdp-generic"), "");
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    assert_eq!(client.ask_text(front(), "x"), "x");
    let second = Daemon::builder(&config(444, at(7000), &fs.keys("tc")));
    let second = second.allow("another daemon uses it").start(&net.gateway);
    second.wait_for(0, "ebpf.pin: flows will end with this daemon");
    second.stop();

    kill(&mut first);
    let links = |hook: &str| files(&fs.pins()).iter().filter(|name| name.starts_with(&format!("link-{hook}-"))).count();
    assert_eq!((links("xdp-generic"), links("tc")), (2, 0));
    let third = Steering::start(&net, at(7000), &fs.keys("tc"), "");
    third.daemon.wait_for(0, "1 of 1 sessions of an earlier daemon go on");
    assert_eq!((links("xdp-generic"), links("tc")), (0, 2));
    assert_eq!(files(&fs.pins()).iter().filter(|name| name.starts_with("flows")).count(), 1);
    assert_eq!(client.ask_text(front(), "y"), "y");
    assert_eq!(third.session_of(client.address()).0, json!("kernel"));
}
