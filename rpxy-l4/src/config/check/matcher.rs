//! Conditions of a rule: server names, ALPNs, ECH, public keys, reserved bytes, each on the protocols that have it.

use std::sync::Arc;

use base64::Engine as _;
use rpxy_l4_proto::wireguard::Reserved;

use super::{
    defaults::RuleDefaults,
    ech,
    names::{self, Addresses},
    protocol::RuleProtocol,
};
use crate::config::{
    ech::BASE64,
    file::{Field, Table},
    model::{Ech, Matcher, NamePattern, TlsMatcher},
    report::Report,
};

const RESERVED: &[(&str, Reserved)] = &[("zero", Reserved::Zero), ("any", Reserved::Any)];

/// The matcher of a rule, or `None` when its protocol is not known.
pub(super) fn matcher(
    report: &mut Report<'_>,
    table: &Table<'_>,
    protocol: Option<RuleProtocol>,
    defaults: &RuleDefaults<'_>,
) -> Option<Matcher> {
    let server_names = server_names(report, table, protocol);
    let alpns = names::alpns(report, table, |report, field| {
        if !protocol.is_none_or(RuleProtocol::has_hello) {
            without_effect(report, field, "tls and quic");
        }
    });
    let ech = ech(report, table, protocol, &server_names, defaults);
    let public_key = public_key(report, table, protocol);
    let reserved = reserved(report, table, protocol);
    let matcher = match protocol? {
        RuleProtocol::Http => Matcher::Http { server_names },
        RuleProtocol::Tls => Matcher::Tls(TlsMatcher { server_names, alpns, ech }),
        RuleProtocol::Quic => Matcher::Quic(TlsMatcher { server_names, alpns, ech }),
        RuleProtocol::Ssh => Matcher::Ssh,
        RuleProtocol::Socks5 => Matcher::Socks5,
        RuleProtocol::WireGuard => Matcher::WireGuard { public_key, reserved },
    };
    Some(matcher)
}

fn server_names(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<RuleProtocol>) -> Vec<NamePattern> {
    let Some(field) = table.field("server_names") else { return Vec::new() };
    match protocol {
        Some(RuleProtocol::Ssh | RuleProtocol::Socks5 | RuleProtocol::WireGuard) if !field.is_empty_array() => {
            report.error_with(
                &field.position,
                "this protocol carries no server name",
                "server_names is for tls, quic and http",
            );
        }
        _ => {}
    }
    let addresses = match protocol {
        Some(RuleProtocol::Tls | RuleProtocol::Quic) => Addresses::Nameless,
        Some(RuleProtocol::Http | RuleProtocol::Ssh | RuleProtocol::Socks5 | RuleProtocol::WireGuard) | None => {
            Addresses::Named
        }
    };
    names::patterns(report, &field, addresses)
}

fn ech(
    report: &mut Report<'_>,
    table: &Table<'_>,
    protocol: Option<RuleProtocol>,
    server_names: &[NamePattern],
    defaults: &RuleDefaults<'_>,
) -> Option<Arc<Ech>> {
    let field = table.field("ech")?;
    if !protocol.is_none_or(RuleProtocol::has_hello) {
        without_effect(report, &field, "tls and quic");
    }
    ech::ech(report, &field, server_names, defaults).map(Arc::new)
}

fn public_key(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<RuleProtocol>) -> Option<[u8; 32]> {
    let field = table.field("public_key")?;
    if !matches!(protocol, Some(RuleProtocol::WireGuard) | None) {
        without_effect(report, &field, "wireguard");
    }
    let text = field.string(report)?;
    let key = BASE64.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if key.is_none() {
        report.error_with(
            &field.position,
            "not a public key: 32 bytes in base64",
            "see `wg show <interface> public-key`",
        );
    }
    key
}

fn reserved(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<RuleProtocol>) -> Reserved {
    let Some(field) = table.field("reserved") else { return Reserved::default() };
    if !matches!(protocol, Some(RuleProtocol::WireGuard) | None) {
        report.error_with(&field.position, "this protocol has no reserved bytes", "reserved is for wireguard");
    }
    field.word(report, RESERVED).unwrap_or_default()
}

fn without_effect(report: &mut Report<'_>, field: &Field<'_>, protocols: &str) {
    report.warn(&field.position, format!("has no effect on this protocol: it is for {protocols}"));
}
