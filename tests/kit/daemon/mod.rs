//! The daemon under test: started with a configuration on the gateway, watched, and ended in good order.
//!
//! A test that ends well asserts more than it says: the daemon is still alive, has logged no WARN or ERROR that the
//! test did not name, stops with success when told to, and its access log has an end for every beginning. On a kernel
//! plane the programs were attached.

mod builder;
mod edit;
mod log;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit};
use serde_json::json;
use tempfile::TempDir;

pub use self::{
    builder::Builder,
    edit::Edit,
    log::{level, message},
};
pub use crate::binary::{BINARY_VARIABLE, binary, logging_binary, missing_object, run_to_end};
use crate::{
    OrFail as _,
    admin::Admin,
    offload_mode::{self, OffloadMode},
    process::Process,
    topology::Host,
    wait,
};

/// Open files that a daemon may keep in reserve.
pub const SPARE_FILES: usize = 10;

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    directory: TempDir,
    config: PathBuf,
    generation: u32,
    allowed: Vec<String>,
    mode: OffloadMode,
    ended: bool,
}

impl Daemon {
    /// Starts a daemon with the configuration `config` on `host` and waits until it is ready.
    #[track_caller]
    pub fn start(host: &Host, config: &str) -> Self {
        Self::builder(config).start(host)
    }

    /// The process, for its output and signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Path of the configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Directory of the configuration, empty but for that and the admin socket of a kernel plane; removed with the daemon.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Expects warnings and errors that contain `text` from now on.
    pub fn allow(&mut self, text: &str) {
        self.allowed.push(text.to_owned());
    }

    /// Waits for a log line with `text`, from line number `from` on.
    #[track_caller]
    pub fn wait_for(&self, from: usize, text: &str) -> String {
        let what = format!("a line with {text:?}");
        self.process.wait_for(from, &what, |line| line.contains(text)).or_fail("log")
    }

    /// Log lines that contain `text`, so far.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        self.process.lines().into_iter().filter(|line| line.contains(text)).collect()
    }

    /// Open file descriptors.
    pub fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.pid());
        fs::read_dir(&path).or_fail(&path).count()
    }

    /// Waits until hardly more file descriptors are open than `before`.
    ///
    /// A daemon may keep a few for the next connection, such as pipes; so this tells something only after many more
    /// connections than [`SPARE_FILES`].
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_for_open_files(&self, before: usize) {
        let most = before + SPARE_FILES;
        wait::until(&format!("the daemon has at most {most} open files"), || (self.open_files() <= most).then_some(()));
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = fs::read_to_string(&path).or_fail(&path);
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).or_fail("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().or_fail("VmRSS") * 1024
    }

    /// Changes the limit on open files of the running daemon; it may be raised again.
    pub fn limit_open_files(&self, count: u64) {
        let pid = i32::try_from(self.process.pid()).ok().and_then(Pid::from_raw);
        // The hard limit, inherited from here, stays: only the privileged may raise it again.
        let limit = Rlimit { current: Some(count), maximum: getrlimit(Resource::Nofile).maximum };
        rustix::process::prlimit(pid, Resource::Nofile, limit).or_fail("prlimit");
    }

    /// Adds what has been steered so far to what the test has seen. Done at the end, unless the test itself ends the
    /// daemon.
    ///
    /// # Panics
    ///
    /// When there should be a kernel plane and is none.
    #[track_caller]
    pub fn count_steered(&self) {
        if self.mode.table().is_none() {
            return;
        }
        let lines = Admin::connect(&admin_socket(self.directory.path())).ask(&json!({ "command": "status" }));
        let kernel = &lines.first().or_fail("status")["kernel_plane"];
        let attached = kernel["interfaces"].as_array().is_some_and(|interfaces| !interfaces.is_empty());
        assert!(attached, "no kernel plane: {kernel}\n{}", self.process.transcript());
        // A counter that is zero is not told.
        let [counters, counted] = self.mode.counted();
        offload_mode::count(kernel[counters][counted].as_u64().unwrap_or(0));
    }

    /// Waits for the daemon to end by itself or by a signal that the test sent.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.ended = true;
        self.process.wait().or_fail("end of the daemon")
    }

    /// Asks the daemon to stop and asserts all that holds of a daemon that did well. Dropping does the same.
    ///
    /// # Panics
    ///
    /// When something does not hold.
    #[track_caller]
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if !self.ended {
            assert!(self.process.is_running(), "the daemon has ended:\n{}", self.process.transcript());
            self.count_steered();
            self.process.signal(Signal::TERM).or_fail("SIGTERM");
            let status = self.wait();
            assert!(status.success(), "the daemon ended with {status}:\n{}", self.process.transcript());
            let count = |text: &str| self.lines_with(text).len();
            let stopped = self.process.lines().iter().filter(|line| message(line) == "stopped").count();
            assert_eq!(stopped, 1, "no `stopped` in the log:\n{}", self.process.transcript());
            for (start, finish) in [("[start] ", "[finish] "), ("\"start\"", "\"finish\"")] {
                let unequal = "beginnings and ends in the access log differ";
                assert_eq!(count(start), count(finish), "{unequal}:\n{}", self.process.transcript());
            }
        }
        let alarming = |line: &String| matches!(level(line), Some("WARN" | "ERROR")) || line.contains("panicked at");
        let unexpected = |line: &String| !self.allowed.iter().any(|text| line.contains(text));
        let lines: Vec<_> = self.process.lines().into_iter().filter(alarming).filter(unexpected).collect();
        assert!(lines.is_empty(), "the daemon was not content: {lines:#?}\n{}", self.process.transcript());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.finish();
        }
    }
}

fn admin_socket(directory: &Path) -> PathBuf {
    directory.join("admin")
}
