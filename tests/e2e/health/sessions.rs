//! What becomes of connections and sessions when their target goes down.

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    peers::{
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket::{self, End},
    topology::{BACKENDS_V4, CLIENT_V4, Topology, at},
};

use crate::support::{PORT, front};

rpxy_l4_tests::offload_modes! {
    Steered {
        sessions_of_a_target_that_went_down_end_and_their_clients_go_on_elsewhere,
        sessions_go_on_where_nothing_is_said_of_their_end,
    }
}

/// Two targets at port 7000, asked at port 7001.
fn config(transport: &str, close: bool) -> String {
    let [first, second, _] = BACKENDS_V4;
    format!(
        "listen_port = {PORT}\naccess_log_format = \"json\"\n{transport}_target = [\"{first}:7000\", \"{second}:7000\"]\n\
         {transport}_health = \"alive\"\n[health.\"alive\"]\nkind = \"connect\"\nport = 7001\ninterval = \"100ms\"\n\
         close = {close}\n"
    )
}

#[test]
fn connections_to_a_target_that_went_down_end_and_others_do_not() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let _echoes = [first, second].map(|ip| Server::echo(&net.backend, (ip, 7000)));
    let alive = [first, second].map(|ip| Server::tagged(&net.backend, (ip, 7001), "alive"));
    let mut daemon = Daemon::builder(&config("tcp", true)).allow(": down, check").start(&net.gateway);
    let [asked_first, asked_second] = alive;
    asked_first.wait_for_accepted(1);
    asked_second.wait_for_accepted(1);
    let connect = |expected: &str| {
        let mark = daemon.process().mark();
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, b"hello");
        assert_eq!(socket::read_exactly(&stream, 5), b"hello");
        daemon.wait_for(mark, &format!("\"dst\":\"{expected}\""));
        stream
    };
    let client = connect("198.51.100.10:7000");
    drop(asked_first);
    let (_, end) = socket::read_to_end(&client);
    assert_eq!(end, End::Reset, "a stream that was cut off must not look complete");
    daemon.wait_for(0, "\"reason\":\"target_down\"");

    // What is down is tried last, and a connection that begins meanwhile is not ended for that.
    let other = connect("198.51.100.11:7000");
    drop(asked_second);
    let (_, end) = socket::read_to_end(&other);
    assert_eq!(end, End::Reset);
    let late = connect("198.51.100.10:7000");
    let asked = Server::tagged(&net.backend, (first, 7001), "alive");
    daemon.wait_for(0, "198.51.100.10:7000: up again");
    // It outlives a reload that it falls after.
    daemon.reload(Edit::Rename, &config("tcp", true).replace("100ms", "110ms"));
    socket::send(&late, b"again");
    assert_eq!(socket::read_exactly(&late, 5), b"again");
    drop(asked);
    let (_, end) = socket::read_to_end(&late);
    assert_eq!(end, End::Reset);
    daemon.allow(": down, check");
}

fn client(net: &Topology) -> UdpClient {
    UdpClient::bind(&net.client, (CLIENT_V4, 0))
}

/// UDP servers at both targets, and what answers for them.
fn peers(net: &Topology) -> ([UdpServer; 2], [Server; 2]) {
    let [first, second, _] = BACKENDS_V4;
    let targets = [(first, "one:"), (second, "two:")].map(|(ip, tag)| UdpServer::echo(&net.backend, (ip, 7000), tag));
    (targets, [first, second].map(|ip| Server::tagged(&net.backend, (ip, 7001), "alive")))
}

fn sessions_of_a_target_that_went_down_end_and_their_clients_go_on_elsewhere() {
    let Some(net) = Topology::or_skip() else { return };
    let (_targets, [asked, other]) = peers(&net);
    let daemon = Daemon::builder(&config("udp", true)).allow(": down, check").start(&net.gateway);
    asked.wait_for_accepted(1);
    other.wait_for_accepted(1);
    let client = client(&net);
    for text in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert_eq!(client.ask_text(front(), text), format!("one:{text}"));
    }
    drop(asked);
    let line = daemon.wait_for(0, "\"reason\":\"target_down\"");
    assert!(line.contains(&format!("\"dst\":\"{}\"", at(7000))), "{line}");
    for text in ["i", "j", "k", "l"] {
        assert_eq!(client.ask_text(front(), text), format!("two:{text}"));
    }
    assert_eq!(daemon.lines_with("\"target_down\"").len(), 1);
}

fn sessions_go_on_where_nothing_is_said_of_their_end() {
    let Some(net) = Topology::or_skip() else { return };
    let (_targets, [asked, _other]) = peers(&net);
    let daemon = Daemon::builder(&config("udp", false)).allow(": down, check").start(&net.gateway);
    asked.wait_for_accepted(1);
    let old = client(&net);
    for text in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(old.ask_text(front(), text), format!("one:{text}"));
    }
    drop(asked);
    daemon.wait_for(0, ": down, check");
    assert_eq!(client(&net).ask_text(front(), "x"), "two:x", "a new client");
    for text in ["g", "h", "i"] {
        assert_eq!(old.ask_text(front(), text), format!("one:{text}"), "one that was there");
    }
}
