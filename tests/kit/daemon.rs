//! The daemon under test: started with a configuration on the gateway, watched, and ended in good order.
//!
//! A test that ends well asserts more than it says: the daemon is still alive, has logged no WARN or ERROR that the
//! test did not name, stops with success when told to, and its access log has an end for every beginning. On a kernel
//! plane the programs were attached.

mod edit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit};
use serde_json::json;
use tempfile::TempDir;

pub use edit::Edit;

pub use crate::binary::{BINARY_VARIABLE, binary, missing_object, run_to_end};
use crate::{
    OrFail as _,
    admin::Admin,
    plane::{self, Plane},
    process::Process,
    topology::Host,
    wait,
};

/// Open files that a daemon may keep in reserve.
pub const SPARE_FILES: usize = 10;

/// What to start, and how.
#[derive(Debug)]
pub struct Builder {
    config: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    open_files: Option<u64>,
    capabilities: Option<String>,
    allowed: Vec<String>,
}

impl Builder {
    /// Adds arguments after `--config FILE`.
    #[must_use]
    pub fn args<A: ToString>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.to_string()));
        self
    }

    /// Sets a variable of the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Limits the daemon to `count` open files.
    #[must_use]
    pub fn open_files(mut self, count: u64) -> Self {
        self.open_files = Some(count);
        self
    }

    /// Leaves the daemon no capabilities but these, comma-separated as setpriv(1) names them.
    #[must_use]
    pub fn capabilities(mut self, names: &str) -> Self {
        self.capabilities = Some(names.to_owned());
        self
    }

    /// Starts with no file at the path that the daemon is given; [`Daemon::edit`] makes it.
    #[must_use]
    pub fn without_file(mut self) -> Self {
        self.config = None;
        self
    }

    /// Expects warnings and errors that contain `text`.
    #[must_use]
    pub fn allow(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it does not become ready.
    #[track_caller]
    pub fn start(self, host: &Host) -> Daemon {
        let daemon = self.launch(host);
        daemon.process.wait_for(0, "its ready line", |line| message(line).starts_with("ready")).or_fail("start");
        daemon
    }

    /// Starts the daemon and does not wait.
    ///
    /// # Panics
    ///
    /// When the program cannot be run.
    #[track_caller]
    pub fn launch(self, host: &Host) -> Daemon {
        let directory = tempfile::tempdir().or_fail("temporary directory");
        // The file is reached through a link, so that `Edit::Symlink` can swing it.
        let first = directory.path().join("0");
        fs::create_dir(&first).or_fail("directory");
        let plane = Plane::current().unwrap_or(Plane::Userspace);
        if let Some(config) = &self.config {
            let config = complete(config, plane, directory.path());
            fs::write(first.join("config.toml"), config).or_fail("write the configuration");
        }
        std::os::unix::fs::symlink("0", directory.path().join("current")).or_fail("link");
        let config = directory.path().join("current/config.toml");

        let mut command = match (self.open_files, &self.capabilities) {
            (None, None) => host.command(binary()),
            (Some(count), _) => {
                let mut command = host.command("prlimit");
                command.arg(format!("--nofile={count}:{count}")).arg(binary());
                command
            }
            (None, Some(names)) => {
                let mut command = host.command("setpriv");
                let set: String = names.split(',').map(|name| format!(",+{name}")).collect();
                command.args(["--inh-caps=-all", &format!("--bounding-set=-all{set}")]).arg(binary());
                command
            }
        };
        command.arg("--config").arg(&config).args(&self.arguments);
        command.env_remove("RUST_LOG").envs(self.environment);
        let process = Process::spawn("rpxy-l4", &mut command).or_fail("start the daemon");
        Daemon { process, directory, config, generation: 0, allowed: self.allowed, plane, ended: false }
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    directory: TempDir,
    config: PathBuf,
    generation: u32,
    allowed: Vec<String>,
    plane: Plane,
    ended: bool,
}

impl Daemon {
    /// Prepares a daemon with the configuration `config`, to which a short `drain_timeout` is added if it has none,
    /// so that tests end soon, and what the plane of the running test asks for.
    pub fn builder(config: &str) -> Builder {
        Builder {
            config: Some(config.to_owned()),
            arguments: Vec::new(),
            environment: Vec::new(),
            open_files: None,
            capabilities: None,
            allowed: Vec::new(),
        }
    }

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
        if self.plane.table().is_none() {
            return;
        }
        let lines = Admin::connect(&admin_socket(self.directory.path())).ask(&json!({ "command": "status" }));
        let kernel = &lines.first().or_fail("status")["kernel_plane"];
        let attached = kernel["interfaces"].as_array().is_some_and(|interfaces| !interfaces.is_empty());
        assert!(attached, "no kernel plane: {kernel}\n{}", self.process.transcript());
        // A counter that is zero is not told.
        plane::count(kernel["counters"]["steered"].as_u64().unwrap_or(0));
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
            assert_eq!(count(" stopped"), 1, "no `stopped` in the log:\n{}", self.process.transcript());
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

/// Level of a system log line: `<timestamp> <LEVEL> <message>`.
pub fn level(line: &str) -> Option<&str> {
    line.split_ascii_whitespace().nth(1)
}

/// Message of a system log line.
pub fn message(line: &str) -> &str {
    let after_word = |text| str::trim_start(text).split_once(' ').map_or("", |(_, rest)| rest);
    after_word(after_word(line)).trim_start()
}

fn admin_socket(directory: &Path) -> PathBuf {
    directory.join("admin")
}

/// Adds what every test wants and few care about. Keys at the top of a TOML file must come before its tables.
fn complete(config: &str, plane: Plane, directory: &Path) -> String {
    let drain = if config.contains("drain_timeout") { "" } else { "drain_timeout = \"1s\"\n" };
    match plane.table() {
        None => format!("{drain}{config}"),
        Some(table) => {
            let socket = admin_socket(directory);
            format!("{drain}admin_socket = \"{}\"\n{config}\n{table}", socket.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_taken_apart() {
        let line = "2026-01-01T00:00:00.000000Z  INFO ready: 2 sockets";
        assert_eq!(level(line), Some("INFO"));
        assert_eq!(message(line), "ready: 2 sockets");
        assert_eq!(message("2026-01-01T00:00:00.000000Z ERROR broken"), "broken");
        assert_eq!(message("one"), "");
    }
}
