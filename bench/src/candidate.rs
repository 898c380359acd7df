//! Candidates: direct routing, kernel NAT, a reference relay, the peers from Debian and rpxy-l4 itself.
//!
//! See [`crate::configuration`] for their setup and [`crate::start`] for their start.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Descriptors kept back for a candidate's own files, of those that it may have.
const SPARE_DESCRIPTORS: u64 = 500;

/// A way from client to backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Candidate {
    /// rpxy-l4 with a default target: no probing.
    Rpxy,
    /// rpxy-l4 with rules, so that every connection or first datagram is probed: one for HTTP, or for QUIC and WireGuard.
    RpxyRouted,
    /// Another build of rpxy-l4, set up as [`Candidate::Rpxy`].
    Baseline,
    /// rpxy-l4 with the kernel plane on TC.
    RpxyTc,
    /// rpxy-l4 with the kernel plane on generic XDP.
    RpxyGeneric,
    /// rpxy-l4 that splices every connection when its client has said something.
    RpxySpliced,
    /// rpxy-l4 that splices where it expects to gain by it.
    RpxyAuto,
    /// HAProxy in TCP mode.
    Haproxy,
    /// nginx with its stream module.
    Nginx,
    /// sslh-select with one rule for HTTP: every connection is probed.
    Sslh,
    /// The barest relay, [`crate::load::barest`].
    Barest,
    /// The reference relay of [`crate::load::splice`].
    Splice,
    /// Destination NAT by nftables.
    Nat,
    /// Routing through the gateway's kernel, no proxy.
    Direct,
    /// Nothing: what is sent ends at the sender's own interface. Tells what sending alone costs.
    Nowhere,
}

/// Programs under test that are not taken from Debian.
#[derive(Debug, Clone, Default)]
pub struct Daemons {
    /// The daemon.
    pub daemon: Option<PathBuf>,
    /// Another build of it to compare with.
    pub baseline: Option<PathBuf>,
}

impl Candidate {
    /// All, in the order of the report.
    pub const ALL: [Self; 15] = [
        Self::Rpxy,
        Self::RpxyRouted,
        Self::Baseline,
        Self::RpxyTc,
        Self::RpxyGeneric,
        Self::RpxySpliced,
        Self::RpxyAuto,
        Self::Haproxy,
        Self::Nginx,
        Self::Sslh,
        Self::Barest,
        Self::Splice,
        Self::Nat,
        Self::Direct,
        Self::Nowhere,
    ];

    /// Number of candidates.
    pub const COUNT: u16 = 15;

    /// Name in the report and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rpxy => "rpxy-l4",
            Self::RpxyRouted => "rpxy-l4-routed",
            Self::Baseline => "rpxy-l4-baseline",
            Self::RpxyTc => "rpxy-l4-tc",
            Self::RpxyGeneric => "rpxy-l4-xdp-generic",
            Self::RpxySpliced => "rpxy-l4-spliced",
            Self::RpxyAuto => "rpxy-l4-auto",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Sslh => "sslh",
            Self::Barest => "barest",
            Self::Splice => "splice",
            Self::Nat => "nat",
            Self::Direct => "direct",
            Self::Nowhere => "nowhere",
        }
    }

    /// Returns true for a program whose memory per connection means something.
    pub fn is_proxy(self) -> bool {
        match self {
            Self::Rpxy
            | Self::RpxyRouted
            | Self::Baseline
            | Self::RpxyTc
            | Self::RpxyGeneric
            | Self::RpxySpliced
            | Self::RpxyAuto
            | Self::Haproxy
            | Self::Nginx
            | Self::Sslh => true,
            Self::Barest | Self::Splice | Self::Nat | Self::Direct | Self::Nowhere => false,
        }
    }

    /// Connections or flows that it can hold when it may have so many descriptors, `each` for one of them.
    pub fn capacity(self, descriptors: u64, each: u64) -> usize {
        // FD_SETSIZE bounds select(2), whatever the limit of the process.
        let descriptors = if self == Self::Sslh { 1024 - 24 } else { descriptors.saturating_sub(SPARE_DESCRIPTORS) };
        usize::try_from(descriptors / each).unwrap_or(usize::MAX)
    }

    /// Returns program and version for the report; `None` when it is not there to be measured.
    ///
    /// # Errors
    ///
    /// When a program of Debian's is missing; the error says what to do.
    pub fn describe(self, daemons: &Daemons) -> anyhow::Result<Option<String>> {
        let kernel = || -> anyhow::Result<String> {
            Ok(format!("Linux {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()))
        };
        let what = match self {
            Self::Rpxy | Self::RpxyRouted | Self::Baseline => match self.daemon(daemons) {
                None => return Ok(None),
                Some(path) => version(Command::new(path).arg("--version"))?,
            },
            Self::RpxyTc | Self::RpxyGeneric | Self::RpxySpliced | Self::RpxyAuto => match self.daemon(daemons) {
                None => return Ok(None),
                Some(path) => {
                    has_programs(path)?;
                    version(Command::new(path).arg("--version"))?
                }
            },
            Self::Haproxy => version(Command::new("haproxy").arg("-v"))?,
            Self::Nginx => version(Command::new("nginx").arg("-v"))?,
            Self::Sslh => version(Command::new("sslh-select").arg("-V"))?,
            Self::Barest => "epoll(7) and nothing else, part of this benchmark".to_owned(),
            Self::Splice => "threads and splice(2), part of this benchmark".to_owned(),
            Self::Nat => format!("{}, {}", version(Command::new("nft").arg("--version"))?, kernel()?),
            Self::Direct | Self::Nowhere => kernel()?,
        };
        Ok(Some(what))
    }

    /// Its position in [`Candidate::ALL`], which its ports are counted by.
    pub fn index(self) -> u16 {
        let position = Self::ALL.iter().position(|other| *other == self);
        position.and_then(|position| u16::try_from(position).ok()).unwrap_or(Self::COUNT - 1)
    }

    /// The program to start, of those that are not taken from Debian.
    pub fn daemon(self, daemons: &Daemons) -> Option<&Path> {
        if self == Self::Baseline { daemons.baseline.as_deref() } else { daemons.daemon.as_deref() }
    }
}

/// Fails for a daemon without eBPF programs: it would forward in userspace and be reported as the kernel plane.
fn has_programs(daemon: &Path) -> anyhow::Result<()> {
    let output = Command::new(daemon).arg("doctor").output().with_context(|| daemon.display().to_string())?;
    if String::from_utf8_lossy(&output.stdout).lines().any(|line| line == "eBPF object: missing") {
        bail!("{}: built without eBPF programs: run `cargo xtask build-ebpf`, then build it again", daemon.display());
    }
    Ok(())
}

/// First line that a program writes when asked for its version, on whichever stream.
fn version(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().with_context(|| format!("{program} cannot be run; `cargo xtask setup` installs it"))?;
    let text = [output.stdout, output.stderr].concat();
    let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned();
    if line.is_empty() {
        bail!("{program} does not tell its version");
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rig::{Rig, Service};

    #[test]
    fn every_candidate_has_a_name_and_ports_of_its_own() {
        assert_eq!(Candidate::ALL.len(), usize::from(Candidate::COUNT));
        let names: BTreeSet<_> = Candidate::ALL.iter().map(|candidate| candidate.name()).collect();
        assert_eq!(names.len(), Candidate::ALL.len());
        let ports: BTreeSet<_> = Candidate::ALL
            .iter()
            .flat_map(|candidate| Service::ALL.map(|service| Rig::front(candidate.index(), service)))
            .collect();
        assert_eq!(ports.len(), Service::ALL.len() * Candidate::ALL.len());
    }

    #[test]
    fn capacity_follows_the_descriptors_except_where_select_bounds_it() {
        // (candidate, descriptors, for each, connections)
        let rows = [
            (Candidate::Rpxy, 20_000, 2, 9_750),
            (Candidate::Rpxy, 20_000, 1, 19_500),
            (Candidate::Haproxy, 100, 2, 0),
            (Candidate::Sslh, 20_000, 2, 500),
            (Candidate::Nginx, 1 << 20, 2, 524_038),
        ];
        for (candidate, descriptors, each, connections) in rows {
            assert_eq!(
                candidate.capacity(descriptors, each),
                connections,
                "{candidate:?} of {descriptors}, {each} each"
            );
        }
    }

    #[test]
    fn a_missing_program_says_what_to_do() {
        let error = version(&mut Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(format!("{error:#}").contains("cargo xtask setup"), "{error:#}");
    }
}
