//! One connection, from accept to its end.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rpxy_l4_proto::Probe;
#[cfg(feature = "proxy-protocol")]
use rpxy_l4_proto::proxy_protocol::Tlvs;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{
    Listener, Origin, Shared,
    alert::{self, Refusal},
    connect::{Reached, reach},
    ech::{Ech, Patience},
    end::{End, Side},
    ending::{Ending, Until},
    now_or_never,
    probe::{MAX_RECEIVED, Prober, Recognised},
    record::Record,
    refused::Seen,
    registry,
    relay::{Limits, Preamble, Relay, Stop},
    scratch,
    splice::{self, Attempts, Handed},
    timer::Timer,
};
use crate::{
    config::model::TlsRefused,
    limit::ConnPermit,
    metrics::Outcome,
    net,
    route::{Busy, Protocol, Route, TcpRoutes},
};

/// Longest wait for the arrival of the last bytes before a reset.
const DELIVERY: Duration = Duration::from_secs(2);
/// Interval of polling for that; there is no event.
const DELIVERY_POLL: Duration = Duration::from_millis(10);

/// A connection as `accept(2)` returned it.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
}

/// Serves one accepted connection. The record is boxed, because a task holds its arguments twice.
pub(super) async fn serve(shared: Arc<Shared>, listener: Arc<Listener>, client: Accepted, mut record: Box<Record>) {
    let Accepted { stream, peer } = client;
    let mut ends = Ends { client: stream, backend: None, cut_off: None, slot: record.entered().slot() };
    // The stages before the relay need far more state than the relay; boxed, they do not stay in the task's memory.
    let ready = Box::pin(begin(&shared, listener, &mut ends.client, peer, &mut record)).await;
    drop(shared);
    let Ready { backend, busy, ending, place, preamble, timer, limits, attempts, verbatim } = match ready {
        Ok(ready) => ready,
        Err(Refusal { outcome, alert }) => {
            record.outcome = outcome;
            if let Some(description) = alert {
                Box::pin(alert::send(&mut ends.client, description)).await;
            }
            return;
        }
    };
    ends.cut_off = Some(Side::Both);
    let backend = ends.backend.insert(backend);
    let relay = Relay::new(&ends.client, backend, &mut record.traffic, preamble, (timer, limits), (attempts, verbatim));
    let (ending, stopped) = until_stopped(Until { ending, relay }).await;
    let end = match stopped {
        Stopped::Ended(end) => end,
        Stopped::HandedOver(handed) => {
            // The sockets close without a word.
            drop(ends);
            record.outcome = Until { ending, relay: handed.counted(&mut record.traffic) }.await.outcome;
            drop((busy, place));
            return;
        }
    };
    record.outcome = end.outcome;
    ends.cut_off = end.reset;
    if let Some(told) = end.reset {
        // Rare, so its state is not part of every task.
        Box::pin(ends.deliver(told)).await;
    }
    drop((ends, busy, place));
}

/// What came of a relay.
enum Stopped {
    Ended(End),
    HandedOver(Handed),
}

/// Relays until the end, or until the connection is spliced.
async fn until_stopped(mut relay: Until<Relay<'_>>) -> (Option<Box<Ending>>, Stopped) {
    let stopped = loop {
        match (&mut relay).await {
            Stop::End(end) => break Stopped::Ended(end),
            // Rare, so its state is not part of every task.
            Stop::HandOver => match Box::pin(relay.relay.hand_over()).await {
                Ok(handed) => break Stopped::HandedOver(handed),
                Err(reason) => relay.relay.go_on(reason),
            },
        }
    };
    (relay.ending, stopped)
}

/// The sockets of a connection. A side whose stream is cut off gets a reset when they close, also when the task is
/// dropped half-way: an end in good order would make a torso look complete.
struct Ends {
    client: TcpStream,
    /// There is one once the relay begins.
    backend: Option<TcpStream>,
    cut_off: Option<Side>,
    /// Of the connection's entry in the registry.
    slot: Option<usize>,
}

impl Ends {
    /// Waits a little until what was relayed before the cut has arrived: a reset destroys what is still on its way.
    async fn deliver(&self, told: Side) {
        let socket = match (told, &self.backend) {
            (Side::Client, _) => &self.client,
            (Side::Backend, Some(backend)) => backend,
            (Side::Backend, None) | (Side::Both, _) => return,
        };
        let deadline = Instant::now() + DELIVERY;
        while net::undelivered(socket) > 0 && Instant::now() < deadline {
            let state = now_or_never(socket.ready(Interest::WRITABLE)).await;
            if matches!(state, Some(Ok(ready)) if ready.is_write_closed()) {
                // Gone as well: there is nobody left to deliver to.
                return;
            }
            sleep(DELIVERY_POLL).await;
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let closed_by_operator = || registry::is_closed(self.slot);
        if matches!(self.cut_off, Some(Side::Client | Side::Both)) || closed_by_operator() {
            net::reset_on_close(&self.client);
        }
        if let Some(backend) = &self.backend
            && matches!(self.cut_off, Some(Side::Backend | Side::Both))
        {
            net::reset_on_close(backend);
        }
    }
}

/// A connection with both ends.
struct Ready {
    backend: TcpStream,
    busy: Busy,
    place: ConnPermit,
    ending: Option<Box<Ending>>,
    preamble: Preamble,
    timer: Timer,
    limits: Arc<Limits>,
    attempts: Option<Box<Attempts>>,
    /// All that was read of the client is in the preamble, as it came.
    verbatim: bool,
}

/// Everything before the relay.
async fn begin(
    shared: &Arc<Shared>,
    listener: Arc<Listener>,
    client: &mut TcpStream,
    peer: SocketAddr,
    record: &mut Record,
) -> Result<Ready, Refusal> {
    let mut seen = Seen::new(peer);
    let ready = prepare(shared, &listener, client, &mut seen, record).await;
    if let Err(Refusal { outcome, .. }) = ready
        && !record.has_started()
    {
        shared.refused(&listener, client, &seen, outcome);
    }
    ready
}

async fn prepare(
    shared: &Arc<Shared>,
    listener: &Listener,
    client: &mut TcpStream,
    seen: &mut Seen,
    record: &mut Record,
) -> Result<Ready, Refusal> {
    let peer = seen.source;
    let settings = &listener.settings;
    let mut timer = Timer::default();
    let mut received = BytesMut::new();

    #[cfg(feature = "proxy-protocol")]
    let (origin, tlvs) = match &settings.receive_proxy {
        None => (Origin { source: peer, destination: None }, Tlvs::default()),
        Some(receive) => {
            let patience = settings.probe_timeout;
            super::inbound::read_header(receive, patience, client, peer, (&mut timer, &mut received)).await?
        }
    };
    #[cfg(not(feature = "proxy-protocol"))]
    let origin = Origin { source: peer };
    seen.source = origin.source;

    #[cfg(feature = "proxy-protocol")]
    if settings.receive_proxy.is_some() && !super::is_unnamed(origin.source) && shared.bans.refuses(origin.source.ip())
    {
        // The peer is the load balancer, which `accept` has looked at.
        return Err(Outcome::Banned.into());
    }
    #[cfg(feature = "proxy-protocol")]
    if settings.receive_proxy.is_some() {
        let introduced = super::source::Introduction::Header;
        if listener.refuses(origin.source, introduced).is_some() {
            return Err(Outcome::Denied.into());
        }
        record.introduced(listener.source(origin.source), shared.place(listener, origin.source, introduced)?);
    }

    if listener.routes.must_probe() {
        // The client's time begins when the load balancer before us, if any, has introduced it.
        let deadline = Instant::now() + settings.probe_timeout;
        recognise(listener, client, &mut timer, &mut received, (deadline, &mut *seen)).await?;
    }
    let recognised = &seen.recognised;
    let route = choose(&listener.routes, recognised.as_ref(), origin.source.ip());
    let protocol = seen.protocol();
    let refused = |refusal: Refusal| {
        let Refusal { outcome, alert } = refusal;
        tracing::trace!("{peer}: closed: {} ({})", outcome.name(), protocol.name());
        let unknown =
            (outcome, protocol, settings.tls_refused) == (Outcome::Unmatched, Protocol::Tls, TlsRefused::Alert);
        Refusal { outcome, alert: alert.or(unknown.then_some(alert::UNRECOGNIZED_NAME)) }
    };
    let route = route.ok_or_else(|| {
        let outcome = match recognised {
            Some(_) => Outcome::Unmatched,
            // Nothing was asked for: a health check, most often.
            None if seen.silent => Outcome::ClientGone,
            None => Outcome::NotRecognised,
        };
        refused(outcome.into())
    })?;
    // From here on it is the rule's refusal.
    let account = &route.account;
    let refused = |refusal: Refusal| {
        account.refused(refusal.outcome);
        refused(refusal)
    };
    let of_rule = |outcome: &Outcome| account.refused(*outcome);
    let ech = match recognised {
        Some(Recognised::Tls { hello, end }) => {
            let source = origin.source.ip();
            Ech::apply(shared, route, (hello, *end), source, &mut received).map_err(refused)?
        }
        Some(Recognised::TlsUnreadable) => Ech::unreadable(shared, route).map_err(refused)?,
        Some(
            Recognised::Http(_)
            | Recognised::Http2Waiting
            | Recognised::HttpUnreadable
            | Recognised::Ssh
            | Recognised::Socks5,
        )
        | None => Ech::NotConfigured,
    };
    let route = ech.route(route);
    let inner = ech.logged().and_then(|(_, inner)| inner);
    record.routed(protocol, route.rule.as_ref(), recognised.as_ref(), inner);
    let place = shared.place_of_rule(listener, route).inspect_err(of_rule)?;

    #[cfg(feature = "proxy-protocol")]
    let mut preamble = super::outbound::preamble(route.send_proxy, &origin, client, &tlvs, received)?;
    #[cfg(not(feature = "proxy-protocol"))]
    let mut preamble = Preamble { bytes: received.freeze(), ..Preamble::default() };

    let mut attempts = Attempts::of(shared.splicer(), route, protocol, client, settings);
    if listener.splices && attempts.is_none() {
        splice::acknowledge_at_once(client);
    }
    // First bytes to be handed over wait until there is a connection to hand over.
    #[cfg(feature = "proxy-protocol")]
    let is_introduced = settings.receive_proxy.is_some();
    #[cfg(not(feature = "proxy-protocol"))]
    let is_introduced = false;
    let verbatim = !is_introduced && !matches!(ech, Ech::Private(_));
    let is_held = verbatim && preamble.header == 0 && attempts.as_ref().is_some_and(|attempts| attempts.at_first());
    let held = if is_held { std::mem::take(&mut preamble.bytes) } else { Bytes::new() };
    let wanted = (&mut preamble, attempts.as_deref_mut());
    let reached = reach(shared, listener, route, (client, origin.source), &mut timer, wanted)
        .await
        .inspect_err(of_rule)
        .inspect_err(|outcome| tracing::trace!("{peer}: closed: {}", outcome.name()))?;
    if !held.is_empty() {
        preamble.bytes = held;
    }
    let detail = record.detail(route.rule.as_ref(), recognised.as_ref(), ech.logged());
    let Reached { stream: mut backend, address, busy, meter, target, ending } = reached;
    record.started(meter, protocol, listener.source(origin.source), (address, target), detail);
    if let Some(handshake) = ech.into_handshake() {
        let first = std::mem::take(&mut preamble);
        let patience = Patience { idle: settings.idle_timeout, stall: settings.stall_timeout };
        if let Err(refusal) =
            handshake.run(client, &mut backend, &mut record.traffic, first, (&mut timer, patience)).await
        {
            net::reset_on_close(&backend);
            if refusal.alert.is_none() {
                // It would destroy an alert on its way.
                net::reset_on_close(client);
            }
            return Err(refusal);
        }
        record.traffic.moved(0);
    }
    Ok(Ready {
        backend,
        busy,
        ending,
        place,
        preamble,
        timer,
        limits: Arc::clone(&listener.limits),
        attempts,
        verbatim,
    })
}

/// Reads until the protocol is known, is surely none of ours, the time is up, or the client stops writing. What is not
/// certain by then stays `None`: the default target's.
async fn recognise(
    listener: &Listener,
    client: &mut TcpStream,
    timer: &mut Timer,
    received: &mut BytesMut,
    (deadline, seen): (Instant, &mut Seen),
) -> Result<(), Outcome> {
    let mut prober = Prober::new(&listener.routes);
    loop {
        match prober.advance(received) {
            Probe::Match(recognised) => {
                seen.recognised = Some(recognised);
                return Ok(());
            }
            Probe::NotThis | Probe::Unreadable => return Ok(()),
            Probe::NeedMore => {}
        }
        let room = MAX_RECEIVED.saturating_sub(received.len());
        let until = prober.patience().map_or(deadline, |pause| deadline.min(Instant::now() + pause));
        let read = timer.limit(until, scratch::read_into(client, received, room)).await;
        match read {
            Some(Ok(1..)) => {}
            Some(Ok(0)) | None => {
                seen.silent = received.is_empty() && read.is_some();
                seen.recognised = prober.settle(received);
                return Ok(());
            }
            Some(Err(_reset)) => return Err(Outcome::ClientGone),
        }
    }
}

/// Where a connection goes, if anywhere.
pub(super) fn choose<'a>(
    routes: &'a TcpRoutes,
    recognised: Option<&Recognised>,
    source: IpAddr,
) -> Option<&'a Arc<Route>> {
    match recognised {
        Some(Recognised::Http(request)) => routes.http(request.host.as_deref(), source),
        Some(Recognised::Http2Waiting) => routes.http2_waiting(source),
        Some(Recognised::HttpUnreadable) => routes.http(None, source),
        Some(Recognised::Tls { hello, .. }) => routes.tls(Some(hello), source),
        Some(Recognised::TlsUnreadable) => routes.tls(None, source),
        Some(Recognised::Ssh) => routes.ssh(source),
        Some(Recognised::Socks5) => routes.socks5(source),
        None => routes.default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size of what an async function of these four arguments returns.
    fn size_of_future<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_relayed_connection_takes_little_memory() {
        let task = size_of_future(serve);
        assert!(task <= 1024, "{task} bytes for every connection's task; box what only the beginning needs");
    }
}
