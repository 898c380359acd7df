//! Encrypted Client Hello over TCP: what becomes of a hello, and the handshake until its last hello has passed.
//!
//! After that the connection is relayed like any other; nothing of it can be read here.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use rpxy_l4_proto::{
    Probe,
    ech::{Alert, Context},
    tls::{ClientHello, Found, SecondHello, ServerFlight, ServerFlightProbe, handshake_records},
};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::TcpStream,
    time::Instant,
};

use super::{Shared, alert::Refusal, record::Traffic, relay::Preamble, scratch, timer::Timer};
use crate::{
    metrics::{EchState, Outcome},
    route::{EchDecision, Route},
};

/// The part of Encrypted Client Hello in one connection.
#[derive(Debug)]
pub(super) enum Ech {
    /// The rule has no keys, or the connection does not begin with a hello.
    NotConfigured,
    /// The hello goes on by its outer name.
    Outer(EchState),
    /// The hello was decrypted.
    Private(Private),
}

/// A decrypted connection before it has a backend.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) inner: Box<ClientHello>,
    pub(super) route: Arc<Route>,
    handshake: Box<Handshake>,
}

impl Ech {
    /// Applies the policy of `route` to a connection from `source` with this `hello`, which ends at `end` of
    /// `received`, if it fills its last record. The records of a decrypted hello replace those of the outer one in
    /// `received`. An error is the way in which the connection ends.
    pub(super) fn apply(
        shared: &Shared,
        route: &Route,
        (hello, end): (&ClientHello, Option<usize>),
        source: IpAddr,
        received: &mut BytesMut,
    ) -> Result<Self, Refusal> {
        let Some(rule) = &route.ech else { return Ok(Self::NotConfigured) };
        let decision = rule.decide(hello, source, &shared.failed_hellos, shared.uptime(Instant::now()));
        shared.metrics.tcp_ech(decision.state());
        match destination(decision, end)? {
            Destination::Outer(state) => Ok(Self::Outer(state)),
            Destination::Private { inner, route, context, end } => {
                let handshake = Handshake::begin(context, &inner, end, received);
                Ok(Self::Private(Private { inner, route, handshake }))
            }
        }
    }

    /// Applies the policy of `route` to a hello that cannot be read: it offers nothing.
    pub(super) fn unreadable(shared: &Shared, route: &Route) -> Result<Self, Refusal> {
        let Some(rule) = &route.ech else { return Ok(Self::NotConfigured) };
        shared.metrics.tcp_ech(EchState::NotOffered);
        if rule.is_required() { Err(Outcome::Unmatched.into()) } else { Ok(Self::Outer(EchState::NotOffered)) }
    }

    /// The route of the connection, which is `outer` unless it was decrypted.
    pub(super) fn route<'a>(&'a self, outer: &'a Arc<Route>) -> &'a Arc<Route> {
        match self {
            Self::NotConfigured | Self::Outer(_) => outer,
            Self::Private(private) => &private.route,
        }
    }

    /// For the access log: the state, and the inner hello if there is one.
    pub(super) fn logged(&self) -> Option<(EchState, Option<&ClientHello>)> {
        match self {
            Self::NotConfigured => None,
            Self::Outer(state) => Some((*state, None)),
            Self::Private(private) => Some((EchState::Accepted, Some(&private.inner))),
        }
    }

    /// The handshake to run before the relay; `None` for a connection that was not decrypted.
    pub(super) fn into_handshake(self) -> Option<Box<Handshake>> {
        match self {
            Self::NotConfigured | Self::Outer(_) => None,
            Self::Private(private) => Some(private.handshake),
        }
    }
}

/// Where a hello with extension goes.
pub(super) enum Destination {
    /// To the targets of its rule.
    Outer(EchState),
    /// To private ones, in place of what was received up to `end`.
    Private { inner: Box<ClientHello>, route: Arc<Route>, context: Context, end: usize },
}

/// What a decision about a hello that ends at `end` of the stream, if it fills its last record, comes to.
pub(super) fn destination(decision: EchDecision<Route>, end: Option<usize>) -> Result<Destination, Refusal> {
    match decision {
        EchDecision::Outer(state) => Ok(Destination::Outer(state)),
        EchDecision::Opened { inner, route, context } => {
            let end = end.ok_or_else(|| invalid(Alert::IllegalParameter))?;
            Ok(Destination::Private { inner, route, context, end })
        }
        EchDecision::Unmatched(_) => Err(Outcome::Unmatched.into()),
        EchDecision::Invalid(alert) => Err(invalid(alert)),
    }
}

fn invalid(alert: Alert) -> Refusal {
    tracing::trace!("ECH: {alert}");
    Refusal { outcome: Outcome::EchInvalid, alert: Some(alert.description()) }
}

/// How long a handshake may stand still; `None` is for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Because nobody says anything.
    pub(super) idle: Option<Duration>,
    /// Because a side does not take what it is sent.
    pub(super) stall: Option<Duration>,
}

/// A connection whose first hello was decrypted, until the backend has taken a hello.
#[derive(Debug)]
pub(super) struct Handshake {
    context: Context,
    /// Bytes that the client sent behind its first hello.
    rest: BytesMut,
    reader: SecondHello,
    /// The backend has asked for a second hello.
    asked: bool,
    /// Bytes that go to the backend next.
    forward: Vec<u8>,
}

/// The next step of a handshake.
enum Step {
    GoOn,
    /// Both streams are relayed from here on.
    Relay,
    Refuse(Alert),
}

impl Handshake {
    /// Replaces the outer hello, which ends at `end` of `received`, by the inner one. The bytes behind it are kept for
    /// [`run`](Self::run).
    fn begin(context: Context, inner: &ClientHello, end: usize, received: &mut BytesMut) -> Box<Self> {
        let version = received.get(2).copied().unwrap_or(3);
        let rest = received.split_off(end.min(received.len()));
        *received = BytesMut::from(handshake_records(inner.message(), version).as_slice());
        Box::new(Self { context, rest, reader: SecondHello::default(), asked: false, forward: Vec::new() })
    }

    /// Sends `preamble` and passes on what both sides say until no further hello can come. An error is how the
    /// connection ended.
    pub(super) async fn run(
        mut self: Box<Self>,
        client: &mut TcpStream,
        backend: &mut TcpStream,
        traffic: &mut Traffic,
        preamble: Preamble,
        (timer, patience): (&mut Timer, Patience),
    ) -> Result<(), Refusal> {
        let left = preamble.bytes.get(preamble.sent..).unwrap_or_default();
        send(backend, left, (&mut *timer, patience)).await?.map_err(|_reset| Outcome::BackendReset)?;
        traffic.up += count(preamble.bytes.len().saturating_sub(preamble.header));
        let mut flight = Some(ServerFlightProbe::default());
        let rest = std::mem::take(&mut self.rest);
        let mut step = self.take(&rest);
        loop {
            send(backend, &self.forward, (&mut *timer, patience)).await?.map_err(|_reset| Outcome::BackendReset)?;
            traffic.up += count(self.forward.len());
            self.forward.clear();
            match step {
                Step::GoOn => {}
                Step::Relay => return Ok(()),
                Step::Refuse(alert) => return Err(invalid(alert)),
            }
            let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
            let waiting = self.reader.is_waiting();
            let read = async {
                tokio::select! {
                    read = scratch::read_into(backend, &mut down, scratch::SIZE) => read.map_err(|_reset| Outcome::BackendReset),
                    read = read_or_reset(client, &mut up, waiting) => read.map_err(|_reset| Outcome::ClientReset),
                }
            };
            if limit(timer, patience.idle, read).await.ok_or(Outcome::Idle)?? == 0 {
                // One side has ended; the relay passes that on.
                step = self.release();
                continue;
            }
            send(client, &down, (&mut *timer, patience)).await?.map_err(|_reset| Outcome::ClientReset)?;
            traffic.down += count(down.len());
            step = if up.is_empty() { self.answer(&mut flight, &down) } else { self.take(&up) };
        }
    }

    /// The next bytes of the backend, which were passed on. After its first message they are of no interest.
    fn answer(&mut self, flight: &mut Option<ServerFlightProbe>, bytes: &[u8]) -> Step {
        let Some(probe) = flight else { return Step::GoOn };
        match probe.advance(bytes) {
            Probe::NeedMore => Step::GoOn,
            Probe::Match(ServerFlight::ServerHello) | Probe::Unreadable | Probe::NotThis => self.release(),
            Probe::Match(ServerFlight::HelloRetryRequest) => {
                *flight = None;
                self.asked = true;
                self.reader.expect();
                self.take(&[])
            }
        }
    }

    /// The next bytes of the client.
    fn take(&mut self, bytes: &[u8]) -> Step {
        let Found { hello, version, rest } = match self.reader.advance(bytes, &mut self.forward) {
            Probe::NeedMore => return Step::GoOn,
            Probe::NotThis | Probe::Unreadable if self.asked => {
                // An outer hello, mangled or not, is nothing for a private backend.
                self.forward.clear();
                return Step::Refuse(Alert::UnexpectedMessage);
            }
            // Not TLS, and the backend has not answered yet: it will know what to do.
            Probe::NotThis | Probe::Unreadable => return Step::Relay,
            Probe::Match(found) => found,
        };
        match self.context.second(&hello) {
            Ok(inner) => {
                self.forward.extend(handshake_records(inner.message(), version));
                self.forward.extend(rest);
                Step::Relay
            }
            Err(alert) => Step::Refuse(alert),
        }
    }

    /// No second hello will come: what was held back goes on, unless it is the beginning of one that breaks off, which is
    /// an outer hello and nothing for a private backend.
    fn release(&mut self) -> Step {
        let held = std::mem::take(&mut self.reader).into_held();
        if !self.asked {
            self.forward.extend(held);
        }
        Step::Relay
    }
}

/// Reads what `client` says. While that is not wanted, only a reset is noticed.
async fn read_or_reset(client: &mut TcpStream, received: &mut BytesMut, waiting: bool) -> io::Result<usize> {
    if waiting {
        client.ready(Interest::ERROR).await?;
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    scratch::read_into(client, received, scratch::SIZE).await
}

/// Sends `bytes`, unless none of them is taken for too long.
async fn send(
    to: &mut TcpStream,
    mut bytes: &[u8],
    (timer, patience): (&mut Timer, Patience),
) -> Result<io::Result<()>, Outcome> {
    while !bytes.is_empty() {
        match limit(timer, patience.stall, to.write(bytes)).await.ok_or(Outcome::Stalled)? {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

/// The output of `future`, unless that takes longer than `limit`.
async fn limit<T>(timer: &mut Timer, limit: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    match limit {
        None => Some(future.await),
        Some(limit) => timer.limit(Instant::now() + limit, future).await,
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
