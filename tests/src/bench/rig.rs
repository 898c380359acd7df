//! The rig: three hosts, the backend on one, clients on another, and the gateway where candidates run in turn.

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    bench::candidate::Candidate,
    load::{
        idle,
        sample::Sample,
        serve::{ECHO_PORT, SOURCE_PORT},
    },
    process::{PATIENCE, Process},
    topology::{BACKENDS_V4, GATEWAY_V4, Host, Topology},
    wait::pause,
};

/// First of the candidates' ports in front of the echoes.
const ECHO_FRONT: u16 = 8000;
/// First of the candidates' ports in front of the sources.
const SOURCE_FRONT: u16 = 8100;

/// What the hosts need to open and close many connections without running out of ports. Listening ports are below the
/// range of ephemeral ones.
///
/// Reno is in every kernel and free to choose in every namespace. What a machine has for default may pace, which would
/// measure the pacing.
const SYSCTLS: [(&str, &str); 5] = [
    ("ipv4/ip_local_port_range", "10000 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv4/tcp_max_tw_buckets", "262144"),
    ("ipv4/tcp_max_syn_backlog", "4096"),
    ("ipv4/tcp_congestion_control", "reno"),
];

/// Which of the backend's services a candidate is put in front of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// What comes in goes out again.
    Echo,
    /// An endless stream once asked.
    Source,
}

/// The hosts and the backend. Dropping it ends everything.
#[derive(Debug)]
pub struct Rig {
    // Before the topology, which it runs in: fields drop in order.
    backend: Process,
    topology: Topology,
    executable: PathBuf,
    descriptors: u64,
}

impl Rig {
    /// Builds the hosts and starts the backend.
    ///
    /// # Errors
    ///
    /// Without the rights for network namespaces, and when the backend does not come up.
    pub fn new() -> anyhow::Result<Self> {
        // Children inherit it: candidates, clients and the backend all get as many descriptors as there are.
        let limit = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).context("RLIMIT_NOFILE")?;

        let topology = Topology::new().context("network namespaces (run as root)")?;
        topology.forward()?;
        for host in [&topology.client, &topology.gateway, &topology.backend] {
            for (key, value) in SYSCTLS {
                host.sysctl(key, value)?;
            }
        }
        let executable = std::env::current_exe().context("own executable")?;
        let address = BACKENDS_V4[0];
        let mut command = guarded(&topology.backend, &executable);
        command.args(["serve", &address.to_string(), &Candidate::COUNT.to_string()]);
        let backend = Process::spawn("backend", &mut command)?;
        let rig = Self { backend, topology, executable, descriptors: limit.unwrap_or(1 << 20) };
        rig.until_it_answers(SocketAddrV4::new(address, ECHO_PORT + Candidate::COUNT - 1))
            .with_context(|| rig.backend.transcript())?;
        Ok(rig)
    }

    /// Descriptors that one process may have open.
    pub fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// The host where candidates run.
    pub fn gateway(&self) -> &Host {
        &self.topology.gateway
    }

    /// This program itself, which is also the backend, the client and the reference relay.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Where candidate number `index` listens.
    pub fn front(index: u16, service: Service) -> SocketAddrV4 {
        let first = match service {
            Service::Echo => ECHO_FRONT,
            Service::Source => SOURCE_FRONT,
        };
        SocketAddrV4::new(GATEWAY_V4, first + index)
    }

    /// Where candidate number `index` connects to.
    pub fn back(index: u16, service: Service) -> SocketAddrV4 {
        let first = match service {
            Service::Echo => ECHO_PORT,
            Service::Source => SOURCE_PORT,
        };
        SocketAddrV4::new(BACKENDS_V4[0], first + index)
    }

    /// Waits until a message sent to `target` by the client is answered.
    ///
    /// # Errors
    ///
    /// When that does not happen within [`PATIENCE`].
    pub fn until_it_answers(&self, target: SocketAddrV4) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.topology.client.run(|| {
            loop {
                match idle::answers(target) {
                    Ok(()) => return Ok(()),
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Err(_) => pause(Duration::from_millis(10)),
                }
            }
        })
    }

    /// Runs one workload from the client against `target`, and waits for its outcome.
    ///
    /// # Errors
    ///
    /// When the workload fails; its own words are in the error.
    pub fn drive(
        &self,
        workload: &str,
        target: SocketAddrV4,
        connections: usize,
        window: Duration,
    ) -> anyhow::Result<Sample> {
        let mut client = self.client(workload, target, connections, window)?;
        let status = client.wait_within(window + PATIENCE)?;
        let lines = client.lines();
        if !status.success() {
            bail!("{}", lines.join("\n"));
        }
        Sample::from_json(lines.last().context("no outcome")?)
    }

    /// Opens `connections` idle connections from the client and keeps them until the returned process is dropped.
    ///
    /// # Errors
    ///
    /// When one of them fails.
    pub fn hold(&self, target: SocketAddrV4, connections: usize) -> anyhow::Result<Process> {
        let client = self.client("idle", target, connections, Duration::ZERO)?;
        client.wait_for_line("held")?;
        Ok(client)
    }

    fn client(
        &self,
        workload: &str,
        target: SocketAddrV4,
        connections: usize,
        window: Duration,
    ) -> anyhow::Result<Process> {
        let mut command = guarded(&self.topology.client, &self.executable);
        command.args(["drive", workload, &target.to_string(), &connections.to_string()]);
        command.arg(window.as_millis().to_string());
        Process::spawn("client", &mut command)
    }
}

/// A command on `host` that the kernel kills when this program is killed, so that nothing goes on in the background.
pub fn guarded(host: &Host, program: impl AsRef<Path>) -> Command {
    let mut command = host.command("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program.as_ref());
    command
}
