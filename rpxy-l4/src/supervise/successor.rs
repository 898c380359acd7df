//! The daemon that succeeds this one: it gets the listening sockets, and when it is ready, the UDP sessions. This one goes
//! on to serve until the other one does; whatever fails before leaves it as it was.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{
    admin,
    daemon::Daemon,
    hand_over::{self, FromPredecessor, FromSuccessor, HandedSocket, OfListener, PATIENCE, Rest, START, VERSION},
    notify::Notify,
    page, scrape,
    worker::ListenCommand,
};
use crate::{
    admin::{Refusal, Successor},
    config::model::Transport,
    limit::BanSource,
    net::{Address, Channel},
    offload::Kernel,
    udp::{self, Control, HandOver},
};

/// Wait for a worker, which does nothing else meanwhile.
const WORKER: Duration = Duration::from_secs(5);

/// The successor that is starting, if any.
#[derive(Debug, Default)]
pub(super) struct Handing {
    starting: Option<JoinHandle<Result<Channel>>>,
}

impl Handing {
    /// The successor is ready, or has failed; never where there is none. Cancel-safe.
    pub(super) async fn ready(&mut self) -> Result<Channel> {
        let Some(starting) = &mut self.starting else { return std::future::pending().await };
        let channel = starting.await;
        self.starting = None;
        channel.context("internal error")?
    }

    /// Gives a successor the listening sockets, or says why not.
    pub(super) fn begin(&mut self, successor: Successor, daemon: &Daemon, notify: &Notify) {
        let Successor { stream, version } = successor;
        if let Some(refusal) = self.refuses(version, daemon) {
            tracing::warn!("no successor: {}", refusal.error);
            tokio::spawn(answer(stream, serde_json::to_string(&refusal).unwrap_or_default()));
            return;
        }
        tracing::info!("a successor is starting: it gets the listening sockets");
        let tcp = daemon.listeners.ask_tcp(ListenCommand::Share);
        let udp = daemon.listeners.ask_udp(Control::Share);
        let (rest, passed) = (daemon.rest(notify), daemon.listeners.passed_sockets());
        self.starting = Some(tokio::spawn(async move {
            let mut sockets = passed?;
            // The service manager's are shared by the workers.
            let passed: HashSet<(Transport, Address)> = sockets.iter().map(|(handed, _)| handed.key()).collect();
            let mut add = |transport, worker, told: Vec<(Address, OwnedFd)>| {
                let others = told.into_iter().filter(|(address, _)| !passed.contains(&(transport, address.clone())));
                sockets.extend(others.map(|(address, socket)| (HandedSocket::new(transport, address, worker), socket)));
            };
            for (worker, told) in tcp.into_iter().enumerate() {
                add(Transport::Tcp, worker, timeout(WORKER, told).await.context("a worker does not answer")???);
            }
            for (worker, told) in udp.into_iter().enumerate() {
                let told = timeout(WORKER, told).await.context("a worker does not answer")???;
                add(Transport::Udp, worker, told.into_iter().map(|(address, of)| (Address::Ip(address), of)).collect());
            }
            let stream = answer(stream, format!("{{\"hand_over\":{VERSION}}}")).await?;
            spawn_blocking(move || start(stream, sockets, rest)).await?
        }));
    }

    /// Why there can be no successor now.
    fn refuses(&self, version: u32, daemon: &Daemon) -> Option<Refusal> {
        let refusal = |error: String, remedy: &str| Some(Refusal { error, remedy: remedy.to_owned() });
        if version != VERSION {
            let error = format!("this daemon hands over by version {VERSION}, its successor by {version}");
            return refusal(error, "restart it instead");
        }
        if self.starting.is_some() {
            return refusal("another successor is starting".to_owned(), "wait for it");
        }
        if daemon.is_drained() {
            let error = "something is drained by command, which a successor would undo".to_owned();
            return refusal(error, "put it back into service first: rpxy-l4 up");
        }
        // The maps of pins, and the filters of clsact, are one daemon's at a time, while this one's connections go on in them.
        let clsact = |kernel: &Arc<Kernel>| kernel.attachments().iter().any(|(_, kind)| *kind == "clsact");
        let of_one = |kernel: &Arc<Kernel>| kernel.splices() && (daemon.config.ebpf.pin || clsact(kernel));
        if daemon.kernel.as_ref().is_some_and(of_one) {
            let error = "spliced TCP connections cannot be left to go on with ebpf.pin or before Linux 6.6".to_owned();
            return refusal(
                error,
                "restart it instead: with ebpf.pin they go on, as steered sessions do; or set ebpf.tcp = \"off\"",
            );
        }
        None
    }
}

/// Gives the listening sockets, and waits until the successor is ready.
fn start(stream: std::os::unix::net::UnixStream, sockets: Vec<OfListener>, rest: Rest) -> Result<Channel> {
    let mut channel = Channel::new(stream, PATIENCE)?;
    for (handed, socket) in sockets {
        hand_over::send(&mut channel, &FromPredecessor::Socket(handed), Some(socket.as_fd()))?;
    }
    hand_over::send(&mut channel, &FromPredecessor::Sockets(rest), None)?;
    channel.set_patience(START)?;
    match hand_over::receive(&mut channel)? {
        (FromSuccessor::Ready, None) => {}
        (message, _) => bail!("it says something unexpected: {message:?}"),
    }
    channel.set_patience(PATIENCE)?;
    Ok(channel)
}

/// Writes a line and gives back the stream.
async fn answer(mut stream: UnixStream, line: String) -> Result<std::os::unix::net::UnixStream> {
    timeout(PATIENCE, stream.write_all(format!("{line}\n").as_bytes())).await??;
    Ok(stream.into_std()?)
}

impl Daemon {
    /// What a successor has to know beside the sockets.
    fn rest(&self, notify: &Notify) -> Rest {
        let bans = self.bans.list().into_iter().filter(|(_, source)| *source == BanSource::Command);
        let (notify, watchdog) = notify.to_hand_over();
        Rest { notify, watchdog, bans: bans.map(|(network, _)| network).collect() }
    }

    /// Gives a successor that is ready all that is left, and waits until it serves. Returns whether it does; otherwise
    /// everything is as it was.
    pub(super) async fn hand_over(&mut self, ready: Result<Channel>, notify: &mut Notify) -> bool {
        let handed = match ready {
            Ok(channel) => self.hand_over_to(channel, notify).await,
            Err(error) => Err(error),
        };
        match handed {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("the successor has not come, this daemon goes on: {error:#}");
                false
            }
        }
    }

    async fn hand_over_to(&mut self, channel: Channel, notify: &mut Notify) -> Result<()> {
        let result = self.freeze_and_give(channel).await;
        let given = match result {
            Ok(channel) => self.wait_for_successor(channel).await,
            Err(error) => Err(error),
        };
        match given {
            Ok((mut channel, pid)) => {
                notify.hand_over(pid);
                self.listeners.leave();
                if let Some(kernel) = &self.kernel {
                    kernel.leave_hooks();
                }
                // Should it not hear it, it goes on all the same.
                drop(hand_over::send(&mut channel, &FromPredecessor::Done, None));
                Ok(())
            }
            Err(error) => {
                self.listeners.tell_udp(|| Control::Thaw);
                self.serve_again();
                Err(error)
            }
        }
    }

    /// Stops UDP, and gives its sessions; then stops the endpoints of metrics, status page and commands, whose addresses the
    /// successor needs.
    async fn freeze_and_give(&mut self, channel: Channel) -> Result<Channel> {
        for frozen in self.listeners.ask_udp(Control::Freeze) {
            timeout(WORKER, frozen).await.context("a UDP worker does not answer")?.context("a UDP worker has ended")?;
        }
        let channel = Arc::new(Mutex::new(channel));
        for worker in 0..self.listeners.workers() {
            let to = Arc::clone(&channel);
            let (done, given) = oneshot::channel();
            let give = Box::new(move |handed: &udp::Handed, socket: Option<BorrowedFd<'_>>| {
                let message = serde_json::to_vec(&FromPredecessor::Udp(worker, handed.clone()))?;
                to.lock().unwrap_or_else(PoisonError::into_inner).send(&message, socket)
            });
            self.listeners.tell_udp_worker(worker, Control::HandOver(HandOver { give, done }));
            let count = timeout(START, given).await.context("a UDP worker does not answer")??;
            tracing::debug!("udp-{worker} has handed over {} sessions", count?);
        }
        let channel = Arc::into_inner(channel).and_then(|channel| channel.into_inner().ok());
        let mut channel = channel.context("a UDP worker keeps the conversation")?;
        self.close_metrics().await;
        self.close_page().await;
        self.close_admin().await;
        hand_over::send(&mut channel, &FromPredecessor::Go, None)?;
        Ok(channel)
    }

    /// Waits until the successor serves; returns its process.
    async fn wait_for_successor(&self, mut channel: Channel) -> Result<(Channel, u32)> {
        let told = spawn_blocking(move || {
            let message = hand_over::receive(&mut channel)?;
            Ok::<_, io::Error>((channel, message))
        });
        match told.await.context("internal error")?? {
            (channel, (FromSuccessor::Serving { pid }, None)) => Ok((channel, pid)),
            (_, (message, _)) => bail!("it says something unexpected: {message:?}"),
        }
    }

    /// Opens the endpoints of metrics, status page and commands again.
    fn serve_again(&mut self) {
        match scrape::bind(&self.config, None) {
            Ok(listener) => self.serve_metrics(listener),
            Err(error) => tracing::error!("metrics are not served any more: {error:#}"),
        }
        match page::bind(&self.config, None) {
            Ok(listener) => self.serve_page(listener),
            Err(error) => tracing::error!("the status page is not served any more: {error:#}"),
        }
        match admin::bind(&self.config) {
            Ok(listener) => self.serve_admin(listener),
            Err(error) => tracing::error!("commands are not taken any more: {error:#}"),
        }
    }
}
