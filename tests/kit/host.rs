//! One host of the tests' network: a network namespace, and what runs in it.

use std::{
    fs,
    io::Write as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::waiting::Waiting;

/// Directory of the namespaces, by their names.
pub(crate) const RUN_DIRECTORY: &str = "/run/netns";
/// Directory in which `ip netns exec` finds the files that replace those in `/etc` for a namespace.
pub(crate) const ETC_DIRECTORY: &str = "/etc/netns";

/// One host: a network namespace.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
}

impl Host {
    /// The host of a name; its namespace need not be there yet.
    pub(crate) fn new(name: String) -> Self {
        Self { name }
    }

    /// Name of the namespace, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs on this host. The child's process id is that of the program itself.
    ///
    /// The program sees the files of [`Host::etc`] in place of those in `/etc`.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.as_ref());
        command
    }

    /// Runs `work` on a thread of its own that has entered this host, and returns what it returns.
    ///
    /// Sockets belong for ever to the host where they were made, so it is enough to make them here.
    ///
    /// # Panics
    ///
    /// When `work` panics, or the host cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = thread::scope(|scope| scope.spawn(|| self.enter().map(|()| work())).join());
        match entered {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => panic!("cannot enter {}: {error:#}", self.name),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts `work` on a thread of its own that has entered this host.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let host = self.clone();
        thread::spawn(move || match host.enter() {
            Ok(()) => work(),
            Err(error) => panic!("cannot enter {}: {error:#}", host.name),
        })
    }

    /// Sets a key under `/proc/sys/net` of this host, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the value or has no such key.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| fs::write(&path, value)).with_context(|| format!("{}: {}", self.name, path.display()))
    }

    /// Reads a key under `/proc/sys/net` of this host.
    ///
    /// # Errors
    ///
    /// When the kernel has no such key.
    pub fn read_sysctl(&self, key: &str) -> anyhow::Result<String> {
        let path = Path::new("/proc/sys/net").join(key);
        let text = self.run(|| fs::read_to_string(&path)).with_context(|| format!("{}: {key}", self.name))?;
        Ok(text.trim().to_owned())
    }

    /// Runs one `ip` command on this host, its words separated by spaces.
    ///
    /// # Errors
    ///
    /// When `ip` fails; its own words are in the error.
    pub fn ip(&self, words: &str) -> anyhow::Result<()> {
        run(Command::new("ip").args(["-n", &self.name]).args(words.split_ascii_whitespace()))
    }

    /// Changes features of a device, such as `tx off`, its words separated by spaces.
    ///
    /// # Errors
    ///
    /// When `ethtool` fails; its own words are in the error.
    pub fn ethtool(&self, device: &str, features: &str) -> anyhow::Result<()> {
        let mut command = Command::new("ethtool");
        command.args(["-K", device]).args(features.split_ascii_whitespace());
        self.run(|| run(&mut command))
    }

    /// Directory of files that programs on this host see in place of those in `/etc`, such as `resolv.conf` and
    /// `hosts`. A file that is there when the program starts must be changed in place, not replaced.
    pub fn etc(&self) -> PathBuf {
        Path::new(ETC_DIRECTORY).join(&self.name)
    }

    fn enter(&self) -> anyhow::Result<()> {
        let path = Path::new(RUN_DIRECTORY).join(&self.name);
        let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("setns")
    }
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let _waiting = Waiting::begin(&format!("{command:?} ends"));
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Runs lines of `ip` commands, on `host` if there is one.
pub(crate) fn ip_batch(host: Option<&Host>, lines: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    if let Some(host) = host {
        command.args(["-n", host.name()]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip (package iproute2)")?;
    child.stdin.take().context("stdin of ip")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip -batch: {}\n{lines}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
