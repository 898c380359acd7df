//! The account of a connection: exactly one outcome, counted and logged when the connection's task ends, in whatever
//! way it ends.

use std::{sync::Arc, time::Instant};

use rpxy_l4_proto::tls::ClientHello;

use super::{Listener, Shared, probe::Recognised};
use crate::{
    config::model::AccessLogFormat,
    limit::{ConnPermit, SourcePermit},
    log::{Access, Detail, Ended},
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
    /// Once there is a backend.
    meter: Option<Meter>,
}

/// What a connection tells the accounts of its rule and target.
#[derive(Debug)]
pub(super) struct Meter {
    carried: Carried,
    connected: tokio::time::Instant,
}

impl Meter {
    /// Of a connection whose backend was reached at `connected`.
    pub(super) fn new(carried: Carried, connected: tokio::time::Instant) -> Self {
        Self { carried, connected }
    }
}

impl Traffic {
    /// Bytes have moved, `down` of them before from the backend.
    pub(super) fn moved(&mut self, down: u64) {
        let Some(meter) = &mut self.meter else { return };
        if down == 0 && self.down > 0 {
            meter.carried.answered(meter.connected.elapsed());
        }
        if (self.up + self.down).saturating_sub(meter.carried.told()) >= TELL {
            meter.carried.tell(self.up, self.down);
        }
    }
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

    /// Logs that the connection has a backend, and counts it with its rule and target from now on.
    pub(super) fn started(
        &mut self,
        meter: Meter,
        proto: Protocol,
        source: Address,
        destination: Address,
        detail: Option<Box<Detail>>,
    ) {
        let (Stage::Accepted(since) | Stage::Started(Access { since, .. })) = self.stage;
        let access = Access { proto: proto.name(), source, destination, since, detail };
        self.shared.access.start(self.listener.access_lines.format, &self.listener.name, &access);
        self.stage = Stage::Started(access);
        self.traffic.meter = Some(meter);
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
        let Traffic { up, down, .. } = self.traffic;
        if let Some(meter) = &mut self.traffic.meter {
            meter.carried.tell(up, down);
        }
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
        let mut traffic =
            Traffic { meter: Some(Meter::new(carried, tokio::time::Instant::now())), ..Traffic::default() };
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
        tokio::time::advance(std::time::Duration::from_millis(20)).await;
        traffic.down = 1;
        traffic.moved(0);
        answers(1);
        up(0);
        assert!(shows("rpxy_l4_target_first_byte_seconds_sum{transport=\"tcp\",target=\"a:1\"} 0.02"));
        traffic.down = 2;
        traffic.moved(1);
        answers(1);
        up(TELL - 2);
    }
}
