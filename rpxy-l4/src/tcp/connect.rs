//! Reaching a backend: targets in the order that balancing gives, addresses of a name raced (RFC 8305).

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::Shared;
use crate::{
    net,
    route::{Busy, Endpoint, Route, Tried},
};

/// Head start of one address over the next (RFC 8305 section 5, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// One address being tried.
type Attempt = Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send>>;

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) busy: Busy,
}

/// How targets are tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For one address.
    pub(super) connect: Duration,
    /// How long a target that failed is tried last.
    pub(super) retry: Duration,
}

/// Connects to the first target of `route` that can be reached; `None` when none can.
pub(super) async fn reach(
    shared: &Shared,
    route: &Arc<Route>,
    client: SocketAddr,
    patience: Patience,
) -> Option<Reached> {
    let group = &route.group;
    let mut tried = Tried::default();
    let mut random = shared.random();
    while let Some(index) = group.pick(client, random, shared.uptime(), &tried) {
        let endpoint = group.endpoint(index)?;
        let result = match endpoint.target.literal() {
            Some(address) => limited(connect(address), patience.connect).await.map(|stream| (stream, address)),
            None => by_name(route, endpoint, client, random, patience.connect).await,
        };
        match result {
            Ok((stream, address)) => {
                if endpoint.health.reached() {
                    tracing::info!("{} can be reached again", endpoint.target);
                }
                return Some(Reached { stream, address, busy: Busy::new(&endpoint.health) });
            }
            Err(error) => {
                shared.metrics.tcp_connect_failed();
                // What is short here says nothing of the target.
                let ours = net::is_exhaustion(&error) || error.kind() == io::ErrorKind::AddrNotAvailable;
                if ours {
                    if let Some(withheld) = shared.said_exhausted.speak(std::time::Instant::now()) {
                        tracing::warn!(
                            "cannot open a connection to {}: {error} ({withheld} more not shown)",
                            endpoint.target
                        );
                    }
                } else if endpoint.health.failed(shared.uptime(), patience.retry) {
                    tracing::warn!(
                        "{} cannot be reached: {error}; tried last for {:?}",
                        endpoint.target,
                        patience.retry
                    );
                }
                tried.add(index);
                random = shared.random();
            }
        }
    }
    None
}

async fn by_name(
    route: &Route,
    endpoint: &Endpoint,
    client: SocketAddr,
    random: u64,
    patience: Duration,
) -> io::Result<(TcpStream, SocketAddr)> {
    let unresolved = || io::Error::new(io::ErrorKind::NotFound, "the name does not resolve");
    let name = endpoint.name().ok_or_else(unresolved)?;
    let addresses = timeout(patience, name.addresses()).await.map_err(|_elapsed| timed_out("no DNS answer in time"))?;
    let addresses = addresses.ok_or_else(unresolved)?;
    let ordered = route.group.order(&addresses, client, random);
    race(&ordered, endpoint.target.port, patience).await
}

/// Connects to the first address that answers; each later one starts when the one before failed or was silent for
/// [`ATTEMPT_DELAY`]. Each has `patience` of its own. The last error is returned when all fail.
async fn race(addresses: &[IpAddr], port: u16, patience: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.iter().map(|address| SocketAddr::new(*address, port));
    if let (Some(only), true) = (waiting.clone().next(), addresses.len() == 1) {
        return limited(connect(only), patience).await.map(|stream| (stream, only));
    }
    let mut running: Vec<Attempt> = Vec::new();
    let mut last_error = timed_out("no address to connect to");
    loop {
        if let Some(address) = waiting.next() {
            running.push(Box::pin(async move {
                let stream = limited(connect(address), patience).await?;
                Ok((stream, address))
            }));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            result = std::future::poll_fn(|cx| poll_any(&mut running, cx)), if !running.is_empty() => match result {
                Ok(winner) => return Ok(winner),
                Err(error) => last_error = error,
            },
            () = sleep(ATTEMPT_DELAY), if more => {}
            else => return Err(last_error),
        }
    }
}

/// Ready when one attempt has won or at least one has failed; ended attempts are gone from `running`.
fn poll_any(running: &mut Vec<Attempt>, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
    let mut result = Poll::Pending;
    running.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
        Poll::Pending => true,
        Poll::Ready(ended) => {
            // A winner in the same turn stays.
            if !matches!(result, Poll::Ready(Ok(_))) {
                result = Poll::Ready(ended);
            }
            false
        }
    });
    result
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(net::tcp_connecting(address)?)?;
    stream.writable().await?;
    match stream.take_error()? {
        None => Ok(stream),
        Some(error) => Err(error),
    }
}

async fn limited<T>(attempt: impl Future<Output = io::Result<T>>, patience: Duration) -> io::Result<T> {
    timeout(patience, attempt).await.unwrap_or_else(|_elapsed| Err(silent()))
}

fn silent() -> io::Error {
    timed_out("no answer in time")
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn port_nobody_listens_on() -> u16 {
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.1"].map(|ip| ip.parse().unwrap());
        let (_stream, address) = race(&addresses, port, Duration::from_secs(5)).await.unwrap();
        assert_eq!(address, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }

    #[tokio::test]
    async fn the_last_error_is_told_when_all_refuse() {
        let port = port_nobody_listens_on();
        for addresses in [vec!["127.0.0.1"], vec!["127.0.0.1", "127.0.0.2"]] {
            let addresses: Vec<IpAddr> = addresses.into_iter().map(|ip| ip.parse().unwrap()).collect();
            let error = race(&addresses, port, Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        assert_eq!(race(&[], port, Duration::from_secs(5)).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
