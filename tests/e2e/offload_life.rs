//! Flows in the kernel from their first answer to their end.

use std::net::SocketAddr;

use rpxy_l4_tests::{
    admin::Admin,
    daemon::Daemon,
    peers::{
        programs::{self, curl},
        udp::{UdpClient, UdpServer},
    },
    topology::{CLIENT_V4, Topology},
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{at, front};
use crate::offload_attach::{config, with_object};

/// A daemon with a kernel plane that can be asked.
struct Steering {
    daemon: Daemon,
    place: TempDir,
}

impl Steering {
    /// Starts one with `keys` in its table `[ebpf]` and `top` at the top of its file.
    fn start(net: &Topology, target: SocketAddr, keys: &str, top: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("admin").display().to_string();
        let config = format!("admin_socket = \"{socket}\"\n{top}\n{}", config(443, target, keys));
        Self { daemon: Daemon::start(&net.gateway, &config), place }
    }

    fn admin(&self) -> Admin {
        Admin::connect(&self.place.path().join("admin"))
    }

    /// What `status` tells of the kernel plane.
    fn plane(&self) -> Value {
        self.admin().ask(&json!({ "command": "status" })).remove(0)["kernel_plane"].clone()
    }

    /// How often a packet had `outcome`.
    fn counted(&self, outcome: &str) -> u64 {
        self.plane()["counters"][outcome].as_u64().unwrap_or(0)
    }
}

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
        for n in 0..20 {
            assert_eq!(client.ask_text(front(), &n.to_string()), n.to_string(), "{mode}");
        }
        let plane = steering.plane();
        assert_eq!((plane["flows"].as_u64(), plane["max_flows"].as_u64()), (Some(1), Some(7)), "{mode}: {plane}");
        let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9901/metrics"));
        assert!(text.lines().any(|line| line == "rpxy_l4_kernel_flows 1"), "{mode}:\n{text}");
        let steered = text.lines().find_map(|line| {
            line.strip_prefix("rpxy_l4_kernel_packets_total{action=\"steer\",outcome=\"steered\"} ")?
                .parse::<u64>()
                .ok()
        });
        assert!(steered.is_some_and(|count| count >= 19), "{mode}: {steered:?}");
        assert_eq!(steering.counted("steered"), steered.unwrap(), "{mode}");
    }
}
