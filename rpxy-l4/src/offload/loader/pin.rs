//! The directory of what outlives the daemon (`ebpf.pin`): links and flows, pinned in a BPF file system. One daemon at a
//! time locks it.
//!
//! While a link holds a program, the program and its maps go on. So the next daemon loads programs and maps of its own,
//! reads the pinned flows, inherits their sessions, and only then makes the pinned links run its own programs. Nothing but
//! the map of flows has to be compatible; its name has the number of its layout.

use std::{
    collections::HashSet,
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::{
    maps::{HashMap as KernelMap, Map, MapData},
    programs::links::{FdLink, PinnedLink},
};
use rpxy_l4_common::map::{Flow, FlowKey};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};
use thiserror::Error;

use super::hook::HookMode;
use crate::{
    config::model::{Ebpf, EbpfMode},
    offload::maps::{self, FlowBytes, FlowKeyBytes},
    trust::{self, Untrusted},
};

/// Magic number of a BPF file system (`linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Name of the map of flows, with the number of the layout of its keys and values.
const FLOWS: &str = "flows-1";
/// Name of a new map of flows until the links run the programs that use it.
const NEW_FLOWS: &str = "flows-1-new";
/// Attempts to lock the directory, and the time between them.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// Prefix of the names of links; hook and index of the interface follow.
const LINK: &str = "link-";

/// Prefix of the names of maps of spliced TCP; name, layout of keys and values, and number of places follow.
const SPLICE_MAP: &str = "tcp-";
const SPLICE_LAYOUT: u32 = 1;
/// Prefix of the names of links of spliced TCP; the way and the index of the interface follow.
const SPLICE_LINK: &str = "splice-";

/// Reason why something cannot be pinned, or a pin not be removed.
#[derive(Debug, Error)]
pub(crate) enum PinError {
    /// Another daemon has locked the directory that this one needs.
    #[error("{}: another daemon uses it; give each daemon its own ebpf.pin_path", .0.display())]
    OtherDaemon(PathBuf),
    /// A daemon has locked the directory whose pins are to be removed.
    #[error("{}: a running daemon uses it; stop that daemon first", .0.display())]
    RunningDaemon(PathBuf),
    /// The directory is in another file system.
    #[error("{}: not in a BPF file system; mount one by `mount -t bpf bpf /sys/fs/bpf`", .0.display())]
    NotBpf(PathBuf),
    /// Another user has prepared the directory, or may.
    #[error(
        "{0}; it has to be root's or this user's, and closed to others: remove it, or choose another ebpf.pin_path"
    )]
    Untrusted(#[from] Untrusted),
    /// Permission denied.
    #[error("{}: permission denied; create the directory for the daemon's user", .0.display())]
    Denied(PathBuf),
    /// Another error of the file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory, or the file in it.
        path: PathBuf,
        /// Its cause.
        source: io::Error,
    },
    /// The kernel refused to pin a link or a map.
    #[error("cannot pin {}: {source}", path.display())]
    Pin {
        /// File of the pin.
        path: PathBuf,
        /// Its cause.
        source: aya::pin::PinError,
    },
}

impl PinError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied { Self::Denied(path) } else { Self::Io { path, source } }
    }
}

/// A locked directory of pins. The lock lasts as long as the value.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    _lock: OwnedFd,
}

impl Pins {
    /// Locks the directory, which is created if need be.
    pub(super) fn open(directory: &Path) -> Result<Self, PinError> {
        create(directory)?;
        trust::only_ours(directory)?;
        // An earlier daemon may be about to end, or `doctor` may be looking.
        for _ in 1..TRIES {
            match Self::lock(directory) {
                Err(PinError::OtherDaemon(_)) => thread::park_timeout(PAUSE),
                result => return result,
            }
        }
        Self::lock(directory)
    }

    fn lock(directory: &Path) -> Result<Self, PinError> {
        let error = |errno: rustix::io::Errno| match io::Error::from(errno) {
            error if error.kind() == io::ErrorKind::WouldBlock => PinError::OtherDaemon(directory.to_owned()),
            error => PinError::new(directory, error),
        };
        if u64::try_from(statfs(directory).map_err(error)?.f_type).ok() != Some(BPF_FS_MAGIC) {
            return Err(PinError::NotBpf(directory.to_owned()));
        }
        let lock =
            open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(error)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(error)?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    fn link_path(&self, index: u32, hook: HookMode) -> PathBuf {
        self.directory.join(format!("{LINK}{}-{index}", hook.name()))
    }

    /// Returns the pinned link of an interface.
    pub(super) fn link(&self, index: u32, hook: HookMode) -> Option<FdLink> {
        PinnedLink::from_pin(self.link_path(index, hook)).ok().map(FdLink::from)
    }

    /// Returns true if the XDP program of an interface is an earlier daemon's.
    pub(super) fn has_xdp(&self, index: u32) -> bool {
        [HookMode::Xdp, HookMode::XdpGeneric].iter().any(|hook| self.link_path(index, *hook).exists())
    }

    /// Pins a link, which then stays when it is dropped.
    pub(super) fn pin_link(&self, index: u32, hook: HookMode, link: FdLink) -> Result<FdLink, PinError> {
        let path = self.link_path(index, hook);
        link.pin(&path).map(FdLink::from).map_err(|source| PinError::Pin { path, source })
    }

    /// Where a map of spliced TCP is pinned, which the next daemon goes on to use.
    pub(super) fn splice_map(&self, name: &str, places: u32) -> PathBuf {
        self.directory.join(format!("{SPLICE_MAP}{}-{SPLICE_LAYOUT}-{places}", name.to_ascii_lowercase()))
    }

    fn splice_link_path(&self, way: &str, index: u32) -> PathBuf {
        self.directory.join(format!("{SPLICE_LINK}{way}-{index}"))
    }

    /// Returns the pinned link of a program for spliced TCP.
    pub(super) fn splice_link(&self, way: &str, index: u32) -> Option<FdLink> {
        PinnedLink::from_pin(self.splice_link_path(way, index)).ok().map(FdLink::from)
    }

    /// Pins such a link, which then stays when it is dropped.
    pub(super) fn pin_splice_link(&self, way: &str, index: u32, link: FdLink) -> Result<FdLink, PinError> {
        let path = self.splice_link_path(way, index);
        link.pin(&path).map(FdLink::from).map_err(|source| PinError::Pin { path, source })
    }

    /// Removes the pin of such a link.
    pub(super) fn remove_splice_link(&self, way: &str, index: u32) {
        let _absent = fs::remove_file(self.splice_link_path(way, index));
    }

    /// Removes the pin of a link, which then ends when it is dropped.
    pub(super) fn remove_link(&self, index: u32, hook: HookMode) {
        let _absent = fs::remove_file(self.link_path(index, hook));
    }

    /// The pins of spliced TCP with as many places, on these interfaces.
    pub(super) fn of_splice(
        &self,
        maps: &[&str],
        places: u32,
        ways: &[&str],
        interfaces: impl Iterator<Item = u32>,
    ) -> Vec<PathBuf> {
        let links = interfaces.flat_map(|index| ways.iter().map(move |way| self.splice_link_path(way, index)));
        maps.iter().map(|name| self.splice_map(name, places)).chain(links).collect()
    }

    /// Pins the flows of programs that do not run yet.
    pub(super) fn pin_flows(&self, flows: &MapData) -> Result<(), PinError> {
        let path = self.directory.join(NEW_FLOWS);
        let _absent = fs::remove_file(&path);
        flows.pin(&path).map_err(|source| PinError::Pin { path, source })
    }

    /// Makes the flows of [`Self::pin_flows`] the ones that the next daemon reads, and removes all links but `kept`. What
    /// belongs to spliced TCP is kept by the names of its maps and links.
    pub(super) fn settle(&self, kept: &HashSet<(u32, HookMode)>, splice: &[PathBuf]) -> Result<(), PinError> {
        let kept = kept.iter().map(|(index, hook)| self.link_path(*index, *hook));
        let kept: HashSet<PathBuf> = kept.chain(splice.iter().cloned()).collect();
        for path in files(&self.directory) {
            if path.file_name().is_some_and(|name| name != NEW_FLOWS) && !kept.contains(&path) {
                let _gone = fs::remove_file(path);
            }
        }
        let path = self.directory.join(FLOWS);
        fs::rename(self.directory.join(NEW_FLOWS), &path).map_err(|error| PinError::new(&path, error))
    }

    /// Reads the pinned flows of an earlier daemon.
    pub(super) fn flows(&self) -> Vec<(FlowKey, Flow)> {
        let path = self.directory.join(FLOWS);
        let map = match MapData::from_pin(&path) {
            Ok(data) => KernelMap::<_, FlowKeyBytes, FlowBytes>::try_from(Map::HashMap(data)),
            // There was no earlier daemon, or none with this layout.
            Err(_) => return Vec::new(),
        };
        match map {
            Ok(map) => map.iter().flatten().filter_map(|(key, value)| maps::read_flow(key, value)).collect(),
            Err(error) => {
                tracing::warn!("kernel plane: cannot read the flows in {}: {error}", path.display());
                Vec::new()
            }
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn create(directory: &Path) -> Result<(), PinError> {
    let created = fs::DirBuilder::new().mode(0o700).recursive(true).create(directory);
    created.map_err(|error| PinError::new(directory, error))
}

/// Creates the directory of pins if `config` asks for pins, so that there is something to make a rule for. Why it cannot be
/// created is told when it is opened.
pub(crate) fn prepare(config: &Ebpf) {
    if config.pin && config.mode != EbpfMode::Off {
        drop(create(&config.pin_path));
    }
}

/// The contents of a directory of pins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// Number of interfaces with a pinned program.
    pub(crate) links: usize,
    /// A running daemon has locked the directory.
    pub(crate) in_use: bool,
}

/// Looks into `directory`; `None` if nothing is pinned there, or nothing that can be seen.
pub(crate) fn look(directory: &Path) -> Option<Pinned> {
    let is_link = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LINK));
    let links = files(directory).iter().filter(|path| is_link(path)).count();
    let in_use = match Pins::lock(directory) {
        Ok(_) => false,
        Err(PinError::OtherDaemon(_)) => true,
        Err(_) => return None,
    };
    (links > 0 || in_use).then_some(Pinned { links, in_use })
}

/// Warns if `directory` has flows of an earlier daemon that go on without a daemon.
pub(crate) fn warn_of_unowned(directory: &Path) {
    if look(directory).is_some_and(|pinned| !pinned.in_use) {
        tracing::warn!(
            "kernel plane: flows of an earlier daemon are still steered and no daemon uses them; `rpxy-l4 unpin --path \
             {}` ends them",
            directory.display()
        );
    }
}

/// Removes everything that is pinned in `directory`: its programs are detached and its flows end. Returns what there was;
/// `None` if nothing was.
///
/// # Errors
///
/// A running daemon uses the directory, or its files cannot be removed.
pub(crate) fn unpin(directory: &Path) -> Result<Option<Pinned>, PinError> {
    if !directory.exists() {
        return Ok(None);
    }
    let pinned = look(directory);
    let running = |error| if let PinError::OtherDaemon(path) = error { PinError::RunningDaemon(path) } else { error };
    let lock = Pins::lock(directory).map_err(running)?;
    for path in files(directory) {
        fs::remove_file(&path).map_err(|error| PinError::new(&path, error))?;
    }
    fs::remove_dir(directory).map_err(|error| PinError::new(directory, error))?;
    drop(lock);
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        for error in [Pins::open(directory.path()).unwrap_err(), unpin(directory.path()).unwrap_err()] {
            assert!(error.to_string().contains("mount -t bpf"), "{error}");
        }
        assert_eq!(unpin(&directory.path().join("nothing")).unwrap(), None);
    }
}
