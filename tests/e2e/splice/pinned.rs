//! Spliced connections that outlive their daemon, and what a later one does with them.

use std::net::TcpStream;

use rpxy_l4_tests::{
    admin::Admin,
    daemon::Daemon,
    peers::server::Server,
    socket::{self, End},
    topology::Topology,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::mode::Mode;
use crate::support::{admin::Scratch, at, bpf_fs::BpfFs, front};

fn exchange(stream: &TcpStream, text: &str) {
    socket::send(stream, text.as_bytes());
    assert_eq!(socket::read_exactly(stream, text.len()), text.as_bytes());
}

fn plane(scratch: &Scratch) -> Value {
    let mut status = Admin::connect(&scratch.socket()).ask(&json!({ "command": "status" }));
    status.remove(0)["kernel_plane"].take()
}

#[track_caller]
fn wait_for_spliced(scratch: &Scratch, number: u64) {
    rpxy_l4_tests::wait::until(&format!("{number} spliced"), || (plane(scratch)["spliced"] == number).then_some(()));
}

/// A gateway with pins of its own.
struct Rig {
    // Before the hosts, which end what runs on them.
    daemon: Daemon,
    net: Topology,
    scratch: Scratch,
    config: String,
    _fs: BpfFs,
}

impl Rig {
    fn start(more: &str) -> Option<Self> {
        if !Mode::Spliced.is_there() {
            return None;
        }
        let net = Topology::or_skip()?;
        let (scratch, fs) = (Scratch::new(), BpfFs::mount());
        let config = format!(
            "{}tcp_splice = \"first\"\ntcp_target = \"{}\"\n{more}\n[ebpf]\ntcp = \"auto\"\n{}\n",
            scratch.top("workers = 2\n"),
            at(7000),
            fs.keys("tc")
        );
        let daemon = Daemon::start(&net.gateway, &config);
        Some(Self { daemon, net, scratch, config, _fs: fs })
    }

    fn start_again(&mut self) {
        self.daemon = Daemon::start(&self.net.gateway, &self.config);
    }
}

#[test]
fn spliced_connections_survive_a_killed_daemon_and_the_next_one_has_them() {
    let Some(mut rig) = Rig::start("") else { return };
    let echo = Server::echo(&rig.net.backend, at(7000));
    let streams = [(); 3].map(|()| socket::dial(&rig.net.client, front()));
    for stream in &streams {
        exchange(stream, "first");
    }
    wait_for_spliced(&rig.scratch, 3);
    rig.daemon.process().signal(Signal::KILL).unwrap();
    rig.daemon.wait();
    for stream in &streams {
        exchange(stream, &"without a daemon".repeat(5_000));
    }
    rig.start_again();
    wait_for_spliced(&rig.scratch, 3);
    for stream in &streams {
        exchange(stream, "with the next one");
    }
    let [ends, ..] = &streams;
    socket::finish(ends);
    assert_eq!(socket::read_to_end(ends), (Vec::new(), End::Closed));
    echo.wait_for_open(2);
    exchange(&streams[1], "still");
    let new = socket::dial(&rig.net.client, front());
    exchange(&new, "another one");
    wait_for_spliced(&rig.scratch, 4);
}

#[test]
fn a_daemon_that_is_stopped_leaves_them_too() {
    let Some(mut rig) = Rig::start("drain_timeout = 0\n") else { return };
    let echo = Server::echo(&rig.net.backend, at(7000));
    let stream = socket::dial(&rig.net.client, front());
    exchange(&stream, "first");
    wait_for_spliced(&rig.scratch, 1);
    rig.daemon.process().signal(Signal::TERM).unwrap();
    rig.daemon.wait();
    exchange(&stream, "between two daemons");
    rig.start_again();
    wait_for_spliced(&rig.scratch, 1);
    exchange(&stream, "after");
    echo.wait_for_open(1);
}
