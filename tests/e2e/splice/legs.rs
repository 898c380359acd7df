//! Legs that are made alike, and ports that are used again.

use std::net::TcpStream;

use rpxy_l4_tests::{admin::Admin, daemon::Daemon, peers::server::Server, socket, topology::Topology};
use serde_json::{Value, json};

use super::mode::Mode;
use crate::support::{admin::Scratch, at, front};

fn exchange(stream: &TcpStream, text: &str) {
    socket::send(stream, text.as_bytes());
    assert_eq!(socket::read_exactly(stream, text.len()), text.as_bytes());
}

struct Rig {
    // Before the hosts, which end what runs on them.
    _daemon: Daemon,
    net: Topology,
    scratch: Scratch,
}

impl Rig {
    fn start(more: &str) -> Option<Self> {
        if !Mode::Spliced.is_there() {
            return None;
        }
        let net = Topology::or_skip()?;
        let scratch = Scratch::new();
        let config = format!(
            "{}tcp_splice = \"first\"\ntcp_target = \"{}\"\n{more}\n[ebpf]\nmode = \"tc\"\ntcp = \"auto\"\n",
            scratch.top("workers = 1\n"),
            at(7000)
        );
        let daemon = Daemon::start(&net.gateway, &config);
        Some(Self { _daemon: daemon, net, scratch })
    }

    fn plane(&self) -> Value {
        let mut status = Admin::connect(&self.scratch.socket()).ask(&json!({ "command": "status" }));
        status.remove(0)["kernel_plane"].take()
    }

    #[track_caller]
    fn wait_for_spliced(&self, number: usize) {
        rpxy_l4_tests::wait::until(&format!("{number} spliced: {}", self.plane()), || {
            (self.plane()["spliced"] == number).then_some(())
        });
    }
}

#[test]
fn a_client_without_timestamps_or_sack_is_spliced_to_a_backend_that_has_them() {
    let Some(rig) = Rig::start("") else { return };
    let _echo = Server::echo(&rig.net.backend, at(7000));
    let mut streams = Vec::new();
    for (name, timestamps, sack) in
        [("neither", "0", "0"), ("no timestamps", "0", "1"), ("no SACK", "1", "0"), ("both", "1", "1")]
    {
        rig.net.client.sysctl("ipv4/tcp_timestamps", timestamps).unwrap();
        rig.net.client.sysctl("ipv4/tcp_sack", sack).unwrap();
        let stream = socket::dial(&rig.net.client, front());
        exchange(&stream, name);
        streams.push(stream);
        rig.wait_for_spliced(streams.len());
        exchange(&streams[streams.len() - 1], &"more".repeat(50_000));
    }
}
