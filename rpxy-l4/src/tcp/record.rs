//! The account of a connection: exactly one outcome, counted and logged when the connection's task ends, in whatever
//! way it ends.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::tls::ClientHello;

use super::{
    Listener, Shared,
    probe::Recognised,
    registry::{Entered, Entry, Routed},
};
use crate::{
    config::model::AccessLogFormat,
    limit::{ConnPermit, SourcePermit},
    log::{Access, Detail, Ended, Named},
    metrics::{Carried, EchState, Outcome},
    net::Address,
    route::Protocol,
};

/// Bytes after which a connection that goes on tells its accounts. Telling costs as much as a few reads.
const TELL: u64 = 1 << 20;

/// Payload bytes relayed.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) up: u64,
    pub(super) down: u64,
    entered: Entered,
    /// Once there is a backend.
    meter: Option<Meter>,
}

/// What a connection tells the accounts of its rule and target, and its log.
#[derive(Debug)]
pub(super) struct Meter {
    carried: Carried,
    /// What it took to reach the backend.
    connect: Duration,
    connected: tokio::time::Instant,
    /// How long after that its first byte came.
    first_byte: Option<Duration>,
}

impl Meter {
    /// Of a connection whose backend was reached at `connected`, which took the time `connect`.
    pub(super) fn new(carried: Carried, connect: Duration, connected: tokio::time::Instant) -> Self {
        Self { carried, connect, connected, first_byte: None }
    }
}

impl Traffic {
    /// Bytes have moved, `down` of them before from the backend.
    pub(super) fn moved(&mut self, down: u64) {
        let Some(meter) = &mut self.meter else { return };
        if down == 0 && self.down > 0 {
            let time = meter.connected.elapsed();
            meter.carried.answered(time);
            meter.first_byte = Some(time);
        }
        if (self.up + self.down).saturating_sub(meter.carried.told()) >= TELL {
            meter.carried.tell(self.up, self.down);
        }
    }

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

    /// Logs that the connection has a backend, and counts it with its rule and target from now on.
    pub(super) fn started(
        &mut self,
        meter: Meter,
        proto: Protocol,
        source: Address,
        (destination, target): (Address, Arc<str>),
        detail: Option<Box<Detail>>,
    ) {
        let connect = Some(meter.connect);
        self.traffic.meter = Some(meter);
        let Self { shared, listener, .. } = &*self;
        self.entered().with_id(|id, entry| {
            let since = entry.since;
            let access = Access { proto: proto.name(), source, target, destination, connect, since, detail };
            let named = Named { id, listener: &listener.name, access: &access };
            shared.access.start(listener.access_lines.format, named);
            entry.access = Some(access);
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
        if self.outcome == Outcome::Drained && entry.as_ref().is_some_and(|(_, entry)| entry.closed) {
            self.outcome = Outcome::Admin;
        }
        let (up, down) = (self.traffic.up, self.traffic.down);
        if let Some(meter) = &mut self.traffic.meter {
            meter.carried.tell(up, down);
        }
        self.shared.metrics.tcp_ended(self.outcome, up, down);
        if let Some((id, Entry { access: Some(access), since, .. })) = &entry {
            let duration = since.elapsed();
            let reason = self.outcome.name();
            let first_byte = self.traffic.meter.as_ref().and_then(|meter| meter.first_byte);
            let ended = Ended { bytes_up: up, bytes_down: down, reason, duration, first_byte, steered: false };
            let Listener { access_lines, name, .. } = &*self.listener;
            self.shared.access.finish(access_lines.format, Named { id: *id, listener: name, access }, &ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, route::Targets};

    #[tokio::test(start_paused = true)]
    async fn accounts_are_told_of_the_first_answer_and_of_each_mebibyte() {
        let metrics = Metrics::new();
        let accounts = Targets::new(metrics.tcp_accounts());
        let accounts = accounts.accounts();
        let carried = Carried::new(&accounts.rule(&"web".into()), &accounts.target("a:1"));
        let mut traffic = Traffic {
            meter: Some(Meter::new(carried, Duration::ZERO, tokio::time::Instant::now())),
            ..Traffic::default()
        };
        let shows = |line: &str| metrics.encode().unwrap().lines().any(|shown| shown == line);
        let answers = |count: u64| {
            let line = "rpxy_l4_target_first_byte_seconds_count{transport=\"tcp\",target=\"a:1\"}";
            assert!(shows(&format!("{line} {count}")), "{count} answers are not shown");
        };
        let up = |bytes: u64| {
            let line = "rpxy_l4_target_relayed_bytes_total{transport=\"tcp\",target=\"a:1\",direction=\"up\"}";
            assert!(shows(&format!("{line} {bytes}")), "{bytes} bytes are not shown");
        };
        traffic.up = TELL - 2;
        traffic.moved(0);
        answers(0);
        up(0);
        tokio::time::advance(Duration::from_millis(20)).await;
        traffic.down = 1;
        traffic.moved(0);
        answers(1);
        up(0);
        assert_eq!(traffic.meter.as_ref().unwrap().first_byte, Some(Duration::from_millis(20)));
        assert!(shows("rpxy_l4_target_first_byte_seconds_sum{transport=\"tcp\",target=\"a:1\"} 0.02"));
        traffic.down = 2;
        traffic.moved(1);
        answers(1);
        up(TELL - 2);
    }
}
