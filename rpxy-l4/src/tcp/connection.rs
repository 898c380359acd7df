//! One connection, from accept to its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rpxy_l4_proto::Outcome as Parse;
#[cfg(feature = "proxy-protocol")]
use rpxy_l4_proto::proxy_protocol::Tlvs;
use tokio::{net::TcpStream, time::Instant};

use super::{
    Origin, Plane, Shared,
    connect::{Patience, Reached, reach},
    probe::{MAX_RECEIVED, Prober, Recognised},
    record::Record,
    relay::{First, Relay, Reset},
    scratch,
    timer::Timer,
};
use crate::{
    metrics::Outcome,
    net,
    route::{Protocol, Route},
};

/// A connection as `accept(2)` returned it.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
}

/// Serves one accepted connection.
pub(super) async fn serve(shared: Arc<Shared>, plane: Arc<Plane>, client: Accepted, mut record: Record) {
    let Accepted { stream: mut client, peer } = client;
    // The stages before the relay need far more state than the relay; boxed, they do not stay in the task's memory.
    let ready = Box::pin(prepare(&shared, plane, &mut client, peer, &mut record)).await;
    drop(shared);
    let Ready { reached, first, timer, idle } = match ready {
        Ok(ready) => ready,
        Err(outcome) => {
            record.outcome = outcome;
            return;
        }
    };
    let Reached { stream: mut backend, busy, .. } = reached;
    let end = Relay::new(&mut client, &mut backend, &mut record.traffic, first, timer, idle).await;
    match end.reset {
        Some(Reset::Client) => net::reset_on_close(&client),
        Some(Reset::Backend) => net::reset_on_close(&backend),
        None => {}
    }
    record.outcome = end.outcome;
    drop(busy);
}

/// A connection with both ends.
struct Ready {
    reached: Reached,
    first: First,
    timer: Timer,
    idle: Option<Duration>,
}

async fn prepare(
    shared: &Arc<Shared>,
    plane: Arc<Plane>,
    client: &mut TcpStream,
    peer: SocketAddr,
    record: &mut Record,
) -> Result<Ready, Outcome> {
    let settings = &plane.settings;
    let mut timer = Timer::default();
    let mut received = Vec::new();

    #[cfg(feature = "proxy-protocol")]
    let (origin, tlvs) = match &settings.receive_proxy {
        None => (Origin { source: peer, destination: None }, Tlvs::default()),
        Some(settings) => super::inbound::read_header(settings, client, peer, &mut timer, &mut received).await?,
    };
    #[cfg(not(feature = "proxy-protocol"))]
    let origin = Origin { source: peer };

    let recognised = if plane.routes.must_probe() {
        // The client's time begins when the load balancer before us, if any, has introduced it.
        let deadline = Instant::now() + settings.probe_timeout;
        recognise(&plane, client, &mut timer, &mut received, deadline).await?
    } else {
        None
    };
    let (protocol, route) = choose(&plane, recognised.as_ref(), peer)?;

    #[cfg(feature = "proxy-protocol")]
    let mut first = super::outbound::first(route.send_proxy, &origin, client, &tlvs, received)?;
    #[cfg(not(feature = "proxy-protocol"))]
    let mut first = First { bytes: received, ..First::default() };

    let patience = Patience { connect: settings.connect_timeout, retry: settings.target_retry };
    let Some(reached) = reach(shared, route, origin.source, patience, &mut timer, &mut first).await else {
        tracing::debug!("{peer}: no target can be reached");
        return Err(Outcome::Unreachable);
    };
    let detail = record.detail(route.rule.as_ref(), recognised.as_ref());
    record.started(protocol, origin.source, reached.address, detail);
    Ok(Ready { reached, first, timer, idle: settings.idle_timeout })
}

/// Reads until the protocol is known, is surely none of ours, the time is up, or the client stops writing. The latter
/// three are `None`: the default target's.
async fn recognise(
    plane: &Plane,
    client: &mut TcpStream,
    timer: &mut Timer,
    received: &mut Vec<u8>,
    deadline: Instant,
) -> Result<Option<Recognised>, Outcome> {
    let mut prober = Prober::new(&plane.routes);
    loop {
        match prober.advance(received) {
            Parse::Match(recognised) => return Ok(Some(recognised)),
            Parse::NotThis => return Ok(None),
            Parse::NeedMore => {}
        }
        let room = MAX_RECEIVED.saturating_sub(received.len());
        match timer.limit(deadline, scratch::read_into(client, received, room)).await {
            Some(Ok(1..)) => {}
            Some(Ok(0)) | None => return Ok(prober.settle()),
            Some(Err(_reset)) => return Err(Outcome::ClientGone),
        }
    }
}

fn choose<'a>(
    plane: &'a Plane,
    recognised: Option<&Recognised>,
    peer: SocketAddr,
) -> Result<(Protocol, &'a Arc<Route>), Outcome> {
    let routes = &plane.routes;
    let (protocol, route) = match recognised {
        Some(Recognised::Http(request)) => (Protocol::Http, routes.http(request)),
        Some(Recognised::Tls(hello)) => (Protocol::Tls, routes.tls(hello)),
        Some(Recognised::Ssh) => (Protocol::Ssh, routes.ssh()),
        Some(Recognised::Socks5) => (Protocol::Socks5, routes.socks5()),
        None => (Protocol::Any, routes.default()),
    };
    route.map(|route| (protocol, route)).ok_or_else(|| {
        let outcome = if recognised.is_some() { Outcome::Unmatched } else { Outcome::NotRecognised };
        tracing::debug!("{peer}: closed: {} ({})", outcome.name(), protocol.name());
        outcome
    })
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
