//! Accepting connections on one socket of one worker.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    time::{sleep, timeout},
};

use super::{
    Listener, Shared, UNNAMED,
    connection::{Accepted, serve},
    is_unnamed, now_or_never,
    record::Record,
    refused::Seen,
    registry::{self, Entered},
    source::Introduction,
};
use crate::{
    metrics::Outcome,
    net::{self, Address},
};

/// A listening socket of one worker.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Of TCP.
    Tcp(TcpListener),
    /// A unix socket, which all workers have.
    Unix(UnixListener),
}

impl Socket {
    /// The socket that `bound` is.
    pub(crate) fn new(bound: net::Bound) -> io::Result<Self> {
        Ok(match bound {
            net::Bound::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            net::Bound::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// Changes the length of the accept queue.
    pub(crate) fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => net::set_backlog(socket, backlog),
            Self::Unix(socket) => net::set_backlog(socket, backlog),
        }
    }

    /// Has the acknowledgements of what connections begin with wait for the answer, or not.
    fn hold_acknowledgements(&self, held: bool) {
        if let Self::Tcp(socket) = self
            && let Err(error) = net::repair::hold_acknowledgements(socket, held)
        {
            tracing::debug!("acknowledgements of first bytes cannot be held back: {error}");
        }
    }

    /// The same socket by another descriptor.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(socket) => socket.as_fd().try_clone_to_owned(),
            Self::Unix(socket) => socket.as_fd().try_clone_to_owned(),
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Tcp(socket) => socket.accept().await,
            Self::Unix(socket) => {
                let (stream, _unnamed) = socket.accept().await?;
                Ok((net::unix::served_as_tcp(stream.into_std()?)?, UNNAMED))
            }
        }
    }
}

/// Accepts on `socket`, which is bound to `address`, until `stop` resolves; then takes what is already waiting, so that
/// closing the socket resets nobody.
pub(crate) async fn accept(socket: Arc<Socket>, address: Address, shared: Arc<Shared>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut serves = Serves { address, listener: None, socket: Arc::clone(&socket), holds: false };
    serves.follow(&shared);
    let mut replaced = shared.replaced.subscribe();
    loop {
        tokio::select! {
            biased;
            accepted = next(&socket, &shared) => match accepted {
                Ok((stream, peer)) => serves.admit(stream, peer, &shared),
                Err(error) => failed(&error, &shared),
            },
            () = &mut stop => break,
            Ok(()) = replaced.changed() => serves.follow(&shared),
        }
    }
    while let Some(accepted) = now_or_never(socket.accept()).await {
        match accepted {
            Ok((stream, peer)) => serves.admit(stream, peer, &shared),
            Err(error) if net::is_of_one_connection(&error) => {}
            Err(_exhausted) => break,
        }
    }
}

/// The next connection, once nothing is short. The kernel keeps those that wait.
async fn next(socket: &Socket, shared: &Shared) -> io::Result<(TcpStream, SocketAddr)> {
    while let Some(left) = shared.backoff.pause(Instant::now) {
        sleep(left).await;
    }
    while shared.active.count() >= shared.descriptors.room() && shared.active.count() >= shared.descriptors.measure() {
        // The limit may be raised meanwhile.
        drop(timeout(MEASURE_AGAIN, shared.active.below(shared.descriptors.room())).await);
    }
    socket.accept().await
}

/// Interval of looking at the limit on open files while connections wait for descriptors.
const MEASURE_AGAIN: Duration = Duration::from_millis(100);

/// The listener that a socket serves.
struct Serves {
    address: Address,
    /// The one that it had last: connections may wait on a socket that the present configuration has no more.
    listener: Option<Arc<Listener>>,
    socket: Arc<Socket>,
    /// Acknowledgements of first bytes wait for a hand-over.
    holds: bool,
}

impl Serves {
    /// Takes the present configuration's, so that nothing of an earlier one stays in use on a quiet socket.
    fn follow(&mut self, shared: &Shared) {
        if let Some(listener) = shared.snapshot.load().at(&self.address) {
            self.listener = Some(Arc::clone(listener));
            if listener.splices != self.holds {
                self.holds = listener.splices;
                self.socket.hold_acknowledgements(self.holds);
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
        self.follow(shared);
        if let Some(listener) = &self.listener {
            admit(listener, stream, peer, &self.address, shared);
        }
    }
}

/// Serves a connection that was accepted at `address`, or counts why not.
fn admit(listener: &Arc<Listener>, stream: TcpStream, peer: SocketAddr, address: &Address, shared: &Arc<Shared>) {
    listener.accepted.add();
    let refused = |outcome| {
        // No task, no permit: who is not let in must not keep others out.
        shared.metrics.tcp_accepted();
        shared.metrics.tcp_ended(outcome, 0, 0);
        shared.refused(listener, &stream, &Seen::new(peer), outcome);
    };
    if !is_unnamed(peer) && shared.bans.refuses(peer.ip()) {
        return refused(Outcome::Banned);
    }
    if listener.refuses(peer, Introduction::None).is_some() {
        return refused(Outcome::Denied);
    }
    let place = match shared.place(listener, peer, Introduction::None) {
        Ok(place) => place,
        Err(outcome) => return refused(outcome),
    };
    let max = listener.settings.max_connections.get();
    let Some(permit) = listener.connections.acquire(max) else {
        refused(Outcome::TooMany);
        if let Some(withheld) = listener.connections.said().speak(Instant::now()) {
            let of = listener.settings.max_connections_of.as_ref().map(|name| format!(" of listener {name}"));
            tracing::warn!(
                "tcp_max_connections ({max}){} reached: closing new connections ({withheld} closed since the last such \
                 line)",
                of.unwrap_or_default()
            );
        }
        return;
    };
    let entered = Entered::new(listener.source(peer), address.clone(), Arc::clone(&listener.name));
    let slot = entered.slot();
    let record = Record::new(Arc::clone(shared), Arc::clone(listener), permit, place, entered).into();
    let task = tokio::spawn(serve(Arc::clone(shared), Arc::clone(listener), Accepted { stream, peer }, record));
    registry::run_by(slot, task.abort_handle());
}

/// Errors of one connection that broke before it was accepted are passed over (accept(2), "Error handling"); any other
/// would come again at once, so accepting pauses.
fn failed(error: &io::Error, shared: &Shared) {
    if net::is_of_one_connection(error) {
        tracing::trace!("accept: {error}");
        return;
    }
    shared.metrics.accept_paused();
    shared.descriptors.measure();
    shared.backoff.exhausted(error, Instant::now());
}
