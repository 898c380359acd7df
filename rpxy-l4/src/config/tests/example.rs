//! The example file: loads as it stands and with every key switched on, and leaves none out.

use super::{accepted, warnings};
use crate::config::keys;

const EXAMPLE: &str = include_str!("../../../../config.example.toml");

/// The example with every `# key = value` and `# [table]` switched on.
pub(super) fn all_switched_on() -> String {
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest)
            if rest.starts_with("[protocols.")
                || rest.starts_with("[health.")
                || rest.starts_with("[listeners.")
                || rest.starts_with("[[protocols.")
                || rest == "[ebpf]"
                || rest == "[confine]"
                || assigned_key(rest).is_some() =>
        {
            rest
        }
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The key of a line `key = value`.
fn assigned_key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    let is_key =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_key.then_some(key)
}

/// The text without comments, roughly: no string of the example holds a number sign.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn loads_as_it_stands() {
    assert_eq!(warnings(EXAMPLE), [""; 0]);
    let config = accepted(EXAMPLE);
    assert_eq!(config.top.tcp.default.unwrap().targets[0].to_string(), "192.168.0.2:8000");
    assert!(config.top.rules.is_empty());
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn loads_with_every_key_switched_on() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let key_file =
        std::fs::File::options().write(true).create_new(true).mode(0o600).open(directory.path().join("ech.pem"));
    std::io::Write::write_all(&mut key_file.unwrap(), super::ech::pem(1).as_bytes()).unwrap();
    let token_file =
        std::fs::File::options().write(true).create_new(true).mode(0o600).open(directory.path().join("status.token"));
    std::io::Write::write_all(&mut token_file.unwrap(), b"0123456789abcdef\n").unwrap();
    let path = directory.path().join("config.toml");
    // A default of no limit would leave its companions without effect.
    let text = all_switched_on()
        .replace("udp_new_sessions_per_source = 0", "udp_new_sessions_per_source = 100")
        .replace("tcp_new_connections_per_source = 0", "tcp_new_connections_per_source = 100");
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    let loaded = crate::config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.rules, 7);
}

#[test]
fn shows_every_known_key() {
    let text = without_comments(&all_switched_on());
    for (scope, key) in keys::known() {
        // The tables themselves are shown by their headers; keys of inline tables stand inside a line.
        let shown = text.lines().any(|line| assigned_key(line) == Some(key))
            || text.contains(&format!("{{ {key} = "))
            || text.contains(&format!(", {key} = "))
            || text.contains(&format!("[{key}]"))
            || text.contains(&format!("[{key}."))
            || text.contains(&format!(".{key}]"));
        assert!(shown, "{key} ({scope:?}) is missing in config.example.toml");
    }
}

/// A value shown without a remark of its own is the default: switching it on changes nothing.
#[test]
fn values_shown_are_the_defaults() {
    let expected = accepted(EXAMPLE);
    let mut checked = 0;
    for line in EXAMPLE.lines().take_while(|line| !line.starts_with("# [listeners.")) {
        let Some(rest) = line.strip_prefix("# ").filter(|rest| assigned_key(rest).is_some()) else { continue };
        let key = assigned_key(rest).unwrap();
        // Balances and modes need what they are of; workers has no value of its own as default.
        if rest.contains("# default:") || ["udp_load_balance", "workers", "listen_unix_mode"].contains(&key) {
            continue;
        }
        let mut text = EXAMPLE.replace(line, rest);
        if text.find("# [ebpf]") < text.find(rest) {
            text = text.replace("# [ebpf]", "[ebpf]");
        }
        assert_eq!(accepted(&text), expected, "{line}");
        checked += 1;
    }
    assert!(checked > 15, "{checked}");
}
