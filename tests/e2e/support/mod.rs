//! Addresses and small moves that most tests share.

pub(crate) mod admin;
pub(crate) mod bpf_fs;
pub(crate) mod steering;
pub(crate) mod targets;

use std::{fs, net::SocketAddr};

pub(crate) use rpxy_l4_tests::topology::{at, at_v6};
use rpxy_l4_tests::{
    daemon, owned,
    peers::dns::DnsServer,
    socket,
    topology::{BACKENDS_V4, GATEWAY_V4, GATEWAY_V6, Topology},
};

/// Port of the daemon in most tests.
pub(crate) const PORT: u16 = 443;

/// The daemon as the client sees it.
pub(crate) fn front() -> SocketAddr {
    SocketAddr::from((GATEWAY_V4, PORT))
}

/// The daemon as the client sees it, in IPv6.
pub(crate) fn front_v6() -> SocketAddr {
    SocketAddr::from((GATEWAY_V6, PORT))
}

/// A DNS server on the backend's host, which the gateway asks.
#[track_caller]
pub(crate) fn dns(net: &Topology) -> DnsServer {
    let [address, ..] = BACKENDS_V4;
    let server = DnsServer::start(&net.backend, address);
    let resolv = format!("nameserver {address}\noptions timeout:5 attempts:1\n");
    fs::write(net.gateway.etc().join("resolv.conf"), resolv).unwrap();
    server
}

/// Sends `first` through the daemon and returns the tag of the server that it reaches, or nothing when the daemon
/// closes the connection.
#[track_caller]
pub(crate) fn reached_by(net: &Topology, first: &[u8]) -> Option<String> {
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, first);
    socket::read_line(&stream)
}

/// A configuration with `keys` at its top whose default UDP destination is `target`.
pub(crate) fn udp_to(target: SocketAddr, keys: &str) -> String {
    format!("listen_port = {PORT}\n{keys}\nudp_target = [\"{target}\"]\n")
}

/// Has the daemon check `config`, down to its warnings.
#[track_caller]
pub(crate) fn strictly_valid(net: &Topology, config: String) -> String {
    let directory = owned::directory();
    let file = directory.path().join("config.toml");
    fs::write(&file, &config).unwrap();
    let arguments = ["--check", "--strict", "--config", &file.display().to_string()];
    let (status, lines) = daemon::run_to_end(&net.gateway, &arguments);
    assert!(status.success(), "{lines:#?}");
    config
}

/// An HTTP/1.1 request for `host`.
pub(crate) fn http_request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test\r\n\r\n").into_bytes()
}

/// A TOML table of a rule, with `keys` after protocol and target.
pub(crate) fn rule(name: &str, protocol: &str, target: SocketAddr, keys: &str) -> String {
    format!("\n[protocols.\"{name}\"]\nprotocol = \"{protocol}\"\ntarget = [\"{target}\"]\n{keys}\n")
}
