//! The rig: three hosts, the backend on one, clients on another, and the gateway where candidates run in turn.

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rpxy_l4_tests::{
    process::{PATIENCE, Process},
    topology::{BACKENDS_V4, GATEWAY_V4, Host, Topology},
    wait::pause,
    wire::Weather,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    candidate::Candidate,
    far::Far,
    load::{
        idle,
        sample::Sample,
        serve::{ECHO_PORT, SINK_PORT, SIZED_PORT, SOURCE_PORT, UNTUNED_PORT},
        udp_client,
        udp_serve::{DATAGRAM_PORT, SEGMENT_PORT},
    },
    processor::OneProcessor,
    settings::Settings,
};

/// From a port of the backend to the candidates' ports in front of it.
const FRONT: u16 = 1000;

/// Additional time of a load for each connection or flow that it prepares.
const PREPARATION: Duration = Duration::from_millis(1);

/// A service of the backend, in front of which a candidate is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// An echo over TCP.
    Echo,
    /// As [`Service::Echo`], on ports of its own.
    Untuned,
    /// An endless stream over TCP once asked.
    Source,
    /// As many bytes over TCP as are asked for.
    Sized,
    /// Takes what comes over TCP.
    Sink,
    /// Datagrams go back one by one.
    Datagrams,
    /// Datagrams go back as many at once as have come.
    Segments,
}

impl Service {
    /// All.
    pub const ALL: [Self; 7] =
        [Self::Echo, Self::Untuned, Self::Source, Self::Sized, Self::Sink, Self::Datagrams, Self::Segments];

    /// Returns true for UDP, false for TCP.
    pub fn is_udp(self) -> bool {
        match self {
            Self::Echo | Self::Untuned | Self::Source | Self::Sized | Self::Sink => false,
            Self::Datagrams | Self::Segments => true,
        }
    }

    /// The first of its ports at the backend.
    fn port(self) -> u16 {
        match self {
            Self::Echo => ECHO_PORT,
            Self::Untuned => UNTUNED_PORT,
            Self::Source => SOURCE_PORT,
            Self::Sized => SIZED_PORT,
            Self::Sink => SINK_PORT,
            Self::Datagrams => DATAGRAM_PORT,
            Self::Segments => SEGMENT_PORT,
        }
    }
}

/// The hosts and the backend. Dropping it ends everything.
#[derive(Debug)]
pub struct Rig {
    // Before the topology, which it runs in: fields drop in order.
    backend: Process,
    topology: Topology,
    executable: PathBuf,
    descriptors: u64,
    settings: Settings,
}

impl Rig {
    /// Builds the hosts with `sysctls`, keys under `/proc/sys/net` and their values, and starts the backend, which is this
    /// program. It is up when `service` answers.
    ///
    /// # Errors
    ///
    /// Without the rights for network namespaces, and when the backend does not come up.
    pub fn new(sysctls: &'static [(&'static str, &'static str)], service: Service) -> anyhow::Result<Self> {
        Self::on(Topology::new, sysctls, service)
    }

    /// As [`Rig::new`], with a wire between client and gateway for [`Rig::set_far`].
    ///
    /// # Errors
    ///
    /// As [`Rig::new`].
    pub fn far(sysctls: &'static [(&'static str, &'static str)], service: Service) -> anyhow::Result<Self> {
        Self::on(|| Topology::with_wire(Weather::default()), sysctls, service)
    }

    fn on(
        topology: impl FnOnce() -> anyhow::Result<Topology>,
        sysctls: &'static [(&'static str, &'static str)],
        service: Service,
    ) -> anyhow::Result<Self> {
        // Children inherit it: candidates, clients and the backend all get as many descriptors as there are.
        let limit = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).context("RLIMIT_NOFILE")?;

        let topology = topology().context("network namespaces (run as root)")?;
        topology.forward()?;
        let hosts = [&topology.client, &topology.gateway, &topology.backend].map(Host::clone);
        let settings = Settings::apply(hosts, sysctls)?;
        let executable = std::env::current_exe().context("own executable")?;
        let address = BACKENDS_V4[0];
        let mut command = guarded(&topology.backend, &executable);
        command.args(["serve", &address.to_string(), &Candidate::COUNT.to_string()]);
        let backend = Process::spawn("backend", &mut command)?;
        let rig = Self { backend, topology, executable, descriptors: limit.unwrap_or(1 << 20), settings };
        rig.until_it_answers(service, Self::back(Candidate::COUNT - 1, service))
            .with_context(|| rig.backend.transcript())?;
        Ok(rig)
    }

    /// Moves the client away, and sets the congestion control of those who send to it: of the backend, and of the
    /// gateway, where a relay sends.
    ///
    /// # Errors
    ///
    /// When there is no wire, or the kernel lacks the congestion control.
    pub fn set_far(&self, far: Far) -> anyhow::Result<()> {
        let wire = self.topology.wire().context("no wire")?;
        wire.set(Weather { delay: far.round_trip / 2, lost: far.lost, ..Weather::default() });
        for host in [&self.topology.gateway, &self.topology.backend] {
            host.sysctl("ipv4/tcp_congestion_control", far.congestion)?;
        }
        Ok(())
    }

    /// Returns the settings of all hosts.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Descriptors that one process may have open.
    pub fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// The host where candidates run.
    pub fn gateway(&self) -> &Host {
        &self.topology.gateway
    }

    /// The host where the load comes from.
    pub fn client_host(&self) -> &Host {
        &self.topology.client
    }

    /// This program itself, which is also the backend, the client and the reference relay.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Keeps the backend and what the calling thread starts on one processor until the returned guard is dropped.
    ///
    /// # Errors
    ///
    /// When the backend has ended.
    pub fn on_one_processor(&self) -> anyhow::Result<OneProcessor> {
        let backend = i32::try_from(self.backend.pid()).ok().and_then(Pid::from_raw);
        OneProcessor::enter(backend.context("the backend has no process id")?)
    }

    /// Returns the address where candidate number `index` listens.
    pub fn front(index: u16, service: Service) -> SocketAddrV4 {
        SocketAddrV4::new(GATEWAY_V4, service.port() + FRONT + index)
    }

    /// Returns the address that candidate number `index` connects to.
    pub fn back(index: u16, service: Service) -> SocketAddrV4 {
        SocketAddrV4::new(BACKENDS_V4[0], service.port() + index)
    }

    /// Waits until a message sent by the client to `target`, which relays to `service`, is answered.
    ///
    /// # Errors
    ///
    /// When that does not happen within [`PATIENCE`].
    pub fn until_it_answers(&self, service: Service, target: SocketAddrV4) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let answers = match service {
            Service::Datagrams | Service::Segments => udp_client::answers,
            Service::Echo | Service::Untuned | Service::Source | Service::Sized => idle::answers,
            Service::Sink => idle::is_taken,
        };
        self.topology.client.run(|| {
            loop {
                match answers(target) {
                    Ok(()) => return Ok(()),
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Err(_) => pause(Duration::from_millis(10)),
                }
            }
        })
    }

    /// Starts the load generator on the client: `mode` with so many connections or flows to `target`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn client(&self, mode: &str, target: SocketAddrV4, count: usize, window: Duration) -> anyhow::Result<Client> {
        let mut command = guarded(&self.topology.client, &self.executable);
        command.args(["drive", mode, &target.to_string(), &count.to_string()]);
        command.arg(window.as_millis().to_string());
        let patience = window + PATIENCE + PREPARATION * u32::try_from(count)?;
        Ok(Client { process: Process::spawn("client", &mut command)?, patience })
    }
}

/// A load generator at work. Dropping it ends it.
#[derive(Debug)]
pub struct Client {
    process: Process,
    patience: Duration,
}

impl Client {
    /// Waits until it says `word`.
    ///
    /// # Errors
    ///
    /// When it does not, or fails before; its own words are in the error.
    pub fn wait_for(&self, word: &str) -> anyhow::Result<()> {
        self.process.wait_for_line(word).map(drop)
    }

    /// Waits for the end and the outcome.
    ///
    /// # Errors
    ///
    /// When the workload fails; its own words are in the error.
    pub fn outcome(mut self) -> anyhow::Result<Sample> {
        let status = self.process.wait_within(self.patience)?;
        let lines = self.process.lines();
        if !status.success() {
            bail!("{}", lines.join("\n"));
        }
        Sample::from_json(lines.last().context("no outcome")?)
    }
}

/// A command on `host` that the kernel kills when this program is killed, so that nothing goes on in the background.
pub fn guarded(host: &Host, program: impl AsRef<Path>) -> Command {
    let mut command = host.command("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program.as_ref());
    command
}
