//! Candidates at work: how they are started, and what they use.

use std::{
    fs,
    net::SocketAddrV4,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rpxy_l4_tests::{
    process::{PATIENCE, Process},
    topology::Host,
    wait::pause,
};

use super::{
    candidate::{Candidate, Daemons},
    conntrack::{Nat, Nowhere},
    procfs,
    rig::{Rig, guarded},
    setup::Setup,
};

/// A candidate at work. Dropping it ends it.
#[derive(Debug)]
pub struct Running<'rig> {
    /// Address that clients connect to.
    pub target: SocketAddrV4,
    /// None when the kernel does the work.
    processes: Vec<Process>,
    /// Held for its Drop.
    _nat: Option<Nat<'rig>>,
    /// Likewise.
    _nowhere: Option<Nowhere<'rig>>,
}

impl Candidate {
    /// Starts it for `setup` and waits until it relays.
    ///
    /// # Errors
    ///
    /// When it does not start or does not relay; its own words are in the error.
    pub fn start<'rig>(
        self,
        rig: &'rig Rig,
        daemons: &Daemons,
        directory: &Path,
        setup: Setup,
    ) -> anyhow::Result<Running<'rig>> {
        let front = Rig::front(self.index(), setup.service);
        let back = Rig::back(self.index(), setup.service);
        let configuration = self.configuration(setup);
        let file = directory.join(format!("{}.conf", self.name()));
        fs::write(&file, &configuration).with_context(|| file.display().to_string())?;

        let mut running = Running { target: front, processes: Vec::new(), _nat: None, _nowhere: None };
        let gateway = rig.gateway();
        match self {
            Self::Rpxy
            | Self::RpxyRouted
            | Self::Baseline
            | Self::RpxyTc
            | Self::RpxyGeneric
            | Self::RpxySpliced
            | Self::RpxyAuto => {
                let mut command = guarded(gateway, self.daemon(daemons).context("no daemon given")?);
                command.arg("--config").arg(&file).env("RUST_LOG", "warn");
                for number in 1..=setup.processes {
                    running.spawn(self, &mut command)?;
                    if setup.processes > 1 || setup.unanswered {
                        running.until_bound(gateway, number * setup.threads())?;
                    }
                }
            }
            Self::Haproxy => running.spawn(self, guarded(gateway, "haproxy").arg("-db").arg("-f").arg(&file))?,
            Self::Nginx => {
                let mut command = guarded(gateway, "nginx");
                running.spawn(self, command.arg("-p").arg(directory).args(["-e", "stderr"]).arg("-c").arg(&file))?;
            }
            Self::Sslh => {
                // It writes a line a connection to standard error, which has no switch.
                let script = format!("exec {} 2>/dev/null", configuration.trim_end());
                running.spawn(self, guarded(gateway, "sh").args(["-c", &script]))?;
            }
            Self::Barest | Self::Splice => {
                let mut command = guarded(gateway, rig.executable());
                let part = if self == Self::Barest { "barest" } else { "relay" };
                running.spawn(self, command.args([part, &front.to_string(), &back.to_string()]))?;
            }
            Self::Nat => running._nat = Some(Nat::new(gateway, &configuration, setup)?),
            Self::Direct => running.target = back,
            Self::Nowhere => running._nowhere = Some(Nowhere::new(rig.client_host(), &configuration)?),
        }
        if setup.unanswered {
            return Ok(running);
        }
        rig.until_it_answers(setup.service, running.target).with_context(|| running.explain())?;
        Ok(running)
    }
}

impl Running<'_> {
    /// Processor time that its processes have used; `None` when the kernel does the work.
    ///
    /// # Errors
    ///
    /// When one of them has ended.
    pub fn processor_time(&self) -> anyhow::Result<Option<Duration>> {
        let times = self.processes.iter().map(|process| procfs::processor_time(process.pid()));
        let sum = times.sum::<anyhow::Result<Duration>>()?;
        Ok((!self.processes.is_empty()).then_some(sum))
    }

    /// Memory of its processes, in bytes; nothing when the kernel does the work.
    ///
    /// # Errors
    ///
    /// When one of them has ended.
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.processes.iter().map(|process| procfs::memory(process.pid())).sum()
    }

    /// Output of the candidate that may explain a failure.
    pub fn explain(&self) -> String {
        let transcript: String = self.processes.iter().map(Process::transcript).collect();
        if transcript.is_empty() { "it wrote nothing".to_owned() } else { format!("it wrote:\n{transcript}but") }
    }

    fn spawn(&mut self, candidate: Candidate, command: &mut Command) -> anyhow::Result<()> {
        self.processes.push(Process::spawn(candidate.name(), command)?);
        Ok(())
    }

    /// Waits until `count` UDP sockets of `gateway` share the port. One that comes later would get the datagrams of
    /// flows that another has begun.
    fn until_bound(&self, gateway: &Host, count: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let wanted = format!(":{:04X}", self.target.port());
        loop {
            // The table shows the namespace of the thread that reads it.
            let table = gateway.run(|| fs::read_to_string("/proc/thread-self/net/udp"))?;
            let local =
                |line: &&str| line.split_ascii_whitespace().nth(1).is_some_and(|local| local.ends_with(&wanted));
            let bound = table.lines().filter(local).count();
            if bound >= count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{}\n{bound} of {count} sockets are bound", self.explain());
            }
            pause(Duration::from_millis(10));
        }
    }
}
