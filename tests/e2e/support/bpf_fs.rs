//! A BPF file system of a test's own, for pinned flows.

use std::{path::PathBuf, process::Command};

use rpxy_l4_tests::owned;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::steering::Steering;

/// A BPF file system of a test's own.
pub(crate) struct BpfFs(TempDir);

impl BpfFs {
    pub(crate) fn mount() -> Self {
        let directory = owned::directory();
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(directory.path()).status().unwrap();
        assert!(mounted.success());
        Self(directory)
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.0.path().join("rpxy-l4")
    }

    /// Keys of the table `[ebpf]` that pin here.
    pub(crate) fn keys(&self, mode: &str) -> String {
        format!("mode = \"{mode}\"\npin = true\npin_path = \"{}\"", self.pins().display())
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Kills the daemon as a fault would.
pub(crate) fn kill(steering: &mut Steering) {
    steering.daemon.process().signal(Signal::KILL).unwrap();
    steering.daemon.wait();
}
