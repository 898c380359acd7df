//! The account of a connection: exactly one outcome, counted and logged when the connection's task ends, in whatever
//! way it ends.

use std::sync::Arc;

use rpxy_l4_proto::tls::ClientHello;

use super::{
    Listener, Shared,
    probe::Recognised,
    registry::{Entered, Entry, Routed},
};
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
    entered: Entered,
}

impl Traffic {
    /// Tells the registry how many bytes there were until now.
    pub(super) fn note(&self) {
        self.entered.note(self.up, self.down);
    }
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
    pub(super) traffic: Traffic,
    /// A task that is dropped half-way was ended by the daemon's stop.
    pub(super) outcome: Outcome,
}

impl Record {
    /// A load balancer has said whose connection it is: it counts as one of that source.
    #[cfg(feature = "proxy-protocol")]
    pub(super) fn introduced(&mut self, client: Address, place: Option<SourcePermit>) {
        self._place = place;
        self.entered().with(|entry| entry.client = client);
    }

    /// The account of a connection that `entered` the registry.
    pub(super) fn new(
        shared: Arc<Shared>,
        listener: Arc<Listener>,
        permit: ConnPermit,
        place: Option<SourcePermit>,
        entered: Entered,
    ) -> Self {
        shared.metrics.tcp_accepted();
        let traffic = Traffic { entered, ..Traffic::default() };
        Self { shared, listener, _permit: permit, _place: place, traffic, outcome: Outcome::Drained }
    }

    /// The connection's entry in the registry.
    pub(super) fn entered(&self) -> &Entered {
        &self.traffic.entered
    }

    /// Tells the registry which rule it is, and for which names.
    pub(super) fn routed(
        &self,
        protocol: Protocol,
        rule: Option<&Arc<str>>,
        recognised: Option<&Recognised>,
        inner: Option<&ClientHello>,
    ) {
        let server_name = match recognised {
            Some(Recognised::Tls { hello, .. }) => hello.server_name(),
            Some(Recognised::Http(request)) => request.host.as_deref(),
            Some(
                Recognised::Http2Waiting
                | Recognised::HttpUnreadable
                | Recognised::TlsUnreadable
                | Recognised::Ssh
                | Recognised::Socks5,
            )
            | None => None,
        };
        let routed = Routed {
            protocol,
            rule: rule.cloned(),
            server_name: server_name.map(Into::into),
            inner_server_name: inner.and_then(ClientHello::server_name).map(Into::into),
        };
        self.entered().with(|entry| entry.route = Some(routed));
    }

    /// Returns whether the connection has, or had, a backend.
    pub(super) fn has_started(&self) -> bool {
        self.entered().with(|entry| entry.access.is_some()).unwrap_or(false)
    }

    /// Logs that the connection has a backend.
    pub(super) fn started(
        &self,
        proto: Protocol,
        source: Address,
        (destination, target): (Address, Arc<str>),
        detail: Option<Box<Detail>>,
    ) {
        let Self { shared, listener, .. } = self;
        self.entered().with(|entry| {
            let access = Access { proto: proto.name(), source, destination, since: entry.since, detail };
            shared.access.start(listener.access_lines.format, &listener.name, &access);
            (entry.access, entry.target) = (Some(access), Some(target));
        });
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
        let entry = self.traffic.entered.leave();
        if self.outcome == Outcome::Drained && entry.as_ref().is_some_and(|entry| entry.closed) {
            self.outcome = Outcome::Admin;
        }
        let (up, down) = (self.traffic.up, self.traffic.down);
        self.shared.metrics.tcp_ended(self.outcome, up, down);
        if let Some(Entry { access: Some(access), since, .. }) = &entry {
            let duration = since.elapsed();
            let reason = self.outcome.name();
            let ended = Ended { bytes_up: up, bytes_down: down, reason, duration, steered: false };
            let Listener { access_lines, name, .. } = &*self.listener;
            self.shared.access.finish(access_lines.format, name, access, &ended);
        }
    }
}
