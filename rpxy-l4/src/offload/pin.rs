//! What outlives the daemon (`ebpf.pin`): the links of its programs and the map of its flows, as files of a BPF file
//! system, in a directory that one daemon holds at a time.
//!
//! A program goes on with the maps that it was loaded with for as long as a link holds it. So the next daemon loads
//! programs and maps of its own, reads from the pinned map which flows there were, takes over their sessions, and only
//! then lets the pinned links run its programs: one step for each interface, between two packets
//! (`BPF_LINK_UPDATE`). Nothing but the map of flows has to fit, and its name has the number of its layout.

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
use rpxy_l4_proto::quic::ConnectionId;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};

use super::{
    Steered,
    attach::Plane,
    encode::{self, FlowBytes, FlowKeyBytes},
};

/// Magic number of a BPF file system (`linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// The map of flows; the number is that of the layout of its keys and values.
const FLOWS: &str = "flows-1";
/// The same, until the links run the programs that use it.
const NEW_FLOWS: &str = "flows-1-new";
/// How often a directory that is held is tried, and how long apart.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// What the names of links begin with; plane and number of the interface follow.
const LINK: &str = "link-";

/// The directory, held for as long as the value lives.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    _held: OwnedFd,
}

/// Why there is nothing pinned, and what to do about it.
fn refused(directory: &Path, error: &io::Error) -> String {
    let directory = directory.display();
    let remedies = [
        (io::ErrorKind::WouldBlock, "another daemon holds it: give each its own ebpf.pin_path"),
        (io::ErrorKind::InvalidInput, "it is in no BPF file system: mount -t bpf bpf /sys/fs/bpf"),
        (io::ErrorKind::PermissionDenied, "make the directory for the daemon's user"),
    ];
    let remedy = remedies.into_iter().find(|(kind, _)| *kind == error.kind());
    let remedy = remedy.map_or("see ebpf.pin_path", |(_, remedy)| remedy);
    format!("{directory}: {error}; {remedy}")
}

impl Pins {
    /// Holds the directory, which is made if need be.
    pub(super) fn open(directory: &Path) -> Result<Self, String> {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(directory);
        made.and_then(|()| Self::hold_patiently(directory)).map_err(|error| refused(directory, &error))
    }

    /// The daemon before this one may be about to end, and `doctor` may be looking.
    fn hold_patiently(directory: &Path) -> io::Result<Self> {
        for _ in 1..TRIES {
            match Self::hold(directory) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(PAUSE),
                result => return result,
            }
        }
        Self::hold(directory)
    }

    fn hold(directory: &Path) -> io::Result<Self> {
        if u64::try_from(statfs(directory)?.f_type).ok() != Some(BPF_FS_MAGIC) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot pin"));
        }
        let held = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { directory: directory.to_owned(), _held: held })
    }

    fn link_path(&self, index: u32, plane: Plane) -> PathBuf {
        self.directory.join(format!("{LINK}{}-{index}", plane.name()))
    }

    /// The link that an earlier daemon has left on an interface.
    pub(super) fn link(&self, index: u32, plane: Plane) -> Option<FdLink> {
        PinnedLink::from_pin(self.link_path(index, plane)).ok().map(FdLink::from)
    }

    /// Whether an earlier daemon's XDP program stands on an interface.
    pub(super) fn has_xdp(&self, index: u32) -> bool {
        [Plane::Xdp, Plane::XdpGeneric].iter().any(|plane| self.link_path(index, *plane).exists())
    }

    /// Pins a link, which then stays when it is dropped.
    pub(super) fn pin(&self, index: u32, plane: Plane, link: FdLink) -> Result<FdLink, String> {
        let path = self.link_path(index, plane);
        link.pin(&path).map(FdLink::from).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A link goes when it is dropped.
    pub(super) fn unpin(&self, index: u32, plane: Plane) {
        let _absent = fs::remove_file(self.link_path(index, plane));
    }

    /// Pins the flows of the programs that are about to run.
    pub(super) fn pin_flows(&self, flows: &MapData) -> Result<(), String> {
        let path = self.directory.join(NEW_FLOWS);
        let _absent = fs::remove_file(&path);
        flows.pin(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// They run: their flows are the ones to be found, and of the links only these are left.
    pub(super) fn settle(&self, kept: &HashSet<(u32, Plane)>) {
        let kept: HashSet<PathBuf> = kept.iter().map(|(index, plane)| self.link_path(*index, *plane)).collect();
        for path in files(&self.directory) {
            if path.file_name().is_some_and(|name| name != NEW_FLOWS) && !kept.contains(&path) {
                let _gone = fs::remove_file(path);
            }
        }
        if let Err(error) = fs::rename(self.directory.join(NEW_FLOWS), self.directory.join(FLOWS)) {
            tracing::warn!("kernel plane: a later daemon will not find the flows of this one: {error}");
        }
    }

    /// The sessions whose flows an earlier daemon has left, with all that their entries tell.
    pub(super) fn left(&self) -> Vec<Steered> {
        let path = self.directory.join(FLOWS);
        let map = match MapData::from_pin(&path) {
            Ok(data) => KernelMap::<_, FlowKeyBytes, FlowBytes>::try_from(Map::HashMap(data)),
            // The first daemon, or the first one with this layout.
            Err(_) => return Vec::new(),
        };
        match map {
            Ok(map) => {
                let entries: Vec<(FlowKey, Flow)> =
                    map.iter().flatten().filter_map(|(key, value)| encode::read_flow(&key, &value)).collect();
                sessions(&entries)
            }
            Err(error) => {
                tracing::warn!("kernel plane: the flows in {} cannot be read: {error}", path.display());
                Vec::new()
            }
        }
    }
}

/// Puts both directions of each session together.
fn sessions(entries: &[(FlowKey, Flow)]) -> Vec<Steered> {
    let keys: HashSet<&FlowKey> = entries.iter().map(|(key, _)| key).collect();
    // A session of which one direction is missing has just lost its way, or is being taken out.
    let whole = |flow: &Flow| keys.contains(&FlowKey { source: flow.destination, destination: flow.source });
    let told = |(key, flow): &(FlowKey, Flow)| {
        let mark = u16::from_ne_bytes(flow.mark);
        if mark == 0 || !whole(flow) {
            return None;
        }
        let cid = flow.cid.get(..usize::from(flow.cid_len)).filter(|cid| !cid.is_empty()).and_then(ConnectionId::new);
        Some(Steered {
            client: encode::address_of(&key.source)?,
            local: encode::address_of(&key.destination)?,
            upstream: encode::address_of(&flow.source)?,
            backend: encode::address_of(&flow.destination)?,
            kind: flow.kind,
            mark,
            cid,
        })
    };
    entries.iter().filter_map(told).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What is pinned in a directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Interfaces that a program stands on.
    pub links: usize,
    /// Whether a daemon holds them.
    pub held: bool,
}

/// Looks what is pinned in `directory`; `None` when there is nothing, or nothing that may be seen.
pub(super) fn look(directory: &Path) -> Option<Pinned> {
    let is_link = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LINK));
    let links = files(directory).iter().filter(|path| is_link(path)).count();
    let held = match Pins::hold(directory) {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Err(_) => return None,
    };
    (links > 0 || held).then_some(Pinned { links, held })
}

/// Says that flows go on which this daemon, without `pin`, does not know.
pub fn warn_of_left(directory: &Path) {
    if look(directory).is_some_and(|pinned| !pinned.held) {
        tracing::warn!(
            "kernel plane: flows of an earlier daemon go on without one; `rpxy-l4 unpin --path {}` ends them",
            directory.display()
        );
    }
}

/// Removes what is pinned in `directory`: programs that no daemon holds go from their interfaces, and flows end.
///
/// # Errors
///
/// Says why not; a running daemon holds them, above all.
pub fn unpin(directory: &Path) -> Result<Option<Pinned>, String> {
    let fail = |error: &io::Error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            format!("{}: a running daemon holds it; stop that first", directory.display())
        } else {
            refused(directory, error)
        }
    };
    if !directory.exists() {
        return Ok(None);
    }
    let pinned = look(directory);
    let held = Pins::hold(directory).map_err(|error| fail(&error))?;
    for path in files(directory) {
        fs::remove_file(path).map_err(|error| fail(&error))?;
    }
    fs::remove_dir(directory).map_err(|error| fail(&error))?;
    drop(held);
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const CLIENT: &str = "192.0.2.7:5000";
    const LOCAL: &str = "192.0.2.1:443";
    const UPSTREAM: &str = "10.0.0.1:40000";
    const BACKEND: &str = "10.0.0.2:443";

    /// The addresses of an entry, in order: those that its packets come with, then those that they leave with.
    fn entry(text: [&str; 4], mark: u16) -> (FlowKey, Flow) {
        let [from, to, source, destination] = text.map(|text| encode::socket(text.parse::<SocketAddr>().unwrap()));
        let flow = Flow { source, destination, mark: mark.to_ne_bytes(), ..Flow::default() };
        (FlowKey { source: from, destination: to }, flow)
    }

    #[test]
    fn both_directions_make_a_session() {
        let (forward, reverse) =
            (entry([CLIENT, LOCAL, UPSTREAM, BACKEND], 7), entry([BACKEND, UPSTREAM, LOCAL, CLIENT], 0));
        let v6 = ["[2001:db8::7]:5000", "[2001:db8::1]:443", "[fd00::1]:40000", "[fd00::2]:443"];
        let back = [v6[3], v6[2], v6[1], v6[0]];
        let mut with_id = entry(v6, 9);
        with_id.1.cid_len = 4;
        with_id.1.cid[..4].copy_from_slice(b"abcd");
        let found = sessions(&[forward, reverse, entry(back, 0), with_id]);
        let text = |flow: &Steered| {
            let ends = [flow.client, flow.local, flow.upstream, flow.backend].map(|end| end.to_string());
            (ends, flow.mark, flow.cid.as_ref().map(|cid| cid.as_bytes().to_vec()))
        };
        let found: Vec<_> = found.iter().map(text).collect();
        assert_eq!(
            found,
            [
                ([CLIENT, LOCAL, UPSTREAM, BACKEND].map(str::to_owned), 7, None),
                (v6.map(str::to_owned), 9, Some(b"abcd".to_vec())),
            ]
        );
    }

    #[test]
    fn half_a_session_is_none() {
        let rows = [
            ("the answers' half is missing", vec![entry([CLIENT, LOCAL, UPSTREAM, BACKEND], 7)]),
            ("the client's half is missing", vec![entry([BACKEND, UPSTREAM, LOCAL, CLIENT], 0)]),
            (
                "the other half is another session's",
                vec![
                    entry([CLIENT, LOCAL, UPSTREAM, BACKEND], 7),
                    entry([BACKEND, "10.0.0.1:40001", LOCAL, CLIENT], 0),
                ],
            ),
        ];
        for (name, entries) in rows {
            assert!(sessions(&entries).is_empty(), "{name}");
        }
    }

    #[test]
    fn another_file_system_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let said = Pins::open(directory.path()).unwrap_err();
        assert!(said.contains("mount -t bpf"), "{said}");
        assert!(unpin(directory.path()).unwrap_err().contains("mount -t bpf"));
        assert_eq!(unpin(&directory.path().join("nothing")), Ok(None));
    }
}
