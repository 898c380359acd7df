//! Files and directories that the process can reach (Landlock).
//!
//! Errs towards directories: files are replaced, and a rule is for what is at a path when it is made. Reading is refused
//! where nothing of the configuration is, writing everywhere but where the daemon makes files.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::Places;
use crate::config::{
    model::{ADMIN_SOCKET, Config, EbpfMode, StatusListen},
    watch::{Seen, directories_to},
};

/// The newest version of Landlock that this module has been written for.
const KNOWN: ABI = ABI::V7;

/// Files of the kernel that are read: limits, the number of processors, BTF.
const OF_KERNEL: &[&str] = &[
    "/proc/self",
    "/proc/sys",
    "/proc/cpuinfo",
    "/proc/stat",
    "/proc/version",
    "/proc/version_signature",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/sys/kernel/btf",
    "/sys/kernel/security/lockdown",
];
/// Files of the machine that say how names resolve, and the names of users and groups.
const OF_MACHINE: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
];
/// Shallower directories are not opened for the sake of a symbolic link in them.
const DEPTH: usize = 2;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const LOGS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});
const SOCKETS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});
const PINS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir | MakeReg | RemoveFile});

/// What the process can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Files and directories that can be read.
    read: BTreeSet<PathBuf>,
    /// The directory of log files.
    logs: BTreeSet<PathBuf>,
    /// Directories in which sockets can be made.
    sockets: BTreeSet<PathBuf>,
    /// Directories in which programs and flows are pinned.
    pins: BTreeSet<PathBuf>,
}

impl Reach {
    /// What a daemon with `config` has to reach. `root` can read everything in /etc, so that it gets the files in it that it needs
    /// and no others.
    pub(super) fn new(config: &Config, places: &Places<'_>, root: bool) -> Self {
        let mut reach = Self::default();
        reach.read_file(places.config);
        for seen in places.files {
            if seen.is_directory() { reach.read_in(seen.path()) } else { reach.read_file(seen.path()) }
        }
        for path in OF_MACHINE.iter().map(Path::new) {
            if root {
                reach.read.insert(path.to_owned());
                let elsewhere = directories_to(path).into_iter().filter(|directory| directory != Path::new("/etc"));
                reach.read.extend(elsewhere.filter(|directory| is_deep(directory)));
            } else {
                reach.read_file(path);
            }
        }
        reach.read.extend(OF_KERNEL.iter().map(PathBuf::from));
        if let Some(directory) = places.logs {
            reach.logs.insert(real(directory));
            // A log file may be a link to one elsewhere.
            let files = crate::log::FILES.iter().filter_map(|name| directory.join(name).canonicalize().ok());
            let elsewhere = files.filter(|file| file.is_file()).filter_map(|file| Some(file.parent()?.to_owned()));
            reach.logs.extend(elsewhere.filter(|directory| is_deep(directory)));
        }
        // A reload may open the admin socket where it usually is.
        let usual = std::iter::once(Path::new(ADMIN_SOCKET));
        reach.sockets.extend(sockets(config).chain(usual).filter_map(|path| Some(real(path.parent()?))));
        // What an earlier daemon has pinned is looked at.
        reach.read.insert(real(&config.ebpf.pin_path));
        if config.ebpf.pin && config.ebpf.mode != EbpfMode::Off {
            reach.pins.insert(real(&config.ebpf.pin_path));
        }
        reach
    }

    fn read_file(&mut self, path: &Path) {
        let path = std::path::absolute(path).unwrap_or_else(|_no_directory| path.to_owned());
        let file = path.canonicalize().unwrap_or_else(|_missing| path.clone());
        match file.parent() {
            // All there is would be too much for the sake of one file.
            Some(parent) if parent.parent().is_some() => drop(self.read.insert(parent.to_owned())),
            _ => drop(self.read.insert(file)),
        }
        self.read.extend(directories_to(&path).into_iter().filter(|directory| is_deep(directory)));
    }

    fn read_in(&mut self, directory: &Path) {
        self.read.insert(real(directory));
        self.read_file(directory);
    }

    /// What of a configuration cannot be reached, of the files that it has been, or should have been, read from.
    pub(super) fn unreadable(&self, files: &[Seen]) -> Vec<PathBuf> {
        let is_unreachable = |path: &&Path| !is_within(&real(path), &self.read);
        files.iter().map(Seen::path).filter(is_unreachable).map(Path::to_owned).collect()
    }

    /// The sockets that `config` listens on and cannot make.
    pub(super) fn without_socket<'c>(&self, config: &'c Config) -> Vec<&'c Path> {
        let is_unreachable =
            |path: &&Path| path.parent().is_some_and(|parent| !is_within(&real(parent), &self.sockets));
        sockets(config).filter(is_unreachable).collect()
    }

    /// Each path with what can be done there.
    fn rules(&self) -> impl Iterator<Item = (&Path, BitFlags<AccessFs>)> {
        let all = [(&self.read, READ), (&self.logs, LOGS), (&self.sockets, SOCKETS), (&self.pins, PINS)];
        all.into_iter().flat_map(|(paths, access)| paths.iter().map(move |path| (path.as_path(), access)))
    }
}

fn sockets(config: &Config) -> impl Iterator<Item = &Path> {
    let listened = config.listeners().filter_map(|listener| Some(&*listener.listen.unix.as_ref()?.path));
    let page = config.status.as_ref().and_then(|page| match &page.listen {
        StatusListen::Unix(path) => Some(path.as_path()),
        StatusListen::Ip(_) => None,
    });
    config.admin_socket.as_deref().into_iter().chain(page).chain(listened)
}

fn is_deep(directory: &Path) -> bool {
    directory.components().count() > DEPTH
}

/// Without symbolic links as far as it exists.
fn real(path: &Path) -> PathBuf {
    let above = || Some(real(path.parent()?).join(path.file_name()?));
    path.canonicalize().ok().or_else(above).unwrap_or_else(|| path.to_owned())
}

fn is_within(path: &Path, allowed: &BTreeSet<PathBuf>) -> bool {
    // Rules are for what is behind links.
    path.ancestors().any(|ancestor| allowed.contains(ancestor) || allowed.iter().any(|known| real(known) == ancestor))
}

/// Rules that a thread can be restricted by.
#[derive(Debug)]
pub(super) struct Rules {
    ruleset: RulesetCreated,
    /// Rules are for inodes. Those of procfs last as long as somebody has them open.
    _held: Vec<PathFd>,
}

impl Rules {
    /// The rules for `reach`. With `abstract_sockets`, unix sockets without a file can be connected to.
    pub(super) fn new(reach: &Reach, abstract_sockets: bool) -> Result<Self, RulesetError> {
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?;
        let ruleset = if abstract_sockets { ruleset } else { ruleset.scope(Scope::AbstractUnixSocket)? };
        let (mut created, mut held) = (ruleset.create()?, Vec::new());
        for (path, access) in reach.rules() {
            // What is not there needs no rule.
            let Ok(fd) = PathFd::new(path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
            created = created.add_rule(PathBeneath::new(&fd, access))?;
            if path.starts_with("/proc") {
                held.push(fd);
            }
        }
        Ok(Self { ruleset: created, _held: held })
    }

    /// Restricts the calling thread, and those that it starts.
    pub(super) fn apply(&self) -> Result<Applied, RulesetError> {
        // Duplicating the descriptor fails where there are no more of them.
        let Ok(ruleset) = self.ruleset.try_clone() else { return Ok(Applied::Not("no descriptor is left")) };
        Ok(Applied::from(&ruleset.restrict_self()?))
    }
}

/// What became of a restriction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// In force, of this version of Landlock.
    Version(i32),
    /// Not in force, for this reason.
    Not(&'static str),
}

impl From<&RestrictionStatus> for Applied {
    fn from(status: &RestrictionStatus) -> Self {
        match (&status.landlock, &status.ruleset) {
            (LandlockStatus::NotEnabled, _) => Self::Not("Landlock is switched off at boot"),
            (LandlockStatus::NotImplemented, _) => Self::Not("this kernel has no Landlock"),
            (LandlockStatus::Available { .. }, RulesetStatus::NotEnforced) => Self::Not("this kernel refuses it"),
            (LandlockStatus::Available { effective_abi, kernel_abi }, _) => {
                Self::Version(kernel_abi.unwrap_or(*effective_abi as i32))
            }
        }
    }
}

/// The version of Landlock that this kernel has; why not, where it has none. Restricts nobody.
pub(super) fn version() -> Applied {
    // Asked on a thread that ends, since only a thread that is restricted is told.
    let asked = std::thread::spawn(|| Rules::new(&Reach::default(), true).and_then(|rules| rules.apply()));
    match asked.join() {
        Ok(Ok(applied)) => applied,
        _ => Applied::Not("this kernel refuses it"),
    }
}
