//! The network of a measurement: the hosts, the servers, the daemon, and the host that sends the flood.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rpxy_l4_tests::{
    admin::Admin,
    checksum,
    offload_mode::OffloadMode,
    owned,
    peers::{
        programs::Certificate,
        quic::{EndpointConfig, QuicServer},
        wireguard::{Implementation, KeyPair, Peer, Tunnel},
    },
    process::Process,
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_V4, Host, Topology},
    wait,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Kind, Plane, Rate, send::NETWORK};
use crate::{load::udp_serve::DATAGRAM_PORT, procfs, rig::guarded};

/// Name of the QUIC server.
pub(super) const NAME: &str = "one.test";
const PORT: u16 = 443;
const QUIC_PORT: u16 = 7001;
const WIREGUARD_PORT: u16 = 7002;
/// Addresses inside the tunnel, of the client and the server.
const INSIDE: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(10, 9, 0, 1));
/// Beyond the longest window.
const FLOOD_PATIENCE: Duration = Duration::from_secs(120);

/// Everything that one measurement runs. Dropping it ends and removes all.
#[derive(Debug)]
pub(super) struct Network {
    // Before the hosts, which they run in: fields drop in order.
    daemon: Process,
    _quic: QuicServer,
    _dns: Process,
    tunnel: Tunnel,
    _far: Tunnel,
    topology: Topology,
    kind: Kind,
    server_key: String,
    certificate: Certificate,
    directory: TempDir,
}

/// Length of a flood.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flood {
    /// Each source once.
    Once,
    /// So long.
    For(Duration),
}

/// A flood under way.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
}

impl Network {
    /// Builds it, with `daemon` as it comes but for `[ebpf]` and the admin socket.
    pub(super) fn new(kind: Kind, plane: Plane, daemon: &Path) -> anyhow::Result<Self> {
        raise_descriptors()?;
        let topology = Topology::new().context("network namespaces (run as root)")?;
        let neighbours = ((&topology.client, "eth0"), (&topology.backend, "eth0"));
        checksum::prepare(neighbours.0, &topology.gateway, neighbours.1, plane.mode())?;
        // Answers to forged sources go back where they came from, and vanish there.
        let (network, length) = NETWORK;
        topology.gateway.ip(&format!("route add {network}/{length} via {CLIENT_V4}"))?;
        topology.client.ip(&format!("route add blackhole {network}/{length}"))?;

        let certificate = Certificate::new(&[NAME]);
        let mut endpoint = EndpointConfig::default();
        endpoint.min_reset_interval(Duration::ZERO);
        let back = BACKENDS_V4[0];
        let quic =
            QuicServer::start_with(&topology.backend, (back, QUIC_PORT), "quic", &certificate, &["h3"], endpoint);
        let executable = std::env::current_exe().context("own executable")?;
        let mut command = guarded(&topology.backend, &executable);
        let dns = Process::spawn("DNS", command.args(["serve", &back.to_string(), "1"]))?;

        let directory = owned::directory();
        let file = directory.path().join("config.toml");
        let table = plane.mode().table().unwrap_or_default();
        let socket = directory.path().join("admin");
        let config = format!("admin_socket = \"{}\"\n{}\n{table}", socket.display(), configuration(kind));
        fs::write(&file, config).with_context(|| file.display().to_string())?;
        let mut command = guarded(&topology.gateway, daemon);
        command.arg("--config").arg(&file).arg("--log-dir").arg(directory.path());
        let daemon = Process::spawn("rpxy-l4", &mut command)?;
        wait::until("the daemon listens", || socket.exists().then_some(()));

        let (near_key, far_key) = (KeyPair::new(), KeyPair::new());
        let peer = |public, inside, endpoint| Peer { public, inside, endpoint };
        let far_peer = peer(&near_key.public, INSIDE.0, None);
        let far = Tunnel::start(Implementation::Go, &topology.backend, WIREGUARD_PORT, &far_key, INSIDE.1, &[far_peer]);
        let near_peer = peer(&far_key.public, INSIDE.1, Some((GATEWAY_V4, PORT).into()));
        let tunnel = Tunnel::start(Implementation::Go, &topology.client, 0, &near_key, INSIDE.0, &[near_peer]);
        let network = Self {
            daemon,
            _quic: quic,
            _dns: dns,
            tunnel,
            _far: far,
            topology,
            kind,
            server_key: far_key.public,
            certificate,
            directory,
        };
        let attached = network.status()["kernel_plane"]["interfaces"].as_array().is_some_and(|list| !list.is_empty());
        ensure!(attached == (plane != Plane::Userspace), "{plane:?}: {}", network.status());
        network.tunnel.wait_for_ping(INSIDE.1);
        Ok(network)
    }

    pub(super) fn client(&self) -> &Host {
        &self.topology.client
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The daemon as clients see it.
    pub(super) fn front(&self) -> SocketAddr {
        (GATEWAY_V4, PORT).into()
    }

    /// The daemon as DNS clients see it; `None` where they are not served, since strays would be.
    pub(super) fn dns(&self) -> Option<SocketAddr> {
        (self.kind == Kind::Junk).then(|| self.front())
    }

    /// Forgets the tunnel, gives the client another port, and returns whether a ping came back within `patience`.
    pub(super) fn tunnel_anew(&self, patience: Duration) -> bool {
        let (server, front) = (self.server_key.as_str(), self.front().to_string());
        self.tunnel.set(&["peer", server, "remove"]);
        self.tunnel.set_port(0);
        self.tunnel.set(&["peer", server, "allowed-ips", &format!("{}/32", INSIDE.1), "endpoint", &front]);
        self.tunnel.pings(INSIDE.1, u32::try_from(patience.as_secs()).unwrap_or(1))
    }

    /// Starts to send from forged sources.
    pub(super) fn flood(&self, rate: Rate, length: Flood) -> anyhow::Result<Running> {
        let executable = std::env::current_exe().context("own executable")?;
        let mut command = guarded(&self.topology.client, &executable);
        let kind = clap::ValueEnum::to_possible_value(&self.kind).context("name of the kind")?;
        let target = SocketAddrV4::new(GATEWAY_V4, PORT);
        command.args(["send", kind.get_name(), &target.to_string()]);
        if let Rate::Steady(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        if let Flood::For(window) = length {
            command.args(["--milliseconds", &window.as_millis().to_string()]);
        }
        Ok(Running { process: Process::spawn("flood", &mut command)? })
    }

    /// Memory of the daemon, in bytes, without the kernel's socket buffers.
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        procfs::memory(self.daemon.pid())
    }

    /// Sessions of the daemon.
    pub(super) fn sessions(&self) -> anyhow::Result<u64> {
        self.status()["udp"]["active"].as_u64().context("sessions")
    }

    /// Datagrams for which there was no room in the queues of the daemon's sockets, so far.
    pub(super) fn lost(&self) -> anyhow::Result<u64> {
        self.status()["udp_kernel_drops"].as_u64().context("kernel drops")
    }

    fn status(&self) -> Value {
        let mut lines = Admin::connect(&self.directory.path().join("admin")).ask(&json!({ "command": "status" }));
        lines.pop().unwrap_or_default()
    }
}

impl Running {
    /// Waits for its end and returns the datagrams that it has sent a second.
    pub(super) fn wait(mut self) -> anyhow::Result<f64> {
        let status = self.process.wait_within(FLOOD_PATIENCE)?;
        ensure!(status.success(), "{}", self.process.transcript());
        let lines = self.process.lines();
        lines.last().context("no outcome")?.parse().context("outcome of the flood")
    }
}

impl Plane {
    pub(super) fn mode(self) -> OffloadMode {
        match self {
            Self::Userspace => OffloadMode::Off,
            Self::Tc => OffloadMode::Tc,
            Self::Xdp => OffloadMode::Xdp,
        }
    }
}

/// The configuration for a kind of flood, without `[ebpf]`. Strays meet one QUIC rule with one target and no default, so
/// that they have a place; junk meets a default.
pub(super) fn configuration(kind: Kind) -> String {
    let back = BACKENDS_V4[0];
    let dns = match kind {
        Kind::Strays => String::new(),
        Kind::Junk => format!("udp_target = [\"{back}:{DATAGRAM_PORT}\"]\n"),
    };
    format!(
        "listen_port = {PORT}\n{dns}\n\
         [protocols.quic]\nprotocol = \"quic\"\nserver_names = [\"{NAME}\"]\ntarget = [\"{back}:{QUIC_PORT}\"]\n\n\
         [protocols.wireguard]\nprotocol = \"wireguard\"\ntarget = [\"{back}:{WIREGUARD_PORT}\"]\n"
    )
}

/// Gives this process and what it starts as many descriptors as there are: the daemon's limit follows from them.
pub(super) fn raise_descriptors() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).context("RLIMIT_NOFILE")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flood::send::SOURCES;

    #[test]
    fn all_sources_are_in_their_network() {
        assert!(SOURCES < 1 << (32 - NETWORK.1));
    }
}
