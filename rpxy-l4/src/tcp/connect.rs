//! Reaching a backend: targets in the order that balancing gives, addresses of a name raced (RFC 8305), those of
//! a service priority by priority (RFC 2782).

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    Listener, Shared,
    ending::Ending,
    now_or_never,
    ports::{self, From},
    record::Meter,
    relay::Preamble,
    share::SHORT,
    splice::Attempts,
    timer::Timer,
};
use crate::{
    config::model::Tcp,
    limit::AcceptBackoff,
    metrics::{Carried, Outcome},
    net::{self, Address},
    resolve::NOT_OFFERED,
    route::{self, Busy, Endpoint, Group, Pick, Route, Tier, Tried},
};

/// Head start of one address over the next (RFC 8305 section 5, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Attempts for one connection at a time; a name may have many addresses, and each attempt takes a descriptor.
const MOST_AT_ONCE: usize = 4;

/// Time for all attempts of one connection, in times of `tcp_connect_timeout`.
const IN_ALL: u32 = 3;
/// Time for the one attempt to a target that could not be reached not long ago.
const KNOWN_DOWN: Duration = Duration::from_secs(2);
/// Time after which a client that has ended its side is not expected to wait for the next target.
const PATIENCE: Duration = Duration::from_secs(1);
/// While places are short, the clients that wait for the targets of one rule may take one of so many.
const SHARE: u32 = 4;

/// One address being tried.
type Attempt<'a> = Pin<Box<dyn Future<Output = (io::Result<TcpStream>, SocketAddr)> + Send + 'a>>;

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    pub(super) address: Address,
    pub(super) busy: Busy,
    pub(super) meter: Meter,
    /// The target as the file writes it.
    pub(super) target: Arc<str>,
    /// When the target goes down, if that ends the connection.
    pub(super) ending: Option<Box<Ending>>,
}

/// Connects to the first target of `route` that can be reached, as `attempts` want it to be, and begins to send `preamble`.
/// Ends early when `client`, who is known as `source`, has gone.
pub(super) async fn reach(
    shared: &Shared,
    listener: &Listener,
    route: &Route,
    (client, source): (&TcpStream, SocketAddr),
    timer: &mut Timer,
    (preamble, mut attempts): (&mut Preamble, Option<&mut Attempts>),
) -> Result<Reached, Outcome> {
    let most = most_reaching(listener);
    let Some(_reaching) = route.group.reaching().acquire(most) else {
        if let Some(withheld) = shared.said_reaching.speak(std::time::Instant::now()) {
            let rule = route.rule.as_deref().unwrap_or("tcp_target");
            tracing::warn!(
                "{rule}: {most} connections wait for its targets already, and few more fit: closing new ones ({withheld} \
                 more not shown)"
            );
        }
        return Err(Outcome::Unreachable);
    };
    tokio::select! {
        biased;
        reached = reach_any(shared, listener, route, (client, source), timer, (preamble, attempts.take())) => reached,
        _ = client.ready(Interest::ERROR) => Err(Outcome::ClientGone),
    }
}

/// Connections of one rule that may wait for its targets. While places are short, they leave some to the other rules.
pub(super) fn most_reaching(listener: &Listener) -> u32 {
    let max = listener.settings.max_connections.get();
    if listener.connections.count() > max - max / SHORT { (max / SHARE).max(1) } else { u32::MAX }
}

async fn reach_any(
    shared: &Shared,
    listener: &Listener,
    route: &Route,
    (client, source): (&TcpStream, SocketAddr),
    timer: &mut Timer,
    (preamble, mut attempts): (&mut Preamble, Option<&mut Attempts>),
) -> Result<Reached, Outcome> {
    let group = &route.group;
    let settings = &listener.settings;
    let mut tried = Tried::default();
    let mut random = shared.random.next();
    let started = Instant::now();
    let mut now = started;
    let give_up = started + settings.connect_timeout.saturating_mul(IN_ALL);
    let mut left = settings.connect_attempts.get();
    let mut outcome = Outcome::Unreachable;
    while let Some(Pick { index, up }) = group.pick_told(source, random, shared.uptime(now), &tried) {
        let Some(endpoint) = group.endpoint(index) else { break };
        // Nobody waits long, or twice, for what is known to be down.
        let within = if up { settings.connect_timeout } else { settings.connect_timeout.min(KNOWN_DOWN) };
        // Counted from now on, so that a burst does not all see the same few connections.
        let Some(busy) = Busy::within(&endpoint.health, endpoint.target.max_connections) else {
            endpoint.health.unclaim(shared.uptime(now));
            tried.add(index);
            continue;
        };
        left = if up { left - 1 } else { 0 };
        let own = || io::Error::new(io::ErrorKind::InvalidInput, "it is this daemon's own listener");
        let deadline = (now + within).min(give_up);
        let (remaining, draw, began) = (give_up.saturating_duration_since(now), random, shared.uptime(now));
        let from = From {
            sources: &settings.source_addresses,
            random,
            segment: attempts.as_ref().map(|attempts| attempts.segment()),
            spliced: shared.splicer().map(|splicer| &**splicer.splice()),
        };
        let over_ip = async {
            match endpoint.address() {
                Some(Err(error)) => Err(error),
                Some(Ok(address)) if listener.own.is(address) => Err(own()),
                Some(Ok(address)) => start(address, from, deadline, timer, (preamble, &mut attempts))
                    .await
                    .map(|stream| (stream, address)),
                None => {
                    let mut tiers = candidates(route, endpoint, source, draw, within, began).await?;
                    tiers.iter_mut().for_each(|tier| tier.retain(|address| !listener.own.is(*address)));
                    tiers.retain(|tier| !tier.is_empty());
                    let missed =
                        |address| endpoint.missed(address, shared.uptime(Instant::now()), settings.target_retry);
                    let (stream, address) = match tiers.as_slice() {
                        [] => return Err(own()),
                        [tier] if tier.len() == 1 => {
                            let only = tier.first().copied().ok_or_else(own)?;
                            start(only, from, deadline, timer, (preamble, &mut attempts))
                                .await
                                .map(|stream| (stream, only))?
                        }
                        several => race_tiers(several, from, within.min(remaining), missed).await?,
                    };
                    endpoint.reached_at(address);
                    Ok((stream, address))
                }
            }
        };
        let result = match endpoint.path() {
            // The kernel answers at once.
            Some(path) => net::unix::connected(path).map(|stream| (stream, Address::Unix(Arc::clone(path)))),
            None => over_ip.await.map(|(stream, address)| (stream, address.into())),
        };
        match result {
            Ok((stream, address)) => {
                if endpoint.health.reached() {
                    tracing::info!("{} can be reached again", endpoint.target);
                }
                let connected = Instant::now();
                endpoint.account.connected(connected - now);
                let meter = Meter::new(Carried::new(&route.account, &endpoint.account), connected - now, connected);
                let ending = Ending::new(endpoint, address.ip().map(route::bare), shared.uptime(now));
                return Ok(Reached { stream, address, busy, meter, target: Arc::clone(&endpoint.text), ending });
            }
            Err(error) => {
                now = Instant::now();
                outcome = Outcome::Unreachable;
                // What is short here says nothing of the target, and comes back.
                if net::is_exhaustion(&error) {
                    endpoint.health.unclaim(shared.uptime(now));
                    shared.backoff.exhausted(&error, now.into_std());
                    if now < started + settings.connect_timeout {
                        sleep(AcceptBackoff::PAUSE).await;
                        now = Instant::now();
                        left = left.saturating_add(1);
                        continue;
                    }
                } else {
                    if error.kind() == io::ErrorKind::AddrNotAvailable {
                        outcome = Outcome::NoPort;
                    }
                    failed(shared, settings, endpoint, &error, now);
                }
                shared.metrics.tcp_connect_failed();
                endpoint.account.connect_failed();
                tried.add(index);
                random = shared.random.next();
            }
        }
        if left == 0 || now >= give_up {
            break;
        }
        // A client that ends its side may wait for its answer, but hardly after this long.
        if now > started + PATIENCE && has_ended(client).await {
            return Err(Outcome::ClientGone);
        }
    }
    Err(if left == settings.connect_attempts.get() { none_to_try(group, &tried).unwrap_or(outcome) } else { outcome })
}

/// Why no target of a group was tried, but for what is the same for every client: those `tried` had no room.
pub(super) fn none_to_try(group: &Group, tried: &Tried) -> Option<Outcome> {
    let is_out =
        |endpoint: &Endpoint| endpoint.target.down || endpoint.health.administrative().drained_since().is_some();
    let mut in_service = group.endpoints().iter().filter(|endpoint| !is_out(endpoint)).peekable();
    if in_service.peek().is_some() && in_service.all(Endpoint::is_full) {
        Some(Outcome::TargetConnections)
    } else {
        (group.only_healthy() && tried.is_empty()).then_some(Outcome::Unhealthy)
    }
}

/// Notes that a target could not be reached.
fn failed(shared: &Shared, settings: &Tcp, endpoint: &Endpoint, error: &io::Error, now: Instant) {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        endpoint.health.unclaim(shared.uptime(now));
        if let Some(withheld) = shared.said_no_port.speak(now.into_std()) {
            tracing::warn!(
                "no local port or address to reach {} from: {error}; widen net.ipv4.ip_local_port_range, set \
                 tcp_source_addresses or add targets ({withheld} more not shown)",
                endpoint.target
            );
        }
        return;
    }
    if let Some(lookup) = endpoint.lookup() {
        lookup.ask_again();
    }
    endpoint.health.failed_because(error);
    if endpoint.failed(shared.uptime(now), settings.target_retry) {
        tracing::warn!("{} cannot be reached: {error}; tried last for {:?}", endpoint.target, settings.target_retry);
    }
}

async fn has_ended(client: &TcpStream) -> bool {
    let state = now_or_never(client.ready(Interest::READABLE)).await;
    matches!(state, Some(Ok(ready)) if ready.is_read_closed())
}

/// The addresses of a name or service, in the order in which they are to be tried.
async fn candidates(
    route: &Route,
    endpoint: &Endpoint,
    client: SocketAddr,
    random: u64,
    within: Duration,
    now: Duration,
) -> io::Result<Vec<Tier>> {
    let not_found = |text| io::Error::new(io::ErrorKind::NotFound, text);
    let unresolved = || not_found("the name does not resolve");
    let lookup = endpoint.lookup().ok_or_else(unresolved)?;
    let places = match lookup.known() {
        Some(known) => known,
        None => limited(async { lookup.first().await.ok_or_else(unresolved) }, within).await?,
    };
    if places.is_empty() {
        return Err(not_found(NOT_OFFERED));
    }
    let tiers = route.group.order(endpoint, &places, client, random, now);
    if tiers.is_empty() {
        return Err(not_found("each of its addresses is down"));
    }
    Ok(tiers)
}

/// Connects to `address` and sends as much of `preamble` as the socket takes at once. The send tells as well as
/// SO_ERROR would whether the connection came to be, so that it costs nothing.
async fn start(
    address: SocketAddr,
    from: From<'_>,
    deadline: Instant,
    timer: &mut Timer,
    (preamble, attempts): (&mut Preamble, &mut Option<&mut Attempts>),
) -> io::Result<TcpStream> {
    let alike = attempts.as_mut().and_then(|attempts| attempts.connect(address, from));
    let stream = match alike {
        Some(begun) => TcpStream::from_std(begun?)?,
        None => begin(address, from)?,
    };
    loop {
        let ready = timer.limit(deadline, stream.ready(Interest::WRITABLE)).await.unwrap_or_else(|| Err(silent()))?;
        let sent = match preamble.bytes.as_ref() {
            // A connection that failed is writable, too, but closed for writing (EPOLLERR, EPOLLHUP).
            [] if ready.is_write_closed() => established(&stream),
            [] => Ok(0),
            bytes => stream.try_write(bytes),
        };
        match sent {
            Ok(_) if net::is_connected_to_itself(&stream, address) => return Err(refused()),
            Ok(n) => {
                preamble.sent = n;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Connects to an address of the first of `tiers` in which one answers. Each has `within`, but [`KNOWN_DOWN`] at most where
/// there is another one. `missed` is told of each address that failed, or was silent so long.
async fn race_tiers(
    tiers: &[Tier],
    from: From<'_>,
    within: Duration,
    missed: impl Fn(SocketAddr),
) -> io::Result<(TcpStream, SocketAddr)> {
    let give_up = Instant::now() + within;
    let mut last_error = timed_out("no address to connect to");
    for (index, tier) in tiers.iter().enumerate() {
        let left = give_up.saturating_duration_since(Instant::now());
        let mut failed = Vec::new();
        let result = if index + 1 == tiers.len() {
            race(tier, from, left, &mut failed).await
        } else {
            let within = left.min(KNOWN_DOWN);
            limited(race(tier, from, within, &mut failed), within).await
        };
        let silent = if result.is_ok() { &[][..] } else { tier };
        failed.iter().chain(silent).copied().for_each(&missed);
        match result {
            Ok(reached) => return Ok(reached),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Connects to the first address that answers; each later one starts when the one before failed or was silent for
/// [`ATTEMPT_DELAY`]. Each has `within` of its own. The last error is returned when all fail; what fails is added to `failed`.
async fn race(
    addresses: &[SocketAddr],
    from: From<'_>,
    within: Duration,
    failed: &mut Vec<SocketAddr>,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.iter().copied();
    let mut running: Vec<Attempt<'_>> = Vec::new();
    let mut last_error = timed_out("no address to connect to");
    loop {
        if running.len() < MOST_AT_ONCE
            && let Some(address) = waiting.next()
        {
            running.push(Box::pin(async move { (limited(connect(address, from), within).await, address) }));
        }
        let more = waiting.len() > 0 && running.len() < MOST_AT_ONCE;
        tokio::select! {
            result = std::future::poll_fn(|cx| poll_any(&mut running, failed, cx)), if !running.is_empty() => match result {
                Ok(winner) => return Ok(winner),
                Err(error) => last_error = error,
            },
            () = sleep(ATTEMPT_DELAY), if more => {}
            else => return Err(last_error),
        }
    }
}

/// Ready when one attempt has won or at least one has failed; ended attempts are gone from `running`.
fn poll_any(
    running: &mut Vec<Attempt<'_>>,
    failed: &mut Vec<SocketAddr>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
    let mut result = Poll::Pending;
    running.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
        Poll::Pending => true,
        Poll::Ready((Ok(_), _)) if matches!(result, Poll::Ready(Ok(_))) => false,
        Poll::Ready((Ok(stream), address)) => {
            result = Poll::Ready(Ok((stream, address)));
            false
        }
        Poll::Ready((Err(error), address)) => {
            failed.push(address);
            // A winner in the same turn stays.
            if !matches!(result, Poll::Ready(Ok(_))) {
                result = Poll::Ready(Err(error));
            }
            false
        }
    });
    result
}

async fn connect(address: SocketAddr, from: From<'_>) -> io::Result<TcpStream> {
    let stream = begin(address, from)?;
    stream.writable().await?;
    established(&stream)?;
    if net::is_connected_to_itself(&stream, address) { Err(refused()) } else { Ok(stream) }
}

fn begin(address: SocketAddr, from: From<'_>) -> io::Result<TcpStream> {
    TcpStream::from_std(ports::connect(address, from)?)
}

/// Nothing sent, and no error either.
fn established(stream: &TcpStream) -> io::Result<usize> {
    stream.take_error()?.map_or(Ok(0), Err)
}

async fn limited<T>(attempt: impl Future<Output = io::Result<T>>, within: Duration) -> io::Result<T> {
    timeout(within, attempt).await.unwrap_or_else(|_elapsed| Err(silent()))
}

/// A connection of a socket with itself means that nobody listens.
fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
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

    const ANY: From<'_> = From { sources: &[], random: 7, segment: None, spliced: None };

    fn port_nobody_listens_on() -> u16 {
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
        let (_stream, address) = race(&addresses, ANY, Duration::from_secs(5), &mut Vec::new()).await.unwrap();
        assert_eq!(address, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }

    #[tokio::test]
    async fn the_last_error_is_told_when_all_refuse() {
        let port = port_nobody_listens_on();
        for addresses in [vec!["127.0.0.1"], vec!["127.0.0.1", "127.0.0.2"]] {
            let addresses: Vec<_> =
                addresses.into_iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect();
            let error = race(&addresses, ANY, Duration::from_secs(5), &mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        assert_eq!(
            race(&[], ANY, Duration::from_secs(5), &mut Vec::new()).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[tokio::test]
    async fn the_first_bytes_leave_with_the_connection_and_only_when_there_is_one() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut timer = Timer::default();
        for bytes in [b"hello" as &[u8], b""] {
            let mut preamble = Preamble { bytes: bytes.into(), ..Preamble::default() };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port_nobody_listens_on()));
            let deadline = Instant::now() + Duration::from_secs(5);
            let error = start(address, ANY, deadline, &mut timer, (&mut preamble, &mut None)).await.unwrap_err();
            assert_eq!((error.kind(), preamble.sent), (io::ErrorKind::ConnectionRefused, 0));
            let stream = start(listener.local_addr().unwrap(), ANY, deadline, &mut timer, (&mut preamble, &mut None))
                .await
                .unwrap();
            assert_eq!(preamble.sent, preamble.bytes.len());
            drop(stream);
            let mut got = Vec::new();
            io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut got).unwrap();
            assert_eq!(got, preamble.bytes);
        }
    }
}
