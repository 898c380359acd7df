//! What a rule matches: server names, ALPNs, ECH, public keys, reserved bytes, each on the protocols that have it.

use std::sync::Arc;

use base64::Engine as _;

use super::{Inherited, ech, names, rules::Protocol};
use crate::config::{
    ech::BASE64,
    file::{Field, Table},
    model::{Ech, Matcher, NamePattern, Reserved, TlsMatcher},
    report::Report,
};

const RESERVED: &[(&str, Reserved)] = &[("zero", Reserved::Zero), ("any", Reserved::Any)];

/// The matcher of a rule, or `None` when its protocol is not known.
pub(super) fn matcher(
    report: &mut Report<'_>,
    table: &Table<'_>,
    protocol: Option<Protocol>,
    inherited: &Inherited<'_>,
) -> Option<Matcher> {
    let server_names = server_names(report, table, protocol);
    let alpns = alpns(report, table, protocol);
    let ech = ech(report, table, protocol, &server_names, inherited);
    let public_key = public_key(report, table, protocol);
    let reserved = reserved(report, table, protocol);
    let matcher = match protocol? {
        Protocol::Http => Matcher::Http { server_names },
        Protocol::Tls => Matcher::Tls(TlsMatcher { server_names, alpns, ech }),
        Protocol::Quic => Matcher::Quic(TlsMatcher { server_names, alpns, ech }),
        Protocol::Ssh => Matcher::Ssh,
        Protocol::Socks5 => Matcher::Socks5,
        Protocol::WireGuard => Matcher::WireGuard { public_key, reserved },
    };
    Some(matcher)
}

fn server_names(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<Protocol>) -> Vec<NamePattern> {
    let Some(field) = table.field("server_names") else { return Vec::new() };
    match protocol {
        Some(Protocol::Ssh | Protocol::Socks5 | Protocol::WireGuard) if !field.is_empty_array() => {
            report.error_with(
                &field.place,
                "this protocol carries no server name",
                "server_names is for tls, quic and http",
            );
        }
        _ => {}
    }
    names::patterns(report, &field)
}

pub(super) fn alpns(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<Protocol>) -> Vec<Arc<[u8]>> {
    let field = match (table.field("alpns"), table.field("alpn")) {
        (Some(_), Some(second)) => {
            report.error_with(&second.place, "alpns and alpn are the same key", "keep one of them");
            return Vec::new();
        }
        (field, None) | (None, field) => field,
    };
    let Some(field) = field else { return Vec::new() };
    let Some(names) = field.strings(report) else { return Vec::new() };
    if !has_hello(protocol) && !field.is_empty_array() {
        without_effect(report, &field, "tls and quic");
    }
    let mut alpns: Vec<Arc<[u8]>> = Vec::with_capacity(names.len());
    for (place, name) in names {
        // RFC 7301 section 3.1: 1 to 255 bytes.
        if !(1..=255).contains(&name.len()) {
            report.warn(&place, "can never match: a protocol name has 1 to 255 bytes");
        }
        let alpn: Arc<[u8]> = name.as_bytes().into();
        if !alpns.contains(&alpn) {
            alpns.push(alpn);
        }
    }
    alpns
}

fn ech(
    report: &mut Report<'_>,
    table: &Table<'_>,
    protocol: Option<Protocol>,
    server_names: &[NamePattern],
    inherited: &Inherited<'_>,
) -> Option<Arc<Ech>> {
    let field = table.field("ech")?;
    if !has_hello(protocol) {
        without_effect(report, &field, "tls and quic");
    }
    ech::ech(report, &field, server_names, inherited).map(Arc::new)
}

fn public_key(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<Protocol>) -> Option<[u8; 32]> {
    let field = table.field("public_key")?;
    if !matches!(protocol, Some(Protocol::WireGuard) | None) {
        without_effect(report, &field, "wireguard");
    }
    let text = field.string(report)?;
    let key = BASE64.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if key.is_none() {
        report.error_with(&field.place, "not a public key: 32 bytes in base64", "see `wg show <interface> public-key`");
    }
    key
}

fn reserved(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<Protocol>) -> Reserved {
    let Some(field) = table.field("reserved") else { return Reserved::default() };
    if !matches!(protocol, Some(Protocol::WireGuard) | None) {
        report.error_with(&field.place, "this protocol has no reserved bytes", "reserved is for wireguard");
    }
    field.word(report, RESERVED).unwrap_or_default()
}

/// Whether connections of the protocol start with a ClientHello. An unknown protocol is given the benefit of the doubt.
fn has_hello(protocol: Option<Protocol>) -> bool {
    match protocol {
        Some(Protocol::Tls | Protocol::Quic) | None => true,
        Some(Protocol::Http | Protocol::Ssh | Protocol::Socks5 | Protocol::WireGuard) => false,
    }
}

fn without_effect(report: &mut Report<'_>, field: &Field<'_>, protocols: &str) {
    report.warn(&field.place, format!("without effect on this protocol: it is for {protocols}"));
}
