//! Everything that tests put on the machine, by names that carry the id of their process: network namespaces,
//! directories with the file systems mounted in them, sockets of WireGuard.
//!
//! Each is removed by its owner's `Drop`. What a killed process has left is removed by the next one that builds a
//! network, and what a hanging test holds by the watchdog.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    OrFail as _,
    host::{ETC_DIRECTORY, RUN_DIRECTORY},
};

/// Before the process id in the name of a namespace.
const NAMESPACE: &str = "rx";
/// Before the process id in the name of a directory.
const DIRECTORY: &str = "rpxy-l4-tests-";
/// Before the process id in the name of an interface of WireGuard: 15 bytes at the most (`IFNAMSIZ`).
const TUNNEL: &str = "w";

/// Directory of the control sockets of userspace WireGuard, for all namespaces.
pub(crate) const TUNNEL_SOCKETS: &str = "/var/run/wireguard";

/// Makes a temporary directory. It may serve as a mount point.
///
/// # Panics
///
/// When it cannot be made.
#[track_caller]
pub fn directory() -> TempDir {
    let prefix = format!("{DIRECTORY}{}-", process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().or_fail("temporary directory")
}

/// Number of a network, which no other one of this process has.
pub(crate) fn instance() -> u32 {
    static INSTANCE: AtomicU32 = AtomicU32::new(0);
    INSTANCE.fetch_add(1, Ordering::Relaxed)
}

/// Name of a host's namespace.
pub(crate) fn namespace(instance: u32, letter: char) -> String {
    namespace_of(process::id(), instance, letter)
}

fn namespace_of(owner: u32, instance: u32, letter: char) -> String {
    format!("{NAMESPACE}{owner}-{instance}-{letter}")
}

/// Name of a WireGuard interface.
pub(crate) fn tunnel(number: u32) -> String {
    format!("{TUNNEL}{}x{number}", process::id())
}

/// Removes what processes that are no more have left, once in the life of this process.
pub(crate) fn remove_stale() {
    static STALE: Once = Once::new();
    STALE.call_once(|| remove_of(|owner| !is_alive(owner)));
}

fn is_alive(process: u32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}

/// Removes what this process has on the machine, and ends the programs that it has started.
pub(crate) fn remove_own() {
    remove_of(|owner| owner == process::id());
}

fn remove_of(is_wanted: impl Fn(u32) -> bool) {
    for (name, _) in owned(Path::new(RUN_DIRECTORY), NAMESPACE, '-', &is_wanted) {
        remove_namespace(&name);
    }
    for (_, path) in owned(&env::temp_dir(), DIRECTORY, '-', &is_wanted) {
        remove_directory(&path);
    }
    for (_, path) in owned(Path::new(TUNNEL_SOCKETS), TUNNEL, 'x', &is_wanted) {
        let _ignored = fs::remove_file(path);
    }
}

/// Entries of a directory named `<prefix><process id><separator>...` whose process is wanted.
fn owned(directory: &Path, prefix: &str, separator: char, is_wanted: impl Fn(u32) -> bool) -> Vec<(String, PathBuf)> {
    let owner = |name: &str| name.strip_prefix(prefix)?.split_once(separator)?.0.parse().ok();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    named.filter(|(name, _)| owner(name).is_some_and(&is_wanted)).collect()
}

/// Removes a namespace and ends the programs in it. Best effort: it runs in `Drop`, perhaps while a panic unwinds, and
/// the next process tries again.
pub(crate) fn remove_namespace(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_ascii_whitespace() {
            if let Some(pid) =
                pid.parse().ok().filter(|pid| *pid != process::id().cast_signed()).and_then(Pid::from_raw)
            {
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
    }
    let _ignored = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    let _ignored = fs::remove_dir_all(Path::new(ETC_DIRECTORY).join(name));
}

/// Unmounts what is mounted at or below a directory, which unpins the programs and maps there, and removes it.
fn remove_directory(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    for point in points.filter(|point| point.starts_with(path)) {
        let _ignored = Command::new("umount").arg("-l").arg(point).stderr(Stdio::null()).status();
    }
    let _ignored = fs::remove_dir_all(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::{Host, run},
        privilege,
        topology::Topology,
        wait,
    };

    #[test]
    fn the_dead_are_told_from_the_living() {
        assert!(is_alive(process::id()));
        // Above the kernel's limit of 2^22 (proc(5), pid_max).
        assert!(!is_alive(4_194_305));
    }

    #[test]
    fn what_one_process_has_is_removed_and_nothing_else() {
        if privilege::missing().is_some() {
            return assert!(!privilege::required());
        }
        // Alive, so that no other run of tests takes its things for stale.
        let mut owner = Command::new("sleep").arg("3600").spawn().unwrap();
        let stale = Host::new(namespace_of(owner.id(), 0, 'c'));
        run(Command::new("ip").args(["netns", "add", stale.name()])).unwrap();
        let mut left = stale.command("sleep").arg("3600").spawn().unwrap();
        wait::until("the process is in its namespace", || {
            let pids = Command::new("ip").args(["netns", "pids", stale.name()]).output().unwrap().stdout;
            (!pids.is_empty()).then_some(())
        });
        let mounted = env::temp_dir().join(format!("{DIRECTORY}{}-x", owner.id()));
        fs::create_dir(&mounted).unwrap();
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&mounted)).unwrap();
        let (own, live) = (directory(), Topology::new().unwrap());

        remove_of(|number| number == owner.id());
        assert!(!Path::new(RUN_DIRECTORY).join(stale.name()).exists());
        assert!(!mounted.exists());
        assert!(!left.wait().unwrap().success(), "the process in it was ended");
        owner.kill().and_then(|()| owner.wait()).unwrap();
        assert!(own.path().exists() && Path::new(RUN_DIRECTORY).join(live.client.name()).exists());
    }
}
