//! The daemon that this one succeeds: it hands over its listening sockets, then its UDP sessions, and serves until this
//! one does.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::socket_peercred;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{
    daemon::Daemon,
    hand_over::{self, FromPredecessor, FromSuccessor, OfListener, OfWorker, PATIENCE, Rest, START, VERSION},
};
use crate::{
    admin,
    net::{Channel, unix},
    trust,
    udp::Control,
};

/// The conversation with the predecessor. Dropping it leaves the predecessor serving, unless it is over.
#[derive(Debug)]
pub(super) struct Predecessor(Channel);

impl Predecessor {
    /// Asks the daemon at this admin socket to hand over, and takes its listening sockets. It goes on to serve them.
    ///
    /// # Errors
    ///
    /// There is no such daemon, or it refuses and says why.
    pub(super) fn meet(path: &Path) -> Result<(Self, Vec<OfListener>, Rest)> {
        let mut stream =
            unix::connect(path, PATIENCE).context("no daemon answers there; start one without --take-over")?;
        let peer = socket_peercred(&stream).context("cannot find out who answers")?.uid.as_raw();
        trust::may_answer(path, peer).with_context(|| format!("user {peer} answers, who may not be the daemon"))?;
        let hello = admin::Command::HandOver { version: VERSION };
        stream.write_all(format!("{}\n", serde_json::to_string(&hello)?).as_bytes())?;
        let answer: Value = serde_json::from_str(&line(&mut stream)?).context("not a daemon of rpxy-l4")?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{error} ({})", answer["remedy"].as_str().unwrap_or("restart it instead"));
        }
        let mut channel = Channel::new(stream, PATIENCE)?;
        let mut sockets = Vec::new();
        loop {
            match hand_over::receive(&mut channel).context("the running daemon")? {
                (FromPredecessor::Socket(handed), Some(socket)) => sockets.push((handed, socket)),
                (FromPredecessor::Sockets(rest), None) => return Ok((Self(channel), sockets, rest)),
                (message, _) => bail!("the running daemon says something unexpected: {message:?}"),
            }
        }
    }

    /// Says that this daemon can serve, and takes the sessions. The predecessor has stopped when this returns.
    pub(super) fn ready(mut self) -> Result<(Self, Vec<OfWorker>)> {
        hand_over::send(&mut self.0, &FromSuccessor::Ready, None)?;
        let mut handed = Vec::new();
        loop {
            match hand_over::receive(&mut self.0).context("the running daemon")? {
                (FromPredecessor::Udp(worker, what), socket) => handed.push((worker, what, socket)),
                (FromPredecessor::Go, None) => return Ok((self, handed)),
                (message, _) => bail!("the running daemon says something unexpected: {message:?}"),
            }
        }
    }

    /// Says that this daemon serves, and waits until the predecessor has taken note.
    pub(super) fn serving(mut self) -> Result<()> {
        hand_over::send(&mut self.0, &FromSuccessor::Serving { pid: std::process::id() }, None)?;
        match hand_over::receive(&mut self.0)? {
            (FromPredecessor::Done, None) => Ok(()),
            (message, _) => bail!("it says something unexpected: {message:?}"),
        }
    }
}

impl Daemon {
    /// Takes the place of `predecessor`, whose UDP sessions the workers have.
    pub(super) async fn succeed(&mut self, predecessor: Predecessor) -> Result<()> {
        let (mut taken, mut lost) = (0, 0);
        for told in self.listeners.ask_udp(Control::TakenOver) {
            let (of_worker, not) = told.await.unwrap_or_default();
            taken += of_worker;
            lost += not;
        }
        tracing::info!("UDP sessions of the daemon before: {taken} go on, {lost} do not");
        let told = spawn_blocking(move || predecessor.serving()).await.context("internal error")?;
        if let Err(error) = told {
            // It has ended, or goes on for ever: two daemons accept from one socket, and neither loses anything.
            tracing::warn!("the daemon before has not taken note that this one serves: {error:#}");
        }
        self.listeners.settle();
        if let Some(kernel) = &self.kernel {
            kernel.take_hooks();
        }
        Ok(())
    }
}

/// One line without its end, and not a byte more: what follows comes with descriptors.
fn line(stream: &mut UnixStream) -> Result<String> {
    let mut text = Vec::new();
    loop {
        let mut byte = [0];
        stream.set_read_timeout(Some(START))?;
        if stream.read(&mut byte).context("the running daemon does not answer")? == 0 {
            bail!("the running daemon closes the connection");
        }
        match byte {
            [b'\n'] => return Ok(String::from_utf8(text)?),
            [byte] if text.len() < 4096 => text.push(byte),
            _ => bail!("not a daemon of rpxy-l4"),
        }
    }
}
