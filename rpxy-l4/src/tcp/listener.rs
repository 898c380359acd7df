//! Accepting connections on one socket of one worker.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration, time::Instant};

use tokio::{net::TcpListener, net::TcpStream, time::sleep};

use super::{
    Shared,
    connection::{Accepted, serve},
    record::Record,
};
use crate::{metrics::Outcome, net};

/// Pause when descriptors or memory ran out. The kernel keeps the waiting connections.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts on `listener` until `stop` resolves; then takes what is already waiting, so that closing the socket resets
/// nobody.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(stream, peer, &shared),
                Err(error) => pause(&error, &shared).await,
            },
            () = &mut stop => break,
        }
    }
    while let Some(Ok((stream, peer))) = now_or_never(listener.accept()).await {
        admit(stream, peer, &shared);
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
    let plane = shared.plane.load_full();
    let max = plane.settings.max_connections.get();
    let Some(permit) = shared.active.acquire(max) else {
        shared.metrics.tcp_accepted();
        shared.metrics.tcp_ended(Outcome::TooMany, 0, 0);
        if let Some(withheld) = shared.said_too_many.speak(Instant::now()) {
            tracing::warn!(
                "tcp_max_connections ({max}) reached: closing new connections ({withheld} closed since the last such line)"
            );
        }
        return;
    };
    let record = Record::new(Arc::clone(shared), permit, plane.access_log_format);
    tokio::spawn(serve(Arc::clone(shared), plane, Accepted { stream, peer }, record));
}

async fn pause(error: &io::Error, shared: &Shared) {
    if !net::is_exhaustion(error) {
        // One connection that broke before it was accepted (ECONNABORTED and the like).
        tracing::debug!("accept: {error}");
        return;
    }
    shared.metrics.accept_paused();
    if let Some(withheld) = shared.said_exhausted.speak(Instant::now()) {
        tracing::warn!(
            "accepting pauses: {error}; raise the limit on open files (LimitNOFILE) or lower tcp_max_connections \
             ({withheld} more not shown)"
        );
    }
    sleep(PAUSE).await;
}

async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}
