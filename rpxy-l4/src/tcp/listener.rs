//! Accepting connections on one socket of one worker.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{
    Shared,
    connection::{Accepted, serve},
    now_or_never,
    record::Record,
    refused::Seen,
    source::Introduction,
};
use crate::{metrics::Outcome, net};

/// Accepts on `listener` until `stop` resolves; then takes what is already waiting, so that closing the socket resets
/// nobody.
pub(crate) async fn accept(listener: Arc<TcpListener>, shared: Arc<Shared>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            accepted = next(&listener, &shared) => match accepted {
                Ok((stream, peer)) => admit(stream, peer, &shared),
                Err(error) => failed(&error, &shared),
            },
            () = &mut stop => break,
        }
    }
    while let Some(accepted) = now_or_never(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &shared),
            Err(error) if net::is_of_one_connection(&error) => {}
            Err(_exhausted) => break,
        }
    }
}

/// The next connection, once nothing is short. The kernel keeps those that wait.
async fn next(listener: &TcpListener, shared: &Shared) -> io::Result<(TcpStream, SocketAddr)> {
    while let Some(left) = shared.backoff.pause(Instant::now) {
        sleep(left).await;
    }
    while shared.active.count() >= shared.descriptors.room() && shared.active.count() >= shared.descriptors.measure() {
        // The limit may be raised meanwhile.
        drop(timeout(MEASURE_AGAIN, shared.active.below(shared.descriptors.room())).await);
    }
    listener.accept().await
}

/// Interval of looking at the limit on open files while connections wait for descriptors.
const MEASURE_AGAIN: Duration = Duration::from_millis(100);

fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
    if shared.bans.refuses(peer.ip()) {
        // No task, no permit: a banned network must not keep others out.
        shared.metrics.tcp_accepted();
        shared.metrics.tcp_ended(Outcome::Banned, 0, 0);
        shared.refused(&shared.snapshot.load(), &stream, &Seen::new(peer), Outcome::Banned);
        return;
    }
    let snapshot = shared.snapshot.load_full();
    let place = match shared.place(&snapshot, peer.ip(), Introduction::None) {
        Ok(place) => place,
        Err(outcome) => {
            shared.metrics.tcp_accepted();
            shared.metrics.tcp_ended(outcome, 0, 0);
            shared.refused(&snapshot, &stream, &Seen::new(peer), outcome);
            return;
        }
    };
    let max = snapshot.settings.max_connections.get();
    let Some(permit) = shared.active.acquire(max) else {
        shared.metrics.tcp_accepted();
        shared.metrics.tcp_ended(Outcome::TooMany, 0, 0);
        shared.refused(&snapshot, &stream, &Seen::new(peer), Outcome::TooMany);
        if let Some(withheld) = shared.said_too_many.speak(Instant::now()) {
            tracing::warn!(
                "tcp_max_connections ({max}) reached: closing new connections ({withheld} closed since the last such line)"
            );
        }
        return;
    };
    let record = Record::new(Arc::clone(shared), permit, place, snapshot.access_lines.format);
    tokio::spawn(serve(Arc::clone(shared), snapshot, Accepted { stream, peer }, record));
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
