//! The JSON Schema of a configuration file, for editors and for checks before a deployment.
//!
//! It knows which keys a table has, their types, words and numbers. What depends on other keys is left to the checker. Words
//! are in small letters only.

use serde_json::{Map, Value, json};

use super::keys::{self, Scope};

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Switch,
    /// True, false or this word.
    SwitchOr(&'static str),
    Words(&'static [&'static str]),
    Integer(u32, u32),
    Duration,
    /// An array of strings.
    Texts,
    /// A name, or a number.
    TextOrInteger(u32, u32),
    /// A string, or an array of them.
    OneOrMoreTexts,
    Ports,
    Targets,
    /// Codes and ranges of HTTP, one or more.
    Statuses,
    /// A string, or a table with its bytes in hexadecimal digits.
    Bytes,
    Table(Scope),
    /// Tables with names of the operator's choice.
    Named(Scope),
    Array(Scope),
}

const BALANCES: Kind = Kind::Words(&["none", "source_ip", "source_socket", "random", "round_robin", "least_conn"]);
const VERSIONS: Kind = Kind::Words(&["none", "v1", "v2", "1", "2"]);
const FALLBACKS: Kind = Kind::Words(&["drop", "default"]);

/// What `key` takes in a table of `scope`; nothing for a key that the schema forgot.
pub(super) fn kind(scope: Scope, key: &str) -> Option<Kind> {
    Some(match (scope, key) {
        (Scope::Rule, "listeners") => Kind::OneOrMoreTexts,
        (_, "listeners") => Kind::Named(Scope::Listener),
        (_, "protocols") => Kind::Named(Scope::Rule),
        (Scope::Global, "health") => Kind::Named(Scope::Health),
        (_, "send" | "expect") => Kind::Bytes,
        (_, "status") => Kind::Statuses,
        (_, "kind") => Kind::Words(&["connect", "tls", "http", "send", "quic"]),
        (_, "fall" | "rise") => Kind::Integer(1, 100),
        (_, "port") => Kind::Integer(1, 65_535),
        (_, "confine") => Kind::Table(Scope::Confine),
        (_, "ebpf") => Kind::Table(Scope::Ebpf),
        (_, "ech") => Kind::Table(Scope::Ech),
        (_, "private") => Kind::Array(Scope::EchPrivate),
        (_, "listen_port") => Kind::Ports,
        (_, "target" | "tcp_target" | "udp_target") => Kind::Targets,
        (_, "listen_address_v4" | "listen_address_v6" | "include" | "allow" | "deny" | "from") => Kind::OneOrMoreTexts,
        (
            _,
            "ban"
            | "interfaces"
            | "server_names"
            | "alpns"
            | "alpn"
            | "private_keys"
            | "private_server_names"
            | "config_files"
            | "status_hosts"
            | "tcp_source_addresses"
            | "tcp_trusted_proxies",
        ) => Kind::Texts,
        (
            _,
            "listen_ipv6" | "reuse_port" | "free_bind" | "early_drop" | "pin" | "affinity" | "backup" | "down"
            | "close" | "capabilities" | "landlock" | "seccomp" | "memory" | "only_healthy" | "tcp_only_healthy"
            | "udp_only_healthy",
        ) => Kind::Switch,
        (_, "user" | "group" | "admin_group" | "listen_unix_group") => Kind::TextOrInteger(0, u32::MAX - 1),
        (_, "tcp_recv_proxy_protocol") => Kind::SwitchOr("optional"),
        (
            _,
            "listen_unix" | "listen_unix_mode" | "metrics_listen" | "status_listen" | "status_token_file"
            | "admin_socket" | "pin_path" | "public_key" | "ech_config_list" | "address" | "quic_server_id" | "health"
            | "tcp_health" | "udp_health" | "path" | "host" | "server_name" | "hex",
        ) => Kind::Text,
        (
            _,
            "drain_timeout"
            | "upgrade_timeout"
            | "dns_cache_min_ttl"
            | "dns_cache_max_ttl"
            | "tcp_probe_timeout"
            | "tcp_connect_timeout"
            | "tcp_idle_timeout"
            | "tcp_half_closed_timeout"
            | "tcp_backend_closed_timeout"
            | "tcp_stall_timeout"
            | "tcp_target_retry"
            | "udp_idle_lifetime"
            | "udp_target_retry"
            | "quic_affinity_lifetime"
            | "idle_lifetime"
            | "interval"
            | "timeout",
        ) => Kind::Duration,
        (_, "tcp_load_balance" | "udp_load_balance" | "load_balance") => BALANCES,
        (Scope::Ebpf, "tcp") => Kind::Words(&["off", "auto"]),
        (_, "tcp_splice" | "splice") => Kind::Words(&["auto", "first", "off"]),
        (_, "tcp_send_proxy_protocol" | "send_proxy_protocol") => VERSIONS,
        (_, "unmatched" | "quic_unknown_version") => FALLBACKS,
        (_, "transport") => Kind::Words(&["tcp", "udp"]),
        (_, "tls_refused") => Kind::Words(&["close", "alert"]),
        (_, "access_log_format") => Kind::Words(&["text", "json", "off"]),
        (_, "access_log_refused") => Kind::Words(&["limited", "all", "off"]),
        (_, "orphan") => Kind::Words(&["drop", "default", "balance"]),
        (_, "mode") => Kind::Words(&["off", "auto", "xdp", "xdp-generic", "tc"]),
        (_, "protocol") => Kind::Words(&["http", "tls", "ssh", "socks5", "wireguard", "quic"]),
        (_, "reserved") => Kind::Words(&["zero", "any"]),
        (_, "policy") => Kind::Words(&["allowed", "required", "rejected"]),
        (_, "workers") => Kind::Integer(1, 1024),
        (_, "tcp_backlog" | "tcp_max_connections_per_source") => Kind::Integer(0, u32::MAX),
        (_, "tcp_max_connections" | "udp_max_connections" | "max_connections") => Kind::Integer(1, u32::MAX),
        (_, "tcp_new_connections_per_source" | "udp_new_sessions_per_source") => Kind::Integer(0, 1_000_000),
        (_, "tcp_new_connections_burst" | "udp_new_sessions_burst") => Kind::Integer(1, 1_000_000),
        (_, "tcp_connect_attempts") => Kind::Integer(1, 100),
        (_, "udp_receive_buffer") => Kind::Integer(4096, i32::MAX.cast_unsigned() / 2),
        (_, "source_prefix_v4") => Kind::Integer(1, 32),
        (_, "source_prefix_v6") => Kind::Integer(1, 128),
        (_, "max_flows" | "max_spliced") => Kind::Integer(1, 1 << 20),
        (_, "weight") => Kind::Integer(1, 256),
        _ => return None,
    })
}

/// The keys that a table of `scope` cannot be without.
pub(super) fn required(scope: Scope) -> &'static [&'static str] {
    match scope {
        Scope::Rule => &["protocol", "target"],
        Scope::EchPrivate => &["server_names", "target"],
        Scope::Target => &["address"],
        Scope::Health => &["kind"],
        Scope::Bytes => &["hex"],
        Scope::Global | Scope::Listener | Scope::Confine | Scope::Ebpf | Scope::Ech => &[],
    }
}

/// The schema of the file.
pub(crate) fn schema() -> Value {
    let mut schema = object(Scope::Global);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Configuration of rpxy-l4"));
    let definitions: Map<String, Value> = [
        Scope::Listener,
        Scope::Confine,
        Scope::Ebpf,
        Scope::Rule,
        Scope::Ech,
        Scope::EchPrivate,
        Scope::Target,
        Scope::Health,
        Scope::Bytes,
    ]
    .into_iter()
    .map(|scope| (name(scope).to_owned(), Value::Object(object(scope))))
    .collect();
    schema.insert("$defs".to_owned(), Value::Object(definitions));
    Value::Object(schema)
}

fn object(scope: Scope) -> Map<String, Value> {
    let properties: Map<String, Value> = keys::known()
        .filter(|(of, _)| *of == scope)
        .filter_map(|(scope, key)| Some((key.to_owned(), value(kind(scope, key)?))))
        .collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("properties".to_owned(), Value::Object(properties));
    object.insert("additionalProperties".to_owned(), json!(false));
    if !required(scope).is_empty() {
        object.insert("required".to_owned(), json!(required(scope)));
    }
    object
}

fn value(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::SwitchOr(word) => json!({ "enum": [true, false, word] }),
        Kind::Words(words) => json!({ "enum": words }),
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::TextOrInteger(least, most) => {
            json!({ "type": ["integer", "string"], "minimum": least, "maximum": most })
        }
        Kind::Duration => json!({ "type": ["integer", "string"], "minimum": 0 }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::OneOrMoreTexts => json!({ "type": ["string", "array"], "items": { "type": "string" } }),
        Kind::Ports => {
            let port = json!({ "type": ["integer", "string"], "minimum": 1, "maximum": u16::MAX });
            one_or_more(&port)
        }
        Kind::Targets => {
            let target = json!({ "anyOf": [{ "type": "string" }, reference(Scope::Target)] });
            one_or_more(&target)
        }
        Kind::Statuses => one_or_more(&json!({ "type": ["integer", "string"], "minimum": 100, "maximum": 599 })),
        Kind::Bytes => json!({ "anyOf": [{ "type": "string" }, reference(Scope::Bytes)] }),
        Kind::Table(scope) => reference(scope),
        Kind::Named(scope) => json!({ "type": "object", "additionalProperties": reference(scope) }),
        Kind::Array(scope) => json!({ "type": "array", "items": reference(scope), "minItems": 1 }),
    }
}

fn one_or_more(one: &Value) -> Value {
    json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
}

fn reference(scope: Scope) -> Value {
    json!({ "$ref": format!("#/$defs/{}", name(scope)) })
}

fn name(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "file",
        Scope::Listener => "listener",
        Scope::Confine => "confine",
        Scope::Ebpf => "ebpf",
        Scope::Rule => "rule",
        Scope::Ech => "ech",
        Scope::EchPrivate => "ech_private",
        Scope::Target => "target",
        Scope::Health => "health",
        Scope::Bytes => "bytes",
    }
}
