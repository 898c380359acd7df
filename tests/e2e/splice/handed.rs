//! Connections that are handed to the kernel: what both ends see of it, and what an operator does.

use std::net::{SocketAddr, TcpStream};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{Daemon, Edit},
    peers::server::{Recorder, Server},
    socket::{self, End},
    topology::{GATEWAY_V4, GATEWAY_V6, Topology},
};
use serde_json::{Value, json};

use super::mode::Mode;
use crate::support::{PORT, admin::Scratch, at, at_v6, front, rule};

/// A daemon that hands connections over, with an admin socket and the access log as JSON.
struct Rig {
    // Before the hosts, which end what runs on them.
    daemon: Daemon,
    net: Topology,
    scratch: Scratch,
}

impl Rig {
    /// `None` where there is no root, or the daemon cannot hand over.
    fn start(policy: &str, more: &str) -> Option<Self> {
        if !Mode::Spliced.is_there() {
            return None;
        }
        let net = Topology::or_skip()?;
        let scratch = Scratch::new();
        let config = config(&scratch, policy, more);
        let daemon = Daemon::start(&net.gateway, &config);
        Some(Self { scratch, net, daemon })
    }

    /// What the operator is told of the connection from a client, once the kernel has it.
    #[track_caller]
    fn spliced(&self, stream: &TcpStream) -> Value {
        self.listed(stream, "kernel")
    }

    #[track_caller]
    fn listed(&self, stream: &TcpStream, plane: &str) -> Value {
        let client = stream.local_addr().unwrap().to_string();
        rpxy_l4_tests::wait::until(&format!("{client} is in the {plane} plane"), || {
            let lines = Admin::connect(&self.scratch.socket()).ask(&json!({ "command": "connections" }));
            lines.into_iter().find(|line| line["client"] == client.as_str() && line["plane"] == plane)
        })
    }

    /// The line of the access log about the end of a client's connection.
    fn finished(&self, client: SocketAddr) -> Value {
        let of_it = |line: &str| line.contains("\"finish\"") && line.contains(&client.to_string());
        let line = self.daemon.process().wait_for(0, "its end", of_it).unwrap();
        serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap()
    }
}

fn config(scratch: &Scratch, policy: &str, more: &str) -> String {
    format!(
        "{}tcp_splice = \"{policy}\"\ntcp_target = \"{}\"\n{more}\n\
         [listeners.v6]\nlisten_port = 8446\nlisten_ipv6 = true\ntcp_target = \"{}\"\n\
         [ebpf]\nmode = \"tc\"\ntcp = \"auto\"\n",
        scratch.top("access_log_format = \"json\"\nworkers = 2\n"),
        at(7000),
        at_v6(7000),
    )
}

fn exchange(stream: &TcpStream, text: &str) {
    socket::send(stream, text.as_bytes());
    assert_eq!(socket::read_exactly(stream, text.len()), text.as_bytes());
}

#[test]
fn the_first_bytes_of_a_client_are_enough_over_either_family() {
    let Some(rig) = Rig::start("first", "") else { return };
    let _v4 = Server::echo(&rig.net.backend, at(7000));
    let _v6 = Server::echo(&rig.net.backend, at_v6(7000));
    for front in [SocketAddr::from((GATEWAY_V4, PORT)), (GATEWAY_V6, 8446).into()] {
        let stream = socket::dial(&rig.net.client, front);
        let client = stream.local_addr().unwrap();
        exchange(&stream, "the first bytes");
        let line = rig.spliced(&stream);
        assert_eq!((&line["stage"], &line["bytes_up"]), (&json!("open"), &json!(15)), "{line}");
        for turn in 0..20 {
            exchange(&stream, &format!("turn {turn}"));
        }
        exchange(&stream, &"bulk".repeat(100_000));
        socket::finish(&stream);
        assert_eq!(socket::read_to_end(&stream), (Vec::new(), End::Closed));
        let finished = rig.finished(client);
        let bytes = 15 + 20 * 6 + 10 + 400_000;
        assert_eq!((&finished["plane"], &finished["reason"]), (&json!("kernel"), &json!("closed")), "{finished}");
        assert!(
            finished["bytes_up"].as_u64() >= Some(bytes) && finished["bytes_down"].as_u64() >= Some(bytes),
            "{finished}"
        );
    }
}

#[test]
fn a_connection_that_goes_on_is_handed_over_at_a_request() {
    let Some(rig) = Rig::start("auto", "") else { return };
    let _echo = Server::echo(&rig.net.backend, at(7000));
    let stream = socket::dial(&rig.net.client, front());
    exchange(&stream, "one");
    rig.listed(&stream, "userspace");
    for turn in 0..8 {
        exchange(&stream, &format!("turn {turn}"));
    }
    rig.spliced(&stream);
    exchange(&stream, "and on");
}

#[test]
fn a_connection_that_is_idle_is_handed_over_in_time() {
    let Some(rig) = Rig::start("auto", "") else { return };
    let _greeting = Server::start(&rig.net.backend, at(7000), |stream, _| {
        socket::send(stream, b"who speaks first");
        exchange(stream, "and then listens");
    });
    let stream = socket::dial(&rig.net.client, front());
    assert_eq!(socket::read_exactly(&stream, 16), b"who speaks first");
    rig.spliced(&stream);
    assert_eq!(socket::read_exactly(&stream, 16), b"and then listens");
    socket::send(&stream, b"and then listens");
    assert_eq!(socket::read_to_end(&stream).1, End::Closed);
}

#[test]
fn each_side_ends_by_itself() {
    let Some(rig) = Rig::start("first", "") else { return };
    let recorder = Recorder::start(&rig.net.backend, at(7000));
    let stream = socket::dial(&rig.net.client, front());
    socket::send(&stream, b"first");
    rig.spliced(&stream);
    socket::send(&stream, &[7; 100_000]);
    socket::finish(&stream);
    let record = recorder.next();
    assert_eq!((record.bytes.len(), record.end), (100_005, End::Closed));
}

#[test]
fn an_operator_closes_a_spliced_connection_at_both_ends() {
    let Some(rig) = Rig::start("first", "") else { return };
    let echo = Server::echo(&rig.net.backend, at(7000));
    let [stream, other] = [(); 2].map(|()| socket::dial(&rig.net.client, front()));
    for stream in [&stream, &other] {
        exchange(stream, "first");
    }
    let line = rig.spliced(&stream);
    rig.spliced(&other);
    let done = Admin::connect(&rig.scratch.socket()).ask(&json!({ "command": "close", "id": line["id"] }));
    assert_eq!(done, [json!({ "id": line["id"], "closed": true })]);
    assert_eq!(socket::read_to_end(&stream).1, End::Reset);
    echo.wait_for_open(1);
    exchange(&other, "goes on");
    let finished = rig.finished(stream.local_addr().unwrap());
    assert_eq!((&finished["reason"], &finished["plane"]), (&json!("admin"), &json!("kernel")));
}

#[test]
fn the_end_of_the_daemon_resets_what_it_has_spliced() {
    let Some(rig) = Rig::start("first", "drain_timeout = 0\n") else { return };
    let echo = Server::echo(&rig.net.backend, at(7000));
    let stream = socket::dial(&rig.net.client, front());
    exchange(&stream, "first");
    rig.spliced(&stream);
    let Rig { daemon, net: _net, .. } = rig;
    daemon.stop();
    assert_eq!(socket::read_to_end(&stream).1, End::Reset);
    echo.wait_for_open(0);
}

#[test]
fn a_rule_that_says_no_stays_relayed_beside_one_that_does_not() {
    let Some(mut rig) = Rig::start("first", "") else { return };
    let http = rule("http", "http", at(7000), "splice = \"off\"");
    rig.daemon.reload(Edit::InPlace, &(config(&rig.scratch, "first", "") + &http));
    let _echo = Server::echo(&rig.net.backend, at(7000));
    let [plain, http] = [(); 2].map(|()| socket::dial(&rig.net.client, front()));
    exchange(&http, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    exchange(&plain, "\x01\x02something else");
    rig.spliced(&plain);
    for _ in 0..10 {
        exchange(&http, "more");
    }
    rig.listed(&http, "userspace");
}
