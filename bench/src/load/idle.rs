//! Idle connections: opened, used for one exchange so that the proxy has set up all that it needs, and kept.

use std::net::SocketAddrV4;

use anyhow::{Context as _, ensure};
use rustix::{
    fd::OwnedFd,
    io::{read, write},
    net::{Shutdown, shutdown},
};

use super::{MESSAGE, SETTLE, poller::dial_and_wait};
use rpxy_l4_tests::wait::pause;

/// Opens `count` connections to `target`, each proved to be relayed by one exchange. Dropping them closes them.
///
/// # Errors
///
/// When one of them fails; the error says which.
pub fn open(target: SocketAddrV4, count: usize) -> anyhow::Result<Vec<OwnedFd>> {
    (0..count).map(|number| exchange(target).with_context(|| format!("connection {number}"))).collect()
}

/// Opens one connection to `target` and makes one exchange over it.
///
/// # Errors
///
/// When nobody listens, or the echo is not the message or does not come.
pub fn exchange(target: SocketAddrV4) -> anyhow::Result<OwnedFd> {
    let socket = dial_and_wait(target)?;
    ensure!(write(&socket, MESSAGE).context("send")? == MESSAGE.len(), "short write");
    let mut buffer = [0; MESSAGE.len()];
    let mut received = 0;
    while received < buffer.len() {
        let count = read(&socket, &mut buffer[received..]).context("receive")?;
        ensure!(count > 0, "closed before the echo");
        received += count;
    }
    ensure!(buffer == *MESSAGE, "the echo is not the message");
    Ok(socket)
}

/// Opens one connection to `target`, sends the message and a moment later ends it, and waits for the other side to do the
/// same.
///
/// # Errors
///
/// When nobody listens, or something comes.
pub fn is_taken(target: SocketAddrV4) -> anyhow::Result<()> {
    let socket = dial_and_wait(target)?;
    ensure!(write(&socket, MESSAGE).context("send")? == MESSAGE.len(), "short write");
    pause(SETTLE);
    shutdown(&socket, Shutdown::Write)?;
    ensure!(read(&socket, &mut [0; MESSAGE.len()]).context("receive")? == 0, "answered");
    Ok(())
}

/// Opens one connection to `target` and waits for the first bytes that answer the message, whatever they are.
///
/// # Errors
///
/// When nobody listens, or nothing comes.
pub fn answers(target: SocketAddrV4) -> anyhow::Result<()> {
    let socket = dial_and_wait(target)?;
    ensure!(write(&socket, MESSAGE).context("send")? == MESSAGE.len(), "short write");
    ensure!(read(&socket, &mut [0; MESSAGE.len()]).context("receive")? > 0, "closed before the answer");
    Ok(())
}
