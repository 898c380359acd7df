//! Very many flows at once.

use std::net::{SocketAddr, UdpSocket};

use rpxy_l4_tests::{
    daemon::Edit,
    peers::udp::UdpServer,
    process::PATIENCE,
    topology::{Topology, client_pool},
    wait,
};
use rustix::process::{Resource, getrlimit};

use crate::support::{
    at, front,
    steering::{Steering, config, with_object},
};

const FLOWS: u16 = 20_000;
/// Open files of a daemon beside those of its sessions.
const OTHER_FILES: u64 = 400;
const FIRST_PORT: u16 = 10_000;
/// Clients that wait for their answers at the same time, fewer than the smallest socket buffer holds.
const AT_ONCE: u16 = 100;

/// Client number `n`: a hundred ports of each address would do, but so it is more like a large NAT.
fn client(n: u16) -> SocketAddr {
    (client_pool((n / 5_000).try_into().unwrap()), FIRST_PORT + n % 5_000).into()
}

/// One question and its answer from each of some clients; those that a busy machine loses are asked again.
fn ask(clients: impl Iterator<Item = u16>) {
    let mut sockets: Vec<_> = clients.map(|n| UdpSocket::bind(client(n)).unwrap()).collect();
    let mut tries = 0;
    while !sockets.is_empty() {
        assert!(tries < 30, "{} clients get no answer", sockets.len());
        tries += 1;
        for socket in &sockets {
            socket.send_to(b"question", front()).unwrap();
        }
        sockets.retain(|socket| {
            socket.set_read_timeout(Some(PATIENCE / 30)).unwrap();
            socket.recv(&mut [0; 16]).is_err()
        });
    }
}

fn ask_all(net: &Topology, flows: u16) {
    let round = |first: u16| ask(first..flows.min(first + AT_ONCE));
    net.client.run(|| (0..flows).step_by(AT_ONCE.into()).for_each(round));
}

/// Returns the number of flows: each takes a socket of the daemon, whose limit only the privileged raise.
fn flows() -> u16 {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES);
    u16::try_from(most).map_or(FLOWS, |most| most.min(FLOWS))
}

#[test]
fn twenty_thousand_flows_are_installed_steered_and_expired() {
    let Some(net) = with_object() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let flows = flows();
    let top = |lifetime: &str| {
        let most = format!("tcp_max_connections = 1\nudp_max_connections = {flows}");
        format!("{most}\nudp_idle_lifetime = \"{lifetime}\"\naccess_log_format = \"off\"")
    };
    let keys = format!("mode = \"tc\"\nmax_flows = {flows}");
    let mut steering = Steering::start(&net, at(7000), &keys, &top("600s"));
    ask_all(&net, flows);
    let installed = || steering.kernel_plane()["flows"].as_u64() == Some(flows.into());
    wait::until("all are installed", || installed().then_some(()));
    let before = steering.counted("steered");
    ask_all(&net, flows);
    let steered = steering.counted("steered") - before;
    assert!(steered >= 2 * u64::from(flows), "{steered}");

    // A reload writes them all anew; then none of them is used.
    let socket = steering.socket();
    let shorter = format!("admin_socket = \"{socket}\"\n{}\n{}", top("1s"), config(443, at(7000), &keys));
    steering.daemon.reload(Edit::Rename, &shorter);
    wait::until("all have expired", || (steering.kernel_plane()["flows"].as_u64() == Some(0)).then_some(()));
    ask_all(&net, flows);
}
