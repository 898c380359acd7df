//! Legs that are made alike, ports that are used again, and limits.

use std::net::{SocketAddr, TcpStream};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::Daemon,
    peers::server::Server,
    process::PATIENCE,
    socket::{self, End},
    topology::{CLIENT_V4, Topology},
};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

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
        Self::with(more, "")
    }

    fn with(more: &str, ebpf: &str) -> Option<Self> {
        if !Mode::Spliced.is_there() {
            return None;
        }
        let net = Topology::or_skip()?;
        let scratch = Scratch::new();
        let config = format!(
            "{}tcp_splice = \"first\"\ntcp_target = \"{}\"\n{more}\n[ebpf]\nmode = \"tc\"\ntcp = \"auto\"\n{ebpf}\n",
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

/// Connects from this port of the client's host.
fn dial_from_port(net: &Topology, port: u16) -> TcpStream {
    let stream = net.client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((CLIENT_V4, port)).into()).unwrap();
        socket.connect_timeout(&front().into(), PATIENCE).unwrap();
        TcpStream::from(socket)
    });
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_client_may_use_its_port_again_at_once() {
    let Some(rig) = Rig::start("") else { return };
    // The backend ends first, so that its host waits instead of the client's.
    let _server = Server::start(&rig.net.backend, at(7000), |stream, _| {
        assert_eq!(socket::read_exactly(stream, 5), b"hello");
        socket::send(stream, b"hello");
        socket::finish(stream);
        socket::read_to_end(stream);
    });
    for turn in 0..4 {
        let stream = dial_from_port(&rig.net, 40_001);
        exchange(&stream, "hello");
        assert_eq!(socket::read_to_end(&stream), (Vec::new(), End::Closed), "{turn}");
        socket::finish(&stream);
        // Told to have ended, while its entries are there still.
        rpxy_l4_tests::wait::until(&format!("{turn}: the end is known"), || {
            let lines = Admin::connect(&rig.scratch.socket()).ask(&json!({ "command": "connections" }));
            lines.iter().all(|line| line.get("client").is_none()).then_some(())
        });
    }
    let counters = rig.plane()["tcp_counters"].take();
    assert!(counters["new_connection"].as_u64() >= Some(3), "{counters}");
}

#[test]
fn both_ends_are_reset_when_nothing_was_heard_of_either() {
    let Some(rig) = Rig::start("tcp_idle_timeout = \"1s\"") else { return };
    let echo = Server::echo(&rig.net.backend, at(7000));
    let stream = socket::dial(&rig.net.client, front());
    exchange(&stream, "first");
    rig.wait_for_spliced(1);
    exchange(&stream, "second");
    assert_eq!(socket::read_to_end(&stream).1, End::Reset);
    echo.wait_for_open(0);
    rig.wait_for_spliced(0);
}

/// Waits until the other side has reset what may have ended in one direction before.
#[track_caller]
fn wait_for_reset(stream: &TcpStream) {
    rpxy_l4_tests::wait::until("it is reset", || stream.take_error().unwrap());
}

#[test]
fn both_ends_are_reset_when_one_has_ended_and_the_other_is_silent() {
    for (row, key, last) in [
        ("the client has ended", "tcp_half_closed_timeout", b"wait"),
        ("the backend has ended", "tcp_backend_closed_timeout", b"ends"),
    ] {
        let Some(rig) = Rig::start(&format!("{key} = \"1s\"")) else { return };
        let server = Server::start(&rig.net.backend, at(7000), |stream, _| {
            let words = [(); 2].map(|()| {
                let word = socket::read_exactly(stream, 4);
                socket::send(stream, &word);
                word
            });
            if words[1] == b"ends" {
                socket::finish(stream);
                assert_eq!(socket::read_to_end(stream).1, End::Reset);
            } else {
                assert_eq!(socket::read_to_end(stream).1, End::Closed);
                wait_for_reset(stream);
            }
        });
        let stream = socket::dial(&rig.net.client, front());
        exchange(&stream, "some");
        rig.wait_for_spliced(1);
        exchange(&stream, std::str::from_utf8(last).unwrap());
        if last == b"ends" {
            assert_eq!(socket::read_to_end(&stream).1, End::Closed, "{row}");
            wait_for_reset(&stream);
        } else {
            socket::finish(&stream);
            assert_eq!(socket::read_to_end(&stream).1, End::Reset, "{row}");
        }
        server.wait_for_open(0);
        rig.wait_for_spliced(0);
    }
}

#[test]
fn more_than_there_are_places_for_stay_relayed() {
    let Some(rig) = Rig::with("", "max_spliced = 2") else { return };
    let _echo = Server::echo(&rig.net.backend, at(7000));
    let streams = [(); 4].map(|()| {
        let stream = socket::dial(&rig.net.client, front());
        exchange(&stream, "first");
        stream
    });
    rig.wait_for_spliced(2);
    for stream in &streams {
        exchange(stream, &"on".repeat(100_000));
    }
    assert_eq!(rig.plane()["spliced"], 2);
}

#[test]
fn connections_that_have_ended_make_room() {
    let Some(rig) = Rig::with("", "max_spliced = 2") else { return };
    let _echo = Server::echo(&rig.net.backend, at(7000));
    for turn in 0..6 {
        let stream = socket::dial(&rig.net.client, front());
        exchange(&stream, "first");
        rig.wait_for_spliced(1);
        exchange(&stream, "second");
        socket::finish(&stream);
        assert_eq!(socket::read_to_end(&stream).1, End::Closed, "{turn}");
        rig.wait_for_spliced(0);
    }
}

#[test]
fn connections_go_on_when_an_interface_comes_back() {
    let Some(rig) = Rig::start("") else { return };
    let _echo = Server::echo(&rig.net.backend, at(7000));
    let stream = socket::dial(&rig.net.client, front());
    exchange(&stream, "first");
    rig.wait_for_spliced(1);
    rig.net.gateway.ip("link set eth1 down").unwrap();
    socket::send(&stream, b"while there is no way");
    rig.net.gateway.ip("link set eth1 up").unwrap();
    assert_eq!(socket::read_exactly(&stream, 21), b"while there is no way");
    exchange(&stream, "and on");
    assert_eq!(rig.plane()["spliced"], 1);
}
