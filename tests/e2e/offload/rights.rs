//! Capabilities that the kernel plane needs, and messages about missing ones.

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::udp::{UdpClient, UdpServer},
    topology::CLIENT_V4,
};

use crate::support::bpf_fs::BpfFs;
use crate::support::steering::tc_hook;
use crate::support::steering::{config, with_object};
use crate::support::{at, front};

#[test]
fn a_missing_capability_is_named_and_datagrams_pass_through_the_daemon() {
    // Port 443 needs a right of its own.
    let rows = [
        ("net_bind_service,bpf,net_admin", "missing CAP_PERFMON;"),
        ("net_bind_service,perfmon,net_admin", "missing CAP_BPF;"),
        ("net_bind_service,bpf,perfmon", "missing CAP_NET_ADMIN;"),
        ("net_bind_service", "missing CAP_BPF and CAP_PERFMON and CAP_NET_ADMIN;"),
    ];
    for (held, said) in rows {
        let Some(net) = with_object() else { return };
        let _server = UdpServer::echo(&net.backend, at(7000), "");
        let builder = Daemon::builder(&config(443, at(7000), "mode = \"auto\"")).capabilities(held);
        let daemon = builder.allow("no kernel plane").start(&net.gateway);
        let line = daemon.wait_for(0, "no kernel plane, all datagrams pass through the daemon");
        assert!(line.contains(said) && line.contains("AmbientCapabilities="), "{held}: {line}");
        assert_eq!(UdpClient::bind(&net.client, (CLIENT_V4, 0)).ask_text(front(), "x"), "x", "{held}");
    }
}

#[test]
fn three_capabilities_are_enough_without_root() {
    for (mode, how) in [("tc", tc_hook()), ("xdp-generic", "xdp-generic")] {
        let Some(net) = with_object() else { return };
        let _server = UdpServer::echo(&net.backend, at(7000), "");
        let builder = Daemon::builder(&config(443, at(7000), &format!("mode = \"{mode}\"")));
        let daemon = builder.capabilities("net_bind_service,bpf,perfmon,net_admin").start(&net.gateway);
        daemon.wait_for(0, &format!("on eth0 ({how}), eth1 ({how})"));
        assert_eq!(UdpClient::bind(&net.client, (CLIENT_V4, 0)).ask_text(front(), "x"), "x", "{mode}");
    }
}

#[test]
fn they_are_enough_to_pin_flows_and_to_inherit_them() {
    for mode in ["tc", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        let (fs, _server) = (BpfFs::mount(), UdpServer::echo(&net.backend, at(7000), ""));
        let start = || {
            let builder = Daemon::builder(&config(443, at(7000), &fs.keys(mode)));
            builder.capabilities("net_bind_service,bpf,perfmon,net_admin").start(&net.gateway)
        };
        let daemon = start();
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        assert_eq!(client.ask_text(front(), "before"), "before", "{mode}");
        daemon.stop();
        assert_eq!(client.ask_text(front(), "without"), "without", "{mode}");
        let daemon = start();
        daemon.wait_for(0, "1 of 1 sessions of an earlier daemon go on");
        assert_eq!(client.ask_text(front(), "after"), "after", "{mode}");
    }
}
