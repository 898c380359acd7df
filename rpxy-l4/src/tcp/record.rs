//! The account of a connection: exactly one outcome, counted and logged when the connection's task ends, in whatever
//! way it ends.

use std::{sync::Arc, time::Instant};

use rpxy_l4_proto::tls::ClientHello;

use super::{Listener, Shared, probe::Recognised};
use crate::{
    config::model::AccessLogFormat,
    limit::{ConnPermit, SourcePermit},
    log::{Access, Detail, Ended},
    metrics::{EchState, Outcome},
    net::Address,
    route::Protocol,
};

/// Payload bytes relayed.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) up: u64,
    pub(super) down: u64,
}

/// How far a connection has come.
#[derive(Debug)]
enum Stage {
    /// It was accepted at this time, which goes on in its [`Access`].
    Accepted(Instant),
    /// It has, or had, a backend.
    Started(Access),
}

/// The account of one accepted connection.
#[derive(Debug)]
pub(super) struct Record {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    /// Makes room for another connection only when this one is wholly gone.
    _permit: ConnPermit,
    /// Likewise for another one of the same source.
    _place: Option<SourcePermit>,
    stage: Stage,
    pub(super) traffic: Traffic,
    /// A task that is dropped half-way was ended by the daemon's stop.
    pub(super) outcome: Outcome,
}

impl Record {
    /// A load balancer has said whose connection it is: it counts as one of that source.
    #[cfg(feature = "proxy-protocol")]
    pub(super) fn introduced(&mut self, place: Option<SourcePermit>) {
        self._place = place;
    }

    pub(super) fn new(
        shared: Arc<Shared>,
        listener: Arc<Listener>,
        permit: ConnPermit,
        place: Option<SourcePermit>,
    ) -> Self {
        shared.metrics.tcp_accepted();
        Self {
            shared,
            listener,
            _permit: permit,
            _place: place,
            stage: Stage::Accepted(Instant::now()),
            traffic: Traffic::default(),
            outcome: Outcome::Drained,
        }
    }

    /// Returns whether the connection has, or had, a backend.
    pub(super) fn has_started(&self) -> bool {
        matches!(self.stage, Stage::Started(_))
    }

    /// Logs that the connection has a backend.
    pub(super) fn started(
        &mut self,
        proto: Protocol,
        source: Address,
        destination: Address,
        detail: Option<Box<Detail>>,
    ) {
        let (Stage::Accepted(since) | Stage::Started(Access { since, .. })) = self.stage;
        let access = Access { proto: proto.name(), source, destination, since, detail };
        self.shared.access.start(self.listener.access_lines.format, &self.listener.name, &access);
        self.stage = Stage::Started(access);
    }

    /// Fields of the JSON form, collected only for that.
    pub(super) fn detail(
        &self,
        rule: Option<&Arc<str>>,
        recognised: Option<&Recognised>,
        ech: Option<(EchState, Option<&ClientHello>)>,
    ) -> Option<Box<Detail>> {
        if self.listener.access_lines.format != AccessLogFormat::Json {
            return None;
        }
        let rule = rule.cloned();
        let detail = match recognised {
            Some(Recognised::Tls { hello, .. }) => Detail::of_hello(rule, hello),
            Some(Recognised::Http(request)) => Detail::of_host(rule, request.host.as_deref()),
            Some(
                Recognised::Http2Waiting
                | Recognised::HttpUnreadable
                | Recognised::TlsUnreadable
                | Recognised::Ssh
                | Recognised::Socks5,
            )
            | None => Detail { rule, ..Detail::default() },
        };
        let detail = match ech {
            Some((state, inner)) => detail.with_ech(state, inner),
            None => detail,
        };
        Some(Box::new(detail))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outcome = Outcome::InternalError;
        }
        let Traffic { up, down } = self.traffic;
        self.shared.metrics.tcp_ended(self.outcome, up, down);
        if let Stage::Started(access) = &self.stage {
            let duration = access.since.elapsed();
            let reason = self.outcome.name();
            let ended = Ended { bytes_up: up, bytes_down: down, reason, duration, steered: false };
            let Listener { access_lines, name, .. } = &*self.listener;
            self.shared.access.finish(access_lines.format, name, access, &ended);
        }
    }
}
