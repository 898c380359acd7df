//! Local addresses and ports of connections to backends: where they come from, and what happens when they run out.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, TcpStream},
};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::server::Server,
    socket,
    topology::{BACKENDS_V4, GATEWAY_INSIDE_V4, Topology},
};

use crate::support::{PORT, at, front, rule};

rpxy_l4_tests::splice_modes! {
    Steered {
        when_the_ports_towards_one_backend_run_out_others_are_reached_all_the_same,
        connections_come_from_all_source_addresses_of_the_family,
    }
}

/// A second address of the gateway towards the backends.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Ports that connections may come from.
const PORTS: usize = 20;

fn few_ports(net: &Topology) {
    net.gateway.sysctl("ipv4/ip_local_port_range", "40000 40019").unwrap();
}

/// Connects and asks for the tag; the stream is kept open.
#[track_caller]
fn hold(net: &Topology, first: &[u8]) -> (TcpStream, Option<String>) {
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, first);
    let tag = socket::read_line(&stream);
    (stream, tag)
}

fn when_the_ports_towards_one_backend_run_out_others_are_reached_all_the_same() {
    let Some(net) = Topology::or_skip() else { return };
    few_ports(&net);
    let other = (BACKENDS_V4[1], 7000);
    let servers = [Server::tagged(&net.backend, at(7000), "one"), Server::tagged(&net.backend, other, "two")];
    let config = format!("listen_port = {PORT}\ntcp_max_connections_per_source = 0\ntcp_target = [\"{}\"]\n", at(7000))
        + &rule("ssh", "ssh", other.into(), "");
    let daemon = Daemon::builder(&config).allow("no local port or address").start(&net.gateway);
    let held: Vec<_> = (0..PORTS + 5).map(|_| hold(&net, b"x")).collect();
    assert_eq!(held.iter().filter(|(_, tag)| tag.is_some()).count(), PORTS);
    let said = daemon.lines_with("no local port or address to reach 198.51.100.10:7000");
    assert!(said.len() == 1 && said[0].contains("tcp_source_addresses"), "{said:?}");
    for _ in 0..5 {
        assert_eq!(hold(&net, b"SSH-2.0-a\r\n").1.as_deref(), Some("two"));
    }
    drop(held);
    servers[0].wait_for_open(0);
}

fn connections_come_from_all_source_addresses_of_the_family() {
    let Some(net) = Topology::or_skip() else { return };
    few_ports(&net);
    net.gateway.ip(&format!("addr add {SECOND}/24 dev eth1")).unwrap();
    let server = Server::start(&net.backend, at(7000), |mut stream, peer| {
        if stream.write_all(format!("{}\n", peer.ip()).as_bytes()).is_ok() {
            let _ended = io::copy(&mut stream, &mut io::sink());
        }
    });
    let config = format!(
        "listen_port = {PORT}\ntcp_source_addresses = [\"{GATEWAY_INSIDE_V4}\", \"{SECOND}\", \"192.0.2.77\"]\n\
         tcp_target = [\"{}\"]\n",
        at(7000)
    );
    let daemon = Daemon::builder(&config).allow("this machine does not have 192.0.2.77").start(&net.gateway);
    let held: Vec<_> = (0..2 * PORTS).map(|_| hold(&net, b"x")).collect();
    for source in [GATEWAY_INSIDE_V4, SECOND] {
        let from = held.iter().filter(|(_, tag)| tag.as_deref() == Some(&source.to_string())).count();
        assert_eq!(from, PORTS, "{source}: each address has all ports");
    }
    drop((held, daemon));
    server.wait_for_open(0);
}
