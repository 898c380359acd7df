//! The access log: two lines a connection.
//!
//! The text form is a contract kept to the letter (`[start] tcp:tls: src -> dst`); the JSON form adds what the daemon
//! knows. Lines are formatted straight into the sink's buffer format, without a pass through `tracing`: at tens of
//! thousands of connections a second that pass would cost more than the rest of the line.

use std::{
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rpxy_l4_proto::{ech::ENCRYPTED_CLIENT_HELLO, tls::ClientHello};
use serde::{Deserialize, Serialize};

use super::{
    ACCESS_TARGET, Sink,
    head::Head,
    latest::Latest,
    refused::{self, Gate, Kind, Let, Refused},
    timestamp,
};
use crate::{
    config::model::{AccessLogFormat, AccessLogRefused, Config},
    escape,
    id::Id,
    metrics::EchState,
    net::Address,
    overview,
};

/// State of Encrypted Client Hello where a rule has no keys.
const OFFERED: &str = "offered";
/// Protocol names (ALPN) shown of a hello, which may have tens of thousands.
const MOST_ALPNS: usize = 8;
/// The longest shown of each, in characters. Registered ones have up to 13.
const LONGEST_ALPN: usize = 32;
/// The longest server name shown, in characters: what DNS can carry (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;

/// The access log's output.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    sink: Sink,
    target: LogTarget,
    refused: Arc<Gate>,
    latest: Arc<Latest>,
}

/// What the access log shows, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AccessLines {
    /// The form; off leaves out everything.
    pub format: AccessLogFormat,
    /// Traffic that was turned away.
    pub refused: AccessLogRefused,
}

#[derive(Debug, Clone, Copy)]
enum LogTarget {
    /// Among the system lines, in their form.
    SystemLines { head: Head },
    /// In a file of its own, without a level.
    OwnFile,
}

/// A connection or session that has a backend, for the access log.
#[derive(Debug)]
pub(crate) struct Access {
    /// `tcp`, `tcp:tls`, `udp:quic`, …
    pub proto: &'static str,
    /// The client, as told by an inbound PROXY header where there is one.
    pub source: Address,
    /// The target, as the file writes it.
    pub target: Arc<str>,
    /// The resolved backend address.
    pub destination: Address,
    /// What it took to connect to that, the first lookup of its name included; `None` over UDP.
    pub connect: Option<Duration>,
    /// When the connection was accepted.
    pub since: Instant,
    /// Fields of the JSON form only; absent when the log has another form.
    pub detail: Option<Box<Detail>>,
}

/// A connection or session, by what lists and the log call it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    /// As `connections` and `flows` list it.
    pub id: Id,
    /// Name of the listener that it came to.
    pub listener: &'a str,
    /// The rest.
    pub access: &'a Access,
}

/// Fields of the JSON form beyond the text form's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Detail {
    /// Name of the `[protocols]` table; `None` for the default target.
    pub rule: Option<Arc<str>>,
    /// Server name the client asked for in the clear.
    pub server_name: Option<String>,
    /// Server name in the decrypted hello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_server_name: Option<String>,
    /// The first few ALPN protocol names offered, those of the decrypted hello where there is one.
    pub alpn: Vec<String>,
    /// Number of names offered.
    pub alpn_count: usize,
    /// State of Encrypted Client Hello; `None` when the hello has no such extension or there is no hello.
    #[serde(skip_deserializing)]
    pub ech: Option<&'static str>,
}

impl AccessLines {
    /// What `config` asks for.
    #[must_use]
    pub(crate) fn of(config: &Config) -> Self {
        Self { format: config.access_log_format, refused: config.access_log_refused }
    }
}

impl Detail {
    /// Fields that a ClientHello fills.
    #[must_use]
    pub(crate) fn of_hello(rule: Option<Arc<str>>, hello: &ClientHello) -> Self {
        let alpn = |name| escape::bounded(&String::from_utf8_lossy(name), LONGEST_ALPN).to_owned();
        Self {
            rule,
            server_name: hello.server_name().map(bounded_name),
            inner_server_name: None,
            alpn: hello.alpn().take(MOST_ALPNS).map(alpn).collect(),
            alpn_count: hello.alpn().count(),
            ech: hello.extension(ENCRYPTED_CLIENT_HELLO).map(|_| OFFERED),
        }
    }

    /// Fields of a request for `host`.
    #[must_use]
    pub(crate) fn of_host(rule: Option<Arc<str>>, host: Option<&str>) -> Self {
        Self { rule, server_name: host.map(bounded_name), ..Self::default() }
    }

    /// With the state of Encrypted Client Hello that is written like `text`.
    #[must_use]
    pub(crate) fn with_ech_named(self, text: Option<&str>) -> Self {
        let known = |text: &str| if text == OFFERED { Some(OFFERED) } else { EchState::known(text) };
        Self { ech: text.and_then(known), ..self }
    }

    /// With the state of Encrypted Client Hello at a rule that has keys, and the hello that was decrypted.
    #[must_use]
    pub(crate) fn with_ech(self, state: EchState, inner: Option<&ClientHello>) -> Self {
        let ech = self.ech.map(|_| state.name());
        match inner {
            None => Self { ech, ..self },
            Some(inner) => {
                let Self { server_name: inner_server_name, alpn, alpn_count, .. } = Self::of_hello(None, inner);
                Self { ech, inner_server_name, alpn, alpn_count, ..self }
            }
        }
    }
}

fn bounded_name(name: &str) -> String {
    escape::bounded(name, LONGEST_NAME).to_owned()
}

/// End of a connection or session, for the access log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// Payload bytes from the client to the backend.
    pub bytes_up: u64,
    /// Payload bytes from the backend to the client.
    pub bytes_down: u64,
    /// Reason of the end, as the counters name it.
    pub reason: &'static str,
    /// Length of the connection.
    pub duration: Duration,
    /// Time from the connection to the backend, or from the first datagram, to what it sent first; `None` if it did not, or
    /// to an earlier process.
    pub first_byte: Option<Duration>,
    /// The kernel has forwarded some of its datagrams.
    pub steered: bool,
}

impl AccessLog {
    pub(super) fn among_system_lines(sink: Sink, head: Head) -> Self {
        Self { sink, target: LogTarget::SystemLines { head }, refused: Arc::new(Gate::new()), latest: Arc::default() }
    }

    /// A log that nobody reads, for who asks what would happen.
    pub(crate) fn nowhere() -> Self {
        Self::own_file(Sink::nowhere())
    }

    pub(super) fn own_file(sink: Sink) -> Self {
        Self { sink, target: LogTarget::OwnFile, refused: Arc::new(Gate::new()), latest: Arc::default() }
    }

    /// Logs that a connection or session now has a backend.
    pub(crate) fn start(&self, format: AccessLogFormat, named: Named<'_>) {
        self.write(format, "start", named, None);
    }

    /// Logs its end.
    pub(crate) fn finish(&self, format: AccessLogFormat, named: Named<'_>, ended: &Ended) {
        self.write(format, "finish", named, Some(ended));
    }

    /// Logs and keeps that traffic of `source` was turned away, as `refused` describes it, which is asked only if it is
    /// its source's turn.
    pub(crate) fn refused<'a>(
        &self,
        lines: AccessLines,
        (kind, source): (Kind, IpAddr),
        refused: impl FnOnce() -> Refused<'a>,
    ) {
        let shown = lines.format != AccessLogFormat::Off && self.is_shown();
        let Let { logged, kept } =
            self.refused.lets(if shown { lines.refused } else { AccessLogRefused::Off }, kind, source);
        if !logged && !kept {
            return;
        }
        let refused = refused();
        if logged {
            self.put(lines.format, format_args!("{refused}"), || refused::as_json(&refused));
        }
        if kept {
            self.latest.keep(kind, &refused, Instant::now());
        }
    }

    /// The latest refusals, the latest first, whether or not they have lines.
    pub(crate) fn latest_refused(&self) -> Vec<overview::Refused> {
        self.latest.list(Instant::now())
    }

    /// Logs how many lines about refused traffic were withheld since the last time, if any.
    pub(crate) fn withheld(&self, format: AccessLogFormat) {
        if let count @ 1.. = self.refused.take_withheld() {
            self.put(format, format_args!("[refused] {count} more not shown"), || refused::withheld_as_json(count));
        }
    }

    fn write(&self, format: AccessLogFormat, event: &'static str, named: Named<'_>, ended: Option<&Ended>) {
        if format == AccessLogFormat::Off || !self.is_shown() {
            return;
        }
        let Access { proto, source, destination, .. } = named.access;
        self.put(format, format_args!("[{event}] {proto}: {source} -> {destination}"), || as_json(event, named, ended));
    }

    fn is_shown(&self) -> bool {
        match self.target {
            LogTarget::SystemLines { .. } => tracing::enabled!(target: ACCESS_TARGET, tracing::Level::INFO),
            LogTarget::OwnFile => true,
        }
    }

    fn put(
        &self,
        format: AccessLogFormat,
        text: std::fmt::Arguments<'_>,
        json: impl FnOnce() -> serde_json::Result<String>,
    ) {
        let mut line = String::with_capacity(160);
        let written = match format {
            AccessLogFormat::Off => return,
            AccessLogFormat::Text => self.head(&mut line).and_then(|()| writeln!(line, "{text}")),
            AccessLogFormat::Json => match json() {
                Ok(json) => writeln!(line, "{}{}", self.priority(), escape::json(json)),
                Err(_) => Err(std::fmt::Error),
            },
        };
        if written.is_ok() {
            self.sink.push(line.as_bytes(), false);
        }
    }

    /// The part of a text line in front of the message.
    fn head(&self, line: &mut String) -> std::fmt::Result {
        match self.target {
            LogTarget::SystemLines { head } => head.write(tracing::Level::INFO, line),
            LogTarget::OwnFile => write!(line, "{} ", timestamp()),
        }
    }

    /// The part of a line in JSON in front of it.
    fn priority(&self) -> &'static str {
        match self.target {
            LogTarget::SystemLines { head } => head.priority(tracing::Level::INFO),
            LogTarget::OwnFile => "",
        }
    }
}

/// One line of the JSON form. Optional fields are always there, so that a reader needs no schema of variants.
#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    event: &'static str,
    id: Id,
    proto: &'static str,
    src: &'a Address,
    dst: &'a Address,
    target: &'a str,
    plane: &'static str,
    listener: &'a str,
    #[serde(flatten)]
    detail: &'a Detail,
    connect_us: Option<u64>,
    #[serde(flatten)]
    ended: Option<EndedFields>,
}

#[derive(Serialize)]
struct EndedFields {
    bytes_up: u64,
    bytes_down: u64,
    duration_ms: u64,
    first_byte_us: Option<u64>,
    reason: &'static str,
}

fn as_json(event: &'static str, named: Named<'_>, ended: Option<&Ended>) -> serde_json::Result<String> {
    let Named { id, listener, access } = named;
    let nothing = Detail::default();
    serde_json::to_string(&JsonLine {
        time: timestamp().to_string(),
        event,
        id,
        proto: access.proto,
        src: &access.source,
        dst: &access.destination,
        target: &access.target,
        plane: if ended.is_some_and(|ended| ended.steered) { "kernel" } else { "userspace" },
        listener,
        detail: access.detail.as_deref().unwrap_or(&nothing),
        connect_us: access.connect.map(microseconds),
        ended: ended.map(|ended| EndedFields {
            bytes_up: ended.bytes_up,
            bytes_down: ended.bytes_down,
            duration_ms: u64::try_from(ended.duration.as_millis()).unwrap_or(u64::MAX),
            first_byte_us: ended.first_byte.map(microseconds),
            reason: ended.reason,
        }),
    })
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Transport;

    #[test]
    fn the_json_form_to_the_letter() {
        let mut access = Access {
            proto: "tcp:tls",
            source: Address::Ip("[2001:db8::7]:5000".parse().unwrap()),
            target: "web.example:443".into(),
            destination: Address::Ip("192.0.2.1:443".parse().unwrap()),
            connect: Some(Duration::from_micros(850)),
            since: Instant::now(),
            detail: Some(Box::new(Detail {
                rule: Some("secure".into()),
                server_name: Some("a\"b.example".to_owned()),
                inner_server_name: None,
                alpn: vec!["h2".to_owned()],
                alpn_count: 9,
                ech: None,
            })),
        };
        let id = Id { transport: Transport::Tcp, worker: 0, slot: 17, serial: 5 };
        let without_time = |line: String| line[line.find("\"event\"").unwrap()..].to_owned();
        assert_eq!(
            without_time(as_json("start", Named { id, listener: "default", access: &access }, None).unwrap()),
            r#""event":"start","id":"t0-17-5","proto":"tcp:tls","src":"[2001:db8::7]:5000","dst":"192.0.2.1:443","target":"web.example:443","plane":"userspace","listener":"default","rule":"secure","server_name":"a\"b.example","alpn":["h2"],"alpn_count":9,"ech":null,"connect_us":850}"#
        );
        (access.detail, access.connect) = (None, None);
        let duration = Duration::from_millis(3);
        let first_byte = Some(Duration::from_micros(1200));
        let ended = Ended { bytes_up: 1, bytes_down: 2, reason: "closed", duration, first_byte, steered: false };
        assert_eq!(
            without_time(as_json("finish", Named { id, listener: "default", access: &access }, Some(&ended)).unwrap()),
            r#""event":"finish","id":"t0-17-5","proto":"tcp:tls","src":"[2001:db8::7]:5000","dst":"192.0.2.1:443","target":"web.example:443","plane":"userspace","listener":"default","rule":null,"server_name":null,"alpn":[],"alpn_count":0,"ech":null,"connect_us":null,"bytes_up":1,"bytes_down":2,"duration_ms":3,"first_byte_us":1200,"reason":"closed"}"#
        );
    }
}
