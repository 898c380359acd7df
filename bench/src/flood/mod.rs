//! The suite `flood`: real clients beside datagrams from forged sources, on each plane.
//!
//! A flood first fills the table of sessions, as it would after a while, and then goes on at its rate while QUIC, WireGuard
//! and DNS clients come, each of them new. What is measured is how many of them are served, and after how long.

mod clients;
mod memory;
mod network;
pub mod send;

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;

use self::{
    clients::Clients,
    network::{Flood, Network},
};

/// Time between the beginning of a flood and the first client: what fills the table is worked off.
const SETTLE: Duration = Duration::from_secs(3);

/// Pause between two looks at the daemon's memory.
const LOOK: Duration = Duration::from_millis(250);

/// What forged sources send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Two datagrams that look like short headers of QUIC from each source, with an ID that nobody has given; the target
    /// answers with stateless resets.
    Strays,
    /// Datagrams of no protocol, which the default target answers.
    Junk,
}

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plane {
    /// The daemon alone.
    Userspace,
    /// The kernel, by TC.
    Tc,
    /// The kernel, by XDP of the driver.
    Xdp,
}

/// Datagrams a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// No flood.
    None,
    /// So many.
    Steady(u32),
    /// As many as one thread sends.
    Most,
}

const RATES: [Rate; 4] = [Rate::None, Rate::Steady(500), Rate::Steady(5_000), Rate::Most];

/// Plan of a run.
#[derive(Debug)]
pub struct Plan {
    /// The daemon, a release build.
    pub daemon: PathBuf,
    /// Length of one measurement.
    pub window: Duration,
    /// Floods to measure.
    pub kinds: Vec<Kind>,
    /// Planes to measure.
    pub planes: Vec<Plane>,
    /// The command that asked for this, for the report.
    pub command: String,
}

/// Outcome of one measurement.
#[derive(Debug)]
struct Row {
    sent: f64,
    quic: Clients,
    wireguard: Clients,
    dns: Clients,
    sessions: u64,
    lost: u64,
    before: u64,
    most: u64,
}

impl Plan {
    /// Measures and returns the report, in Markdown. `progress` gets a line for each measurement.
    ///
    /// # Errors
    ///
    /// When the network cannot be built, or a peer or the daemon fails.
    pub fn run(&self, progress: &dyn Fn(&str)) -> anyhow::Result<String> {
        let mut text = format!(
            "# Floods\n\nMade by `{}` on {} processors, Linux {}.\n",
            self.command,
            std::thread::available_parallelism()?,
            std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        );
        if cfg!(debug_assertions) {
            text += "\n**The load generator is a debug build: these figures mean nothing.**\n";
        }
        for kind in &self.kinds {
            text += &format!("\n## {}\n\n{HEAD}", kind.title());
            for plane in &self.planes {
                for rate in RATES {
                    let row = self.measure(*kind, *plane, rate)?;
                    let line = row.line(*plane, rate);
                    progress(&format!("{kind:?}: {}", line.trim_end()));
                    text += &line;
                }
            }
        }
        text += &format!("\n## Memory of sessions\n\n{}", memory::measure(&self.daemon, &self.planes, progress)?);
        for kind in &self.kinds {
            text += &format!("\nConfiguration for {kind:?}:\n\n```toml\n{}```\n", network::configuration(*kind));
        }
        Ok(text)
    }

    fn measure(&self, kind: Kind, plane: Plane, rate: Rate) -> anyhow::Result<Row> {
        let network = Network::new(kind, plane, &self.daemon)?;
        let before = network.memory()?;
        let flood = match rate {
            Rate::None => None,
            Rate::Steady(_) | Rate::Most => {
                network.flood(Rate::Most, Flood::Once)?.wait()?;
                let flood = network.flood(rate, Flood::For(SETTLE + self.window))?;
                rpxy_l4_tests::wait::pause(SETTLE);
                Some(flood)
            }
        };
        let lost = network.lost()?;
        let mut most = before;
        let (quic, wireguard, dns) = std::thread::scope(|scope| {
            let quic = scope.spawn(|| clients::quic(&network, self.window));
            let wireguard = scope.spawn(|| clients::wireguard(&network, self.window));
            let dns = scope.spawn(|| clients::dns(&network, self.window));
            while !(quic.is_finished() && wireguard.is_finished() && dns.is_finished()) {
                most = most.max(network.memory().unwrap_or(0));
                rpxy_l4_tests::wait::pause(LOOK);
            }
            (joined(quic), joined(wireguard), joined(dns))
        });
        let sent = flood.map_or(Ok(0.0), network::Running::wait)?;
        let lost = network.lost()? - lost;
        Ok(Row { sent, quic, wireguard, dns, sessions: network.sessions()?, lost, before, most })
    }
}

fn joined(clients: std::thread::ScopedJoinHandle<'_, Clients>) -> Clients {
    clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Strays => "Strays: two of each source, like QUIC short headers with an ID that nobody has given",
            Self::Junk => "Junk: 100 bytes of no protocol, which `udp_target` answers",
        }
    }
}

const HEAD: &str = "| plane | asked for, /s | sent, /s | QUIC | p50 ms | p99 ms | WireGuard | p50 ms | p99 ms | DNS | p50 ms \
                    | p99 ms | lost in the queue | sessions | memory before, MiB | most |\n\
                    |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";

impl Row {
    fn line(&self, plane: Plane, rate: Rate) -> String {
        let asked = match rate {
            Rate::None => "none".to_owned(),
            Rate::Steady(rate) => rate.to_string(),
            Rate::Most => "most".to_owned(),
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let clients: String = [&self.quic, &self.wireguard, &self.dns].map(Clients::columns).concat();
        format!(
            "| {plane:?} | {asked} | {:.0} |{clients} {} | {} | {:.1} | {:.1} |\n",
            self.sent,
            self.lost,
            self.sessions,
            mib(self.before),
            mib(self.most)
        )
    }
}
