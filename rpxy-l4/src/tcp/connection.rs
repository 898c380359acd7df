//! One connection, from accept to its end.

use std::{net::SocketAddr, sync::Arc};

use rpxy_l4_proto::Outcome as Parse;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Origin, Plane, Shared,
    connect::{Patience, Reached, reach},
    probe::{MAX_RECEIVED, Prober, Recognised},
    record::Record,
    relay::{Relay, Reset},
    scratch,
};
use crate::{
    metrics::Outcome,
    net,
    route::{Protocol, Route},
};

/// Serves one accepted connection.
pub(super) async fn serve(shared: Arc<Shared>, plane: Arc<Plane>, mut client: TcpStream, mut record: Record) {
    // The stages before the relay need far more state than the relay; boxed, they do not stay in the task's memory.
    let ready = Box::pin(prepare(&shared, plane, &mut client, &mut record)).await;
    drop(shared);
    let Ready { reached, first, header, idle } = match ready {
        Ok(ready) => ready,
        Err(outcome) => {
            record.outcome = outcome;
            return;
        }
    };
    let Reached { stream: mut backend, busy, .. } = reached;
    let end = Relay::new(&mut client, &mut backend, &mut record.traffic, first, header, idle).await;
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
    /// What the backend gets first: our PROXY header, then all that was read from the client.
    first: Vec<u8>,
    /// How much of `first` is not the client's payload.
    header: usize,
    idle: Option<std::time::Duration>,
}

async fn prepare(
    shared: &Arc<Shared>,
    plane: Arc<Plane>,
    client: &mut TcpStream,
    record: &mut Record,
) -> Result<Ready, Outcome> {
    let probe_deadline = Instant::now() + plane.settings.probe_timeout;
    let peer = client.peer_addr().map_err(|_gone| Outcome::ClientGone)?;
    let mut received = Vec::new();

    #[cfg(feature = "proxy-protocol")]
    let (origin, tlvs, probe_deadline) = match &plane.settings.receive_proxy {
        None => {
            (Origin { source: peer, destination: None }, rpxy_l4_proto::proxy_protocol::Tlvs::default(), probe_deadline)
        }
        Some(settings) => {
            let (origin, tlvs) = super::inbound::read_header(settings, client, peer, &mut received).await?;
            // The client's own time begins when the load balancer has introduced it.
            (origin, tlvs, Instant::now() + plane.settings.probe_timeout)
        }
    };
    #[cfg(not(feature = "proxy-protocol"))]
    let origin = Origin { source: peer };

    let recognised =
        if plane.routes.must_probe() { recognise(&plane, client, &mut received, probe_deadline).await? } else { None };
    let (protocol, route) = choose(&plane, recognised.as_ref(), peer)?;

    let patience = Patience { connect: plane.settings.connect_timeout, retry: plane.settings.target_retry };
    let Some(reached) = reach(shared, route, origin.source, patience).await else {
        tracing::debug!("{peer}: no target can be reached");
        return Err(Outcome::Unreachable);
    };
    let detail = record.detail(route.rule.as_ref(), recognised.as_ref());
    record.started(protocol, origin.source, reached.address, detail);

    #[cfg(feature = "proxy-protocol")]
    let (first, header) = match route.send_proxy {
        None => (received, 0),
        Some(version) => {
            let mut first =
                super::outbound::header(version, &origin, client, &tlvs).map_err(|_gone| Outcome::ClientGone)?;
            let header = first.len();
            first.append(&mut received);
            (first, header)
        }
    };
    #[cfg(not(feature = "proxy-protocol"))]
    let (first, header) = (received, 0);
    Ok(Ready { reached, first, header, idle: plane.settings.idle_timeout })
}

/// Reads until the protocol is known, is surely none of ours, the time is up, or the client stops writing. The latter
/// three are `None`: the default target's.
async fn recognise(
    plane: &Plane,
    client: &mut TcpStream,
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
        match timeout_at(deadline, scratch::read_into(client, received, room)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) | Err(_) => return Ok(prober.settle()),
            Ok(Err(_reset)) => return Err(Outcome::ClientGone),
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
