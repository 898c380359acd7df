//! `rpxy-l4 upgrade`: starts this binary as the successor of the running daemon, and stays until it serves. The successor
//! goes on by itself, as whatever started this command would have started it: with its environment and output.

use std::{
    io::{BufRead as _, BufReader, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client;
use crate::{admin, cli::UpgradeArgs, net::unix};

/// Interval of looking whether the successor serves.
const LOOK: Duration = Duration::from_millis(50);
/// Time that it has: more than it gives itself.
const LIMIT: Duration = Duration::from_secs(120);

/// Has the daemon of the configuration file succeeded by this binary.
///
/// # Errors
///
/// The successor has not come. The daemon serves as before, and both have said why.
pub(super) fn run(arguments: &UpgradeArgs, out: &mut dyn Write) -> Result<()> {
    let UpgradeArgs { config, admin_socket, log_dir, json, if_changed } = arguments;
    let socket = client::configured(config, admin_socket.as_deref())?;
    let before = status(&socket).with_context(|| format!("no daemon answers at {}", socket.display()))?;
    if *if_changed && admin::own_binary().is_some_and(|own| before["binary"] == own) {
        writeln!(out, "the running daemon is this binary already")?;
        return Ok(());
    }
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    command.arg("--take-over").arg("--config").arg(config);
    if let Some(socket) = admin_socket {
        command.arg("--admin-socket").arg(socket);
    }
    // Where it logged, it logs.
    let directory = log_dir.clone().or_else(|| before["log_dir"].as_str().map(PathBuf::from));
    if let Some(directory) = directory {
        // All that it says is in there, and whoever reads this command's output must not wait for the daemon's end.
        command.arg("--log-dir").arg(directory).stdout(Stdio::null()).stderr(Stdio::null());
    }
    if *json || before["log_json"] == true {
        command.arg("--json");
    }
    // Not for it: sockets of the service manager come from the predecessor.
    for variable in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    // What ends this command by the terminal does not end the daemon.
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn().context("cannot start")?;
    wait(&mut child, &socket)?;
    writeln!(out, "process {} has taken over from process {}", child.id(), before["pid"])?;
    Ok(())
}

fn wait(child: &mut Child, socket: &Path) -> Result<()> {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("the successor has ended ({status}), the daemon serves as before; the log of either says why");
        }
        // Between the two nobody answers for a moment.
        if status(socket).is_ok_and(|status| status["pid"] == child.id()) {
            return Ok(());
        }
        if Instant::now() > until {
            child.kill()?;
            bail!("the successor was not ready within {LIMIT:?}, the daemon serves as before");
        }
        thread::park_timeout(LOOK);
    }
}

fn status(socket: &Path) -> Result<Value> {
    let mut stream = unix::connect(socket, LIMIT)?;
    client::believe(socket, &stream)?;
    stream.write_all(b"{\"command\":\"status\"}\n")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
