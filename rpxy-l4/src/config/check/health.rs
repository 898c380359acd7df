//! The `[health.*]` tables, and the rules that name them.

use std::{cell::Cell, num::NonZeroU16, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{bytes, duration, names, protocol::RuleProtocol};
use crate::config::{
    file::{Field, Table},
    keys::{self, Scope},
    model::{Check, CheckKind, HttpCheck},
    report::{Report, quote},
};

const INTERVAL: Duration = Duration::from_secs(5);
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);
const TIMEOUT: Duration = Duration::from_secs(2);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const FALL: NonZeroU16 = NonZeroU16::new(3).unwrap();
const RISE: NonZeroU16 = NonZeroU16::new(2).unwrap();
const MOST_IN_A_ROW: u16 = 100;
const STATUSES: RangeInclusive<u16> = 100..=599;
/// The statuses that pass unless told otherwise.
const STATUS: RangeInclusive<u16> = 200..=399;
/// The longest path, in bytes.
const LONGEST_PATH: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    Tls,
    Http,
    Send,
    Quic,
}

const KINDS: &[(&str, Kind)] =
    &[("connect", Kind::Connect), ("tls", Kind::Tls), ("http", Kind::Http), ("send", Kind::Send), ("quic", Kind::Quic)];

/// The keys that one kind alone takes.
const KEYS: &[(Kind, &[&str])] =
    &[(Kind::Tls, &["server_name"]), (Kind::Http, &["path", "host", "status"]), (Kind::Send, &["send", "expect"])];

/// All `[health.*]` tables.
#[derive(Debug, Default)]
pub(super) struct Checks<'t> {
    tables: Vec<Named<'t>>,
}

/// One table, before it is known who asks for it.
#[derive(Debug)]
struct Named<'t> {
    name: &'t str,
    field: Field<'t>,
    /// `None` when it is so wrong that nothing can be asked.
    asked: Option<Asked>,
    used: Cell<bool>,
}

#[derive(Debug)]
struct Asked {
    question: Question,
    port: Option<NonZeroU16>,
    interval: Duration,
    timeout: Duration,
    fall: NonZeroU16,
    rise: NonZeroU16,
    close: bool,
}

#[derive(Debug, Clone)]
enum Question {
    Fixed(CheckKind),
    /// Over the transport of who asks.
    Send {
        send: Option<Arc<[u8]>>,
        expect: Option<Arc<[u8]>>,
    },
}

/// The part of a rule, or of the default targets, that is about health.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Health {
    pub(super) check: Option<Arc<Check>>,
    pub(super) only_healthy: bool,
}

/// Who asks for a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Tcp,
    Udp,
    /// As UDP, of which nothing is answered but handshakes.
    WireGuard,
}

impl From<RuleProtocol> for Asker {
    fn from(protocol: RuleProtocol) -> Self {
        match protocol {
            RuleProtocol::WireGuard => Self::WireGuard,
            RuleProtocol::Quic => Self::Udp,
            RuleProtocol::Http | RuleProtocol::Tls | RuleProtocol::Ssh | RuleProtocol::Socks5 => Self::Tcp,
        }
    }
}

impl PartialEq for Checks<'_> {
    /// There is one such set in a file.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl<'t> Checks<'t> {
    /// Reads the tables of the file.
    pub(super) fn new(report: &mut Report<'_>, root: &Table<'t>) -> Self {
        let entries = root.named(report, "health");
        let named = entries.into_iter().map(|(name, field)| {
            let asked = asked(report, &field);
            Named { name, field, asked, used: Cell::new(false) }
        });
        Self { tables: named.collect() }
    }

    /// What `table` says with the keys `health` and `only_healthy`, or those of the default targets; `asker` is `None` when
    /// its protocol is not known.
    pub(super) fn of(
        &self,
        report: &mut Report<'_>,
        table: &Table<'_>,
        (health_key, only_key): (&'static str, &'static str),
        asker: Option<Asker>,
    ) -> Health {
        let field = table.field(health_key);
        let check = field.as_ref().and_then(|field| self.find(report, field, asker));
        let only = table.field(only_key);
        let only_healthy = only.as_ref().and_then(|field| field.boolean(report)).unwrap_or(false);
        if only_healthy
            && field.is_none()
            && let Some(only) = only
        {
            let remedy = format!("name a [health.\"<name>\"] table with {health_key}");
            report.warn_with(&only.position, "nothing but failed connections tells which targets are healthy", remedy);
        }
        Health { check, only_healthy }
    }

    /// The same for the default targets at `target_key`; without any, the keys have no effect.
    pub(super) fn of_default(
        &self,
        report: &mut Report<'_>,
        table: &Table<'_>,
        target_key: &'static str,
        keys: (&'static str, &'static str),
        asker: Asker,
    ) -> Health {
        if table.field(target_key).is_none() {
            let message = format!("has no effect, because {target_key} is missing");
            for key in [keys.0, keys.1] {
                table.warn_unused(report, key, &message, Some("rules have their own health and only_healthy"));
            }
        }
        self.of(report, table, keys, Some(asker))
    }

    fn find(&self, report: &mut Report<'_>, field: &Field<'_>, asker: Option<Asker>) -> Option<Arc<Check>> {
        let name = field.string(report)?;
        let Some(named) = self.tables.iter().find(|named| named.name == name) else {
            let known = self.tables.iter().map(|named| named.name);
            let remedy = match keys::nearest(name, known) {
                Some(near) => format!("did you mean {}?", quote(near)),
                None => format!("write the table [health.{}]", quote(name)),
            };
            report.error_with(&field.position, format!("there is no check {}", quote(name)), remedy);
            return None;
        };
        named.used.set(true);
        let (asked, asker) = (named.asked.as_ref()?, asker?);
        let kind = asked.fit(report, field, name, asker)?;
        Some(Arc::new(Check {
            name: name.into(),
            kind,
            port: asked.port,
            #[cfg(feature = "proxy-protocol")]
            send_proxy: None,
            interval: asked.interval,
            timeout: asked.timeout,
            fall: asked.fall,
            rise: asked.rise,
            close: asked.close,
        }))
    }

    /// Warns of tables that nobody asks for.
    pub(super) fn warn_of_unused(&self, report: &mut Report<'_>) {
        for named in self.tables.iter().filter(|named| !named.used.get()) {
            let remedy = format!("write health = {} in a rule", quote(named.name));
            report.warn_with(&named.field.position, "has no effect, because no rule names it", remedy);
        }
    }
}

impl Asked {
    /// The question to the targets of `asker`, who names it at `field`.
    fn fit(&self, report: &mut Report<'_>, field: &Field<'_>, name: &str, asker: Asker) -> Option<CheckKind> {
        let over = if asker == Asker::Tcp { "TCP" } else { "UDP" };
        match &self.question {
            // Another port may be that of another transport.
            Question::Fixed(kind) if self.port.is_none() && kind.is_udp() == (asker == Asker::Tcp) => {
                let asks = if kind.is_udp() { "UDP" } else { "TCP" };
                let kinds = match asker {
                    Asker::Tcp => "\"connect\", \"tls\", \"http\" and \"send\"",
                    Asker::Udp => "\"quic\" and \"send\"",
                    Asker::WireGuard => "\"send\"",
                };
                let message = format!("{} asks over {asks}, and these targets are reached over {over}", quote(name));
                let remedy = format!("kinds for {over} are {kinds}; or name the {asks} port to ask as port");
                report.error_with(&field.position, message, remedy);
                None
            }
            Question::Fixed(CheckKind::Quic) if self.port.is_none() && asker == Asker::WireGuard => {
                let remedy = "use kind = \"send\" without expect: then only a refusal fails";
                report.error_with(&field.position, format!("{} asks for QUIC", quote(name)), remedy);
                None
            }
            Question::Fixed(kind) => Some(kind.clone()),
            Question::Send { send, expect } if asker == Asker::Tcp => {
                Some(CheckKind::Stream { send: send.clone().unwrap_or_default(), expect: expect.clone() })
            }
            Question::Send { send: Some(send), expect } => {
                if asker == Asker::WireGuard && self.port.is_none() && expect.is_some() {
                    let message =
                        format!("{} waits for an answer, which WireGuard gives to none but peers", quote(name));
                    report.warn_with(&field.position, message, "leave out expect: then only a refusal fails");
                }
                Some(CheckKind::Datagram { send: Arc::clone(send), expect: expect.clone() })
            }
            Question::Send { send: None, .. } => {
                let message = format!("{} sends nothing, and over UDP nobody answers to that", quote(name));
                report.error_with(&field.position, message, "give it the key send");
                None
            }
        }
    }
}

/// The text of one table.
fn asked(report: &mut Report<'_>, field: &Field<'_>) -> Option<Asked> {
    let table = field.table(report, Scope::Health)?;
    let kind = table.required(report, "kind").and_then(|field| field.word(report, KINDS));
    if let Some(kind) = kind {
        warn_of_others_keys(report, &table, kind);
    }
    let (interval, timeout) = times(report, &table);
    let mut in_a_row = |key, default| {
        let count = table.field(key).and_then(|field| field.integer(report, 1..=MOST_IN_A_ROW));
        count.and_then(NonZeroU16::new).unwrap_or(default)
    };
    let (fall, rise) = (in_a_row("fall", FALL), in_a_row("rise", RISE));
    let port = table.field("port").and_then(|field| field.integer(report, 1..=u16::MAX)).and_then(NonZeroU16::new);
    let close = table.field("close").and_then(|field| field.boolean(report)).unwrap_or(false);
    let question = question(report, &table, kind);
    Some(Asked { question: question?, port, interval, timeout, fall, rise, close })
}

/// A key of another kind is most often one that was left over.
fn warn_of_others_keys(report: &mut Report<'_>, table: &Table<'_>, kind: Kind) {
    let word = |kind: Kind| KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word);
    for (owner, keys) in KEYS.iter().filter(|(owner, _)| *owner != kind) {
        for field in keys.iter().filter_map(|key| table.field(key)) {
            let message = format!("has no effect on kind = \"{}\"", word(kind));
            report.warn_with(&field.position, message, format!("it is for kind = \"{}\"", word(*owner)));
        }
    }
}

fn times(report: &mut Report<'_>, table: &Table<'_>) -> (Duration, Duration) {
    let interval = duration::within(report, table, "interval", INTERVAL, INTERVALS);
    let default = TIMEOUT.min(interval);
    let timeout = duration::or_default(report, table, "timeout", default);
    let Some(field) = table.field("timeout") else { return (interval, default) };
    if timeout < SHORTEST_TIMEOUT {
        report.error(&field.position, format!("must not be shorter than {SHORTEST_TIMEOUT:?}"));
    } else if timeout > interval {
        let message = format!("must not be longer than interval, which is {interval:?}");
        report.error_with(&field.position, message, "a target is asked once at a time");
    }
    (interval, timeout)
}

/// The question of a table of `kind`. Keys of other kinds are looked at as well: all mistakes are told in one go.
fn question(report: &mut Report<'_>, table: &Table<'_>, kind: Option<Kind>) -> Option<Question> {
    let server_name = table.field("server_name").and_then(|field| server_name(report, &field));
    let path = table.field("path").and_then(|field| path(report, &field)).unwrap_or_else(|| "/".into());
    let host = table.field("host").and_then(|field| host(report, &field));
    let status = table.field("status").map(|field| statuses(report, &field)).unwrap_or_else(|| vec![STATUS]);
    let mut bytes = |key| table.field(key).and_then(|field| bytes::bytes(report, &field));
    let (send, expect) = (bytes("send"), bytes("expect"));
    if kind == Some(Kind::Send) && table.field("send").is_none() && table.field("expect").is_none() {
        let remedy = "give it send, expect or both; kind = \"connect\" asks for a connection alone";
        report.error_with(&table.position, "neither sends nor expects anything", remedy);
    }
    Some(match kind? {
        Kind::Connect => Question::Fixed(CheckKind::Connect),
        Kind::Quic => Question::Fixed(CheckKind::Quic),
        Kind::Tls => Question::Fixed(CheckKind::Tls { server_name }),
        Kind::Http => Question::Fixed(CheckKind::Http(HttpCheck { path, host, status })),
        Kind::Send => Question::Send { send, expect },
    })
}

/// A name for the hello, which must not be an address (RFC 6066 section 3).
fn server_name(report: &mut Report<'_>, field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.string(report)?;
    let name = if text.parse::<std::net::IpAddr>().is_ok() { Err("it is an address") } else { names::host(text) };
    name.inspect_err(|reason| report.error(&field.position, format!("{} is no server name: {reason}", quote(text))))
        .ok()
}

fn path(report: &mut Report<'_>, field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.string(report)?;
    if !text.starts_with('/') {
        report.error(&field.position, format!("{} does not start with /", quote(text)));
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        let remedy = "write other characters as % and two hexadecimal digits";
        report.error_with(&field.position, format!("{} is not the path of a request", quote(text)), remedy);
    } else if text.len() > LONGEST_PATH {
        report.error(&field.position, format!("has {} bytes; {LONGEST_PATH} are the most", text.len()));
    } else {
        return Some(text.into());
    }
    None
}

/// A host, with a port or without.
fn host(report: &mut Report<'_>, field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.string(report)?;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if text.is_empty() || text.len() > names::LONGEST || !text.bytes().all(is_part) {
        report.error_with(&field.position, format!("{} is not a host", quote(text)), "as in \"app.example.com\"");
        return None;
    }
    Some(text.into())
}

/// One or more statuses or ranges of them; those that are none are reported and left out.
fn statuses(report: &mut Report<'_>, field: &Field<'_>) -> Vec<RangeInclusive<u16>> {
    if field.is_empty_array() {
        report.error(&field.position, "must not be empty");
    }
    let elements = field.one_or_many(report).unwrap_or_default();
    elements.iter().filter_map(|element| status(report, element)).collect()
}

fn status(report: &mut Report<'_>, field: &Field<'_>) -> Option<RangeInclusive<u16>> {
    if field.is_integer() {
        return field.integer(report, STATUSES).map(|status| status..=status);
    }
    let Some(text) = field.as_string() else {
        field.wrong_type(report, "a status, a range as in \"200-299\", or an array of these");
        return None;
    };
    let bound = |text: &str| text.parse().ok().filter(|status| STATUSES.contains(status));
    let range = text.split_once('-').and_then(|(from, to)| Some(bound(from)?..=bound(to)?));
    let range = range.filter(|range| !range.is_empty());
    if range.is_none() {
        let remedy = format!("from {} to {}, as in \"200-299\"", STATUSES.start(), STATUSES.end());
        report.error_with(&field.position, format!("{} is not a range of statuses", quote(text)), remedy);
    }
    range
}
