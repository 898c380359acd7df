//! Encrypted Client Hello over TCP: what becomes of a hello, and the handshake until its last hello has passed.
//!
//! After that the connection is relayed like any other; nothing of it can be read here.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use rpxy_l4_proto::{
    Probe,
    ech::{self, Alert, Context, First as Opened},
    tls::{ClientHello, Found, SecondHello, ServerFlight, ServerFlightProbe, fatal_alert, handshake_records},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use super::{Shared, record::Traffic, relay::First, scratch, timer::Timer};
use crate::{
    config::model::EchPolicy,
    metrics::{EchState, Outcome},
    route::Route,
};

/// What a rule with keys makes of a hello.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) state: EchState,
    /// The decrypted hello, if it is.
    pub(super) opened: Option<Decrypted>,
}

/// A hello that was decrypted.
#[derive(Debug)]
pub(super) struct Decrypted {
    pub(super) inner: Box<ClientHello>,
    /// Where it goes.
    pub(super) route: Arc<Route>,
    pub(super) context: Context,
}

/// Why a connection goes no further.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The client is told.
    Alert(Alert),
    /// Closed without a word.
    Unmatched,
}

/// Looks at the hello of a connection from `source` whose `route` may have keys; `None` where it has none.
pub(super) fn decide(
    shared: &Shared,
    route: &Route,
    hello: &ClientHello,
    source: SocketAddr,
) -> Result<Option<Decision>, Refusal> {
    let Some(rule) = &route.ech else { return Ok(None) };
    let count = |state| shared.metrics.tcp_ech(state);
    let failures = || shared.failed_hellos.lock().unwrap_or_else(PoisonError::into_inner);
    let now = shared.uptime(Instant::now());
    let answer = match rule.policy {
        EchPolicy::Allowed | EchPolicy::Required => {
            ech::first(&rule.keys, hello, || failures().would_allow(source.ip(), now))
        }
        EchPolicy::Rejected => {
            let offered = hello.extension(ech::ENCRYPTED_CLIENT_HELLO).is_some();
            let state = if offered { EchState::SwitchedOff } else { EchState::NotOffered };
            count(state);
            return Ok(Some(Decision { state, opened: None }));
        }
    };
    let (state, opened) = match answer {
        Opened::NotOffered if rule.policy == EchPolicy::Required => {
            count(EchState::NotOffered);
            return Err(Refusal::Unmatched);
        }
        Opened::NotOffered => (EchState::NotOffered, None),
        Opened::Rejected(rejection) => {
            if rejection == ech::Rejection::Undecryptable {
                failures().allow(source.ip(), now);
            }
            (rejection.into(), None)
        }
        Opened::Accepted { inner, context } => {
            count(EchState::Accepted);
            // Closed like any hello whose name has no rule; no default takes what was meant to be private.
            let route = Arc::clone(rule.find(&inner).ok_or(Refusal::Unmatched)?);
            let opened = Decrypted { inner, route, context };
            return Ok(Some(Decision { state: EchState::Accepted, opened: Some(opened) }));
        }
        Opened::Refused(alert) => {
            count(EchState::Invalid);
            return Err(Refusal::Alert(alert));
        }
    };
    count(state);
    Ok(Some(Decision { state, opened }))
}

/// Tells the client why the handshake ends. It is not waited for: what does not fit the socket's buffer is not sent.
pub(super) fn send_alert(client: &TcpStream, alert: Alert) {
    // Seven bytes in front of everything else: only a dead connection has no room for them.
    client.try_write(&fatal_alert(alert.description())).ok();
}

/// A connection whose first hello was decrypted, until the backend has taken a hello.
#[derive(Debug)]
pub(super) struct Handshake {
    context: Context,
    /// What the client sent behind its first hello.
    rest: BytesMut,
    reader: SecondHello,
    /// The backend has asked for a second hello.
    asked: bool,
    /// What goes to the backend next.
    forward: Vec<u8>,
}

/// What to do after bytes of the client.
enum Step {
    GoOn,
    /// Both streams are relayed from here on.
    Relay,
    Refuse(Alert),
}

impl Handshake {
    /// Puts the inner hello in the place of the outer one, which ends at `end` of what was `received`. Returns what the
    /// backend gets, and the handshake to be run when it has.
    pub(super) fn begin(
        context: Context,
        inner: &ClientHello,
        end: usize,
        mut received: BytesMut,
    ) -> (BytesMut, Box<Self>) {
        let version = received.get(2).copied().unwrap_or(3);
        let rest = received.split_off(end.min(received.len()));
        let records = handshake_records(inner.message(), version);
        let handshake = Self { context, rest, reader: SecondHello::default(), asked: false, forward: Vec::new() };
        (BytesMut::from(records.as_slice()), Box::new(handshake))
    }

    /// Sends `first` and passes on what both sides say until no further hello can come. An error is how the connection
    /// ended.
    pub(super) async fn run(
        mut self: Box<Self>,
        client: &mut TcpStream,
        backend: &mut TcpStream,
        traffic: &mut Traffic,
        first: First,
        (timer, idle): (&mut Timer, Option<Duration>),
    ) -> Result<(), Outcome> {
        let left = first.bytes.get(first.sent..).unwrap_or_default();
        limit(timer, idle, backend.write_all(left)).await?.map_err(|_reset| Outcome::BackendReset)?;
        traffic.up += count(first.bytes.len().saturating_sub(first.header));
        let mut flight = Some(ServerFlightProbe::default());
        let rest = std::mem::take(&mut self.rest);
        let mut step = self.take(&rest);
        loop {
            limit(timer, idle, backend.write_all(&self.forward)).await?.map_err(|_reset| Outcome::BackendReset)?;
            traffic.up += count(self.forward.len());
            self.forward.clear();
            match step {
                Step::GoOn => {}
                Step::Relay => return Ok(()),
                Step::Refuse(alert) => {
                    send_alert(client, alert);
                    return Err(Outcome::EchInvalid);
                }
            }
            let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
            let waiting = self.reader.is_waiting();
            let read = async {
                tokio::select! {
                    read = scratch::read_into(backend, &mut down, scratch::SIZE) => read.map_err(|_reset| Outcome::BackendReset),
                    read = scratch::read_into(client, &mut up, scratch::SIZE), if !waiting => {
                        read.map_err(|_reset| Outcome::ClientReset)
                    }
                }
            };
            if limit(timer, idle, read).await?? == 0 {
                // One side has ended; the relay passes that on.
                step = self.release();
                continue;
            }
            limit(timer, idle, client.write_all(&down)).await?.map_err(|_reset| Outcome::ClientReset)?;
            traffic.down += count(down.len());
            step = if up.is_empty() { self.answer(&mut flight, &down) } else { self.take(&up) };
        }
    }

    /// The next bytes of the backend, which were passed on. After its first message they are of no interest.
    fn answer(&mut self, flight: &mut Option<ServerFlightProbe>, bytes: &[u8]) -> Step {
        let Some(probe) = flight else { return Step::GoOn };
        match probe.advance(bytes) {
            Probe::NeedMore => Step::GoOn,
            Probe::Match(ServerFlight::ServerHello) | Probe::NotThis => self.release(),
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
            Probe::NotThis if self.asked => {
                // An outer hello, mangled or not, is nothing for a private backend.
                self.forward.clear();
                return Step::Refuse(Alert::UnexpectedMessage);
            }
            // Not TLS, and the backend has not answered yet: it will know what to do.
            Probe::NotThis => return Step::Relay,
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

/// The output of `future`, unless nothing happens for as long as an idle connection may last.
async fn limit<T>(timer: &mut Timer, idle: Option<Duration>, future: impl Future<Output = T>) -> Result<T, Outcome> {
    match idle {
        None => Ok(future.await),
        Some(idle) => timer.limit(Instant::now() + idle, future).await.ok_or(Outcome::Idle),
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
