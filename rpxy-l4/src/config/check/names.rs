//! Host names to dial, server names and ALPN names to match.
//!
//! Host and server names are kept in lower case without a trailing dot. Host names are refused only where 0.2.x refuses
//! them; server names only when blank, since any other text is harmless: it matches nothing.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::listen::without_duplicates;
use crate::config::{
    file::{Field, Table},
    model::NamePattern,
    report::{Position, Report, quote},
};

/// The longest name, in bytes (RFC 1035 section 2.3.4, without the root's length byte and the first label's).
pub(super) const LONGEST: usize = 253;

/// A name to resolve: letters, digits, hyphens and underscores between single dots.
pub(super) fn host(text: &str) -> Result<Arc<str>, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("it is empty");
    }
    if !name.is_ascii() {
        return Err("letters beyond ASCII must be written in their xn-- form");
    }
    if name.len() > LONGEST {
        return Err("it is longer than 253 bytes");
    }
    if name.split('.').any(str::is_empty) {
        return Err("it has an empty label");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
        return Err("only letters, digits, hyphens, underscores and dots are allowed");
    }
    Ok(name.to_ascii_lowercase().into())
}

/// Whether clients of a protocol may name a server by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addresses {
    /// HTTP, in `Host` and `:authority`.
    Named,
    /// TLS and QUIC, whose clients send no name then (RFC 6066 section 3).
    Nameless,
}

/// Why a name that [`host`] takes can never be resolved, if so.
pub(super) fn unresolvable(name: &str) -> Option<&'static str> {
    // RFC 1035 section 2.3.4.
    name.split('.').any(|label| label.len() > 63).then_some("a part between dots is longer than 63 bytes")
}

/// The server names of an array, without duplicates.
pub(super) fn patterns(report: &mut Report<'_>, field: &Field<'_>, addresses: Addresses) -> Vec<NamePattern> {
    let names = field.strings(report).unwrap_or_default();
    let patterns = names.into_iter().filter_map(|(position, name)| pattern(report, &position, name, addresses));
    without_duplicates(patterns.collect())
}

/// A server name to match, `*.` in front for any name below.
fn pattern(report: &mut Report<'_>, position: &Position, text: &str, addresses: Addresses) -> Option<NamePattern> {
    if text.trim().is_empty() {
        report.error_with(position, "a server name must not be blank", "leave server_names out to match any name");
        return None;
    }
    if let Some(address) = address(text) {
        if addresses == Addresses::Nameless {
            let message = format!("{} is an address, for which clients send no server name", quote(text));
            report.warn_with(position, message, "leave server_names out to match connections without a name, too");
        }
        // As the host of a request is read: without brackets, in the one form that an address has.
        return Some(NamePattern::Exact(address.to_string().into()));
    }
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(suffix) => (true, suffix),
        None => (false, text),
    };
    match host(name) {
        Ok(name) if wildcard => Some(NamePattern::Wildcard(name)),
        Ok(name) => Some(NamePattern::Exact(name)),
        Err(reason) => {
            let message = format!("{} can never match: {reason}", quote(text));
            let port = |(name, port): (&str, &str)| port.parse::<u16>().is_ok() && host(name).is_ok();
            if text == "*" {
                let message = "\"*\" matches nothing: it is not a name";
                report.warn_with(position, message, "leave server_names out to match any name, or none");
            } else if text.contains('*') {
                report.warn_with(position, message, "a wildcard is \"*.\" in front of a name");
            } else if name.rsplit_once(':').is_some_and(port) {
                report.warn_with(position, message, "leave the port out: server names have none");
            } else {
                report.warn(position, message);
            }
            // As written, so that the rule keeps a condition: without one it would match every name.
            Some(NamePattern::Exact(text.to_ascii_lowercase().into()))
        }
    }
}

/// An address, in brackets or not, with a port or not.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.and_then(|bare| bare.parse::<Ipv6Addr>().ok()).map(Into::into).or_else(|| text.parse().ok()).or_else(with_port)
}

/// The protocol names of `alpns`, or of `alpn`, without duplicates; `not_empty` is called for a list with elements.
pub(super) fn alpns<'t>(
    report: &mut Report<'_>,
    table: &Table<'t>,
    not_empty: impl FnOnce(&mut Report<'_>, &Field<'t>),
) -> Vec<Arc<[u8]>> {
    let field = match (table.field("alpns"), table.field("alpn")) {
        (Some(_), Some(second)) => {
            report.error_with(&second.position, "alpns and alpn are the same key", "keep one of them");
            return Vec::new();
        }
        (field, None) | (None, field) => field,
    };
    let Some(field) = field else { return Vec::new() };
    let Some(names) = field.strings(report) else { return Vec::new() };
    if !field.is_empty_array() {
        not_empty(report, &field);
    }
    for (position, name) in &names {
        // RFC 7301 section 3.1: 1 to 255 bytes.
        if !(1..=255).contains(&name.len()) {
            report.warn(position, "can never match: a protocol name has 1 to 255 bytes");
        }
    }
    without_duplicates(names.into_iter().map(|(_, name)| name.as_bytes().into()).collect())
}

/// Returns whether `pattern` covers `name`, a lower-case name without a trailing dot.
pub(super) fn covers(pattern: &NamePattern, name: &str) -> bool {
    match pattern {
        NamePattern::Exact(exact) => **exact == *name,
        NamePattern::Wildcard(suffix) => name
            .strip_suffix(&**suffix)
            .and_then(|front| front.strip_suffix('.'))
            .is_some_and(|front| !front.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let rows = [
            ("plain", "example.com", Some("example.com")),
            ("one label", "localhost", Some("localhost")),
            ("upper case", "ExAmple.COM", Some("example.com")),
            ("trailing dot", "example.com.", Some("example.com")),
            ("underscore", "my_service.internal", Some("my_service.internal")),
            ("hyphen at an edge", "-a-.b", Some("-a-.b")),
            ("digits", "300.1.1.1", Some("300.1.1.1")),
            ("empty", "", None),
            ("dot", ".", None),
            ("two trailing dots", "a..", None),
            ("leading dot", ".a", None),
            ("empty label", "a..b", None),
            ("space", "a b", None),
            ("scheme", "http//a", None),
            ("beyond ASCII", "bücher.example", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(host(text).ok().as_deref(), expected, "{name}");
        }
        assert!(host(&"a".repeat(253)).is_ok(), "253 bytes");
        assert!(host(&format!("{}.", "a".repeat(253))).is_ok(), "253 bytes and a dot");
        assert!(host(&"a".repeat(254)).is_err(), "254 bytes");
        assert_eq!(unresolvable(&format!("b.{}", "a".repeat(63))), None, "63 bytes between dots");
        assert!(unresolvable(&format!("{}.b", "a".repeat(64))).is_some(), "64 bytes between dots");
    }

    #[test]
    fn coverage() {
        let wildcard = NamePattern::Wildcard("example.com".into());
        let exact = NamePattern::Exact("example.com".into());
        let rows = [
            ("equal", &exact, "example.com", true),
            ("below an exact name", &exact, "a.example.com", false),
            ("one label more", &wildcard, "a.example.com", true),
            ("two labels more", &wildcard, "a.b.example.com", true),
            ("the suffix itself", &wildcard, "example.com", false),
            ("a dot and nothing", &wildcard, ".example.com", false),
            ("another name with that ending", &wildcard, "notexample.com", false),
        ];
        for (name, pattern, text, expected) in rows {
            assert_eq!(covers(pattern, text), expected, "{name}");
        }
    }
}
