//! `rpxy-l4 upgrade`: starts this binary as the successor of the running daemon, and stays until it serves. The successor
//! goes on by itself, as whatever started this command would have started it: with its environment and output.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
    let socket = client::configured(config, admin_socket.as_deref(), "--admin-socket")?;
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
    // It keeps its end until it ends.
    let (alive, its) = UnixStream::pair().context("cannot start")?;
    let detached = command.arg("--detach").stdin(OwnedFd::from(its)).status().context("cannot start")?;
    drop(command);
    if !detached.success() {
        bail!("the successor cannot be started ({detached})");
    }
    let successor = wait(&alive, &socket, &before["pid"])?;
    writeln!(out, "process {successor} has taken over from process {}", before["pid"])?;
    Ok(())
}

/// Starts this very command without `--detach`, and does not wait for it.
///
/// The parent of a service has to be the service manager when that is told of the new process, or it does not see its end
/// (`service_set_main_pid` in systemd), and stops it by SIGKILL.
pub(crate) fn detach() -> Result<()> {
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--detach");
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    // What ends the one who waits by the terminal does not end the daemon.
    command.args(arguments).process_group(0).spawn().context("cannot start")?;
    Ok(())
}

/// Waits until another process than `before` answers at the socket, and returns its number.
fn wait(mut alive: &UnixStream, socket: &Path, before: &Value) -> Result<u64> {
    let until = Instant::now() + LIMIT;
    alive.set_read_timeout(Some(LOOK))?;
    while Instant::now() < until {
        // Between the two nobody answers for a moment.
        let answers = status(socket).ok().and_then(|status| status["pid"].as_u64());
        if let Some(successor) = answers.filter(|pid| Some(*pid) != before.as_u64()) {
            return Ok(successor);
        }
        if matches!(alive.read(&mut [0]), Ok(0)) {
            bail!("the successor has ended, the daemon serves as before; the log of either says why");
        }
    }
    bail!("the successor was not ready within {LIMIT:?}, the daemon serves as before");
}

fn status(socket: &Path) -> Result<Value> {
    let mut stream = unix::connect(socket, LIMIT)?;
    client::believe(socket, &stream)?;
    stream.write_all(b"{\"command\":\"status\"}\n")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
