//! Lines of the access log about traffic that was turned away, at a bounded rate: strangers cause them at will, and must
//! neither fill a disk nor crowd out what others see of themselves.

use std::{
    fmt,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::timestamp;
use crate::{
    config::model::AccessLogRefused,
    escape,
    limit::{LineRate, Lines},
    net::Address,
};

/// Lines of one source network (an IPv4 address, or the /64 of an IPv6 address).
const OF_SOURCE: LineRate = LineRate { burst: 10, per_second: 1 };
/// Lines of all of a kind.
const OF_ALL: LineRate = LineRate { burst: 100, per_second: 10 };
/// The longest name shown, in characters: what DNS can carry (RFC 1035 section 2.3.4).
pub(super) const LONGEST_NAME: usize = 253;

/// Traffic that was turned away before it had a backend.
#[derive(Debug)]
pub(crate) struct Refused<'a> {
    /// `tcp`, `tcp:tls`, `udp:quic`, …
    pub proto: &'static str,
    /// The client, as told by an inbound PROXY header where there is one; the path of the unix socket that it came by where it
    /// has no address.
    pub source: Address,
    /// The address that it used of ours.
    pub listener: Address,
    /// Reason, as the counters name it.
    pub reason: &'static str,
    /// The name that the client asked for in the clear.
    pub server_name: Option<&'a str>,
}

/// Kinds of refusals that do not take lines from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of clients that have completed a handshake, and so receive at their address.
    Tcp,
    /// Of sources that may be forged: whoever does that must not hide what TCP clients do.
    Udp,
    /// Of networks that the operator knows already.
    Banned,
}

/// What becomes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Let {
    /// It gets its line.
    pub(super) logged: bool,
    /// It is kept for whoever looks: at the rate of lines, whether or not there are any.
    pub(super) kept: bool,
}

/// Who may have a line.
#[derive(Debug)]
pub(super) struct Gate {
    /// By kind.
    lines: [Lines; 3],
    withheld: AtomicU64,
    started: Instant,
}

impl Gate {
    pub(super) fn new() -> Self {
        let lines = [(); 3].map(|()| Lines::new(OF_SOURCE, OF_ALL));
        Self { lines, withheld: AtomicU64::new(0), started: Instant::now() }
    }

    /// Returns what becomes of a refusal of `source` now; counts those whose line is withheld.
    pub(super) fn lets(&self, which: AccessLogRefused, kind: Kind, source: IpAddr) -> Let {
        let now = self.started.elapsed();
        match which {
            AccessLogRefused::Off => Let { logged: false, kept: self.has_turn(kind, source, now) },
            AccessLogRefused::All => Let { logged: true, kept: self.has_turn(kind, source, now) },
            AccessLogRefused::Limited => {
                let may = self.lets_at(kind, source, now);
                Let { logged: may, kept: may }
            }
        }
    }

    fn has_turn(&self, kind: Kind, source: IpAddr, now: Duration) -> bool {
        self.lines.get(kind as usize).is_some_and(|lines| lines.allow(source, now))
    }

    fn lets_at(&self, kind: Kind, source: IpAddr, now: Duration) -> bool {
        let may = self.has_turn(kind, source, now);
        if !may {
            self.withheld.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Number of lines withheld since the last call.
    pub(super) fn take_withheld(&self) -> u64 {
        // Read first: most of the time there is nothing to be written.
        if self.withheld.load(Ordering::Relaxed) == 0 { 0 } else { self.withheld.swap(0, Ordering::Relaxed) }
    }
}

/// `[refused] tcp:tls: 203.0.113.7:5000 -> 192.0.2.1:443: unmatched (a.example)`. What the client chose comes last, so
/// that it cannot pass for anything else.
impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proto, source, listener, reason, server_name } = self;
        write!(f, "[refused] {proto}: {source} -> {listener}: {reason}")?;
        match server_name {
            Some(name) => write!(f, " ({})", escape::line(escape::bounded(name, LONGEST_NAME))),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    event: &'static str,
    proto: &'static str,
    src: &'a Address,
    listener: &'a Address,
    reason: &'static str,
    server_name: Option<&'a str>,
}

/// The same in JSON.
pub(super) fn as_json(refused: &Refused<'_>) -> serde_json::Result<String> {
    serde_json::to_string(&JsonLine {
        time: timestamp().to_string(),
        event: "refused",
        proto: refused.proto,
        src: &refused.source,
        listener: &refused.listener,
        reason: refused.reason,
        server_name: refused.server_name.map(|name| escape::bounded(name, LONGEST_NAME)),
    })
}

#[derive(Serialize)]
struct Withheld {
    time: String,
    event: &'static str,
    count: u64,
}

/// The number of lines that were withheld, in JSON.
pub(super) fn withheld_as_json(count: u64) -> serde_json::Result<String> {
    serde_json::to_string(&Withheld { time: timestamp().to_string(), event: "refused_withheld", count })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn refused(server_name: Option<&str>) -> Refused<'_> {
        Refused {
            proto: "tcp:tls",
            source: "[2001:db8::7]:5000".parse::<SocketAddr>().unwrap().into(),
            listener: "192.0.2.1:443".parse::<SocketAddr>().unwrap().into(),
            reason: "unmatched",
            server_name,
        }
    }

    #[test]
    fn both_forms_to_the_letter() {
        let text = "[refused] tcp:tls: [2001:db8::7]:5000 -> 192.0.2.1:443: unmatched";
        for (row, name, in_text, in_json) in [
            ("no name", None, String::new(), "null".to_owned()),
            ("a name", Some("a.example"), " (a.example)".to_owned(), "\"a.example\"".to_owned()),
            ("one that would be obeyed", Some("\u{1b}[2J"), " (\\u{1b}[2J)".to_owned(), "\"\\u001b[2J\"".to_owned()),
            (
                "a long one",
                Some("x".repeat(300).leak() as &str),
                format!(" ({})", "x".repeat(LONGEST_NAME)),
                format!("\"{}\"", "x".repeat(LONGEST_NAME)),
            ),
        ] {
            assert_eq!(refused(name).to_string(), format!("{text}{in_text}"), "{row}");
            let json = escape::json(as_json(&refused(name)).unwrap());
            let expected = format!(
                r#""event":"refused","proto":"tcp:tls","src":"[2001:db8::7]:5000","listener":"192.0.2.1:443","reason":"unmatched","server_name":{in_json}}}"#
            );
            assert_eq!(&json[json.find("\"event\"").unwrap()..], expected, "{row}");
        }
    }

    #[test]
    fn one_source_gets_few_lines_and_leaves_others_theirs() {
        let gate = Gate::new();
        let address = |n: u32| IpAddr::V4(n.into());
        let count = |times: u32, source: &dyn Fn(u32) -> IpAddr, now| {
            (0..times).filter(|n| gate.lets_at(Kind::Tcp, source(*n), Duration::from_secs(now))).count()
        };
        for (row, times, source, now, expected) in [
            ("a burst of one", 1000, &(|_| address(1)) as &dyn Fn(u32) -> IpAddr, 100, 10),
            ("another one", 5, &|_| address(2), 100, 5),
            ("the first, a second later", 1000, &|_| address(1), 101, 1),
            ("a flood from everywhere", 10_000, &|n| address(1000 + n), 200, 100),
            ("the flood goes on", 10_000, &|n| address(1000 + n), 203, 30),
        ] {
            let before = gate.withheld.load(Ordering::Relaxed);
            let lines = count(times, source, now);
            assert_eq!(lines, expected, "{row}");
            let withheld = gate.withheld.load(Ordering::Relaxed) - before;
            assert_eq!(withheld, u64::from(times) - lines as u64, "{row}: every line is written or counted");
        }
        assert!(gate.take_withheld() > 0);
        assert_eq!(gate.take_withheld(), 0);
    }

    #[test]
    fn a_flood_from_forged_addresses_hides_no_tcp_client() {
        let gate = Gate::new();
        let now = Duration::from_secs(100);
        for kind in [Kind::Udp, Kind::Banned] {
            for n in 0..10_000_u32 {
                gate.lets_at(kind, IpAddr::V4(n.into()), now);
            }
        }
        let own = IpAddr::V4(7.into());
        assert_eq!((0..20).filter(|_| gate.lets_at(Kind::Tcp, own, now)).count(), 10);
    }

    #[test]
    fn all_and_off_count_nothing_and_few_are_kept() {
        for (row, which, expected) in [("all", AccessLogRefused::All, 500), ("off", AccessLogRefused::Off, 0)] {
            let gate = Gate::new();
            let lets: Vec<Let> = (0..500).map(|_| gate.lets(which, Kind::Tcp, IpAddr::V4(1.into()))).collect();
            assert_eq!(lets.iter().filter(|let_| let_.logged).count(), expected, "{row}");
            let kept = lets.iter().filter(|let_| let_.kept).count();
            assert!((10..20).contains(&kept), "{row}: {kept}");
            assert_eq!(gate.take_withheld(), 0, "{row}");
        }
    }
}
