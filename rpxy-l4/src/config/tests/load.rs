//! Files: missing, unreadable as text, not TOML, and every known key looked at.

use std::{fs, path::Path};

use super::{BASE, accepted, errors, parse};
use crate::config::{
    LoadError,
    keys::{self, Scope},
    load,
};

/// The error of `load` for a file with this content, with the directory cut off.
fn load_error(content: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    fs::write(&path, content).unwrap();
    let message = load(&path).unwrap_err().to_string();
    message.replace(&path.display().to_string(), "c.toml")
}

#[test]
fn messages_name_file_line_key_and_remedy() {
    let rows: &[(&str, &[u8], &str)] = &[
        (
            "one mistake",
            b"listen_port = 0\ntcp_target = ['a:1']",
            "c.toml:1: listen_port: 0 is out of range, from 1 to 65535",
        ),
        (
            "two mistakes and a slip",
            b"listen_prot = 1\ntcp_target = ['a']",
            "c.toml:1: listen_port: required key is missing\n\
             c.toml:1: listen_prot: unknown key ignored (did you mean listen_port?) [warning]\n\
             c.toml:2: tcp_target[0]: \"a\" has no port (write \"host:port\")",
        ),
        ("wrong type", b"listen_port = 1\ntcp_target = 5", "c.toml:2: tcp_target: expected an array, found an integer"),
        ("not TOML", b"listen_port = 1\ntcp_target = [", "c.toml:2: not TOML: unclosed array, expected `]`"),
        ("key twice", b"listen_port = 1\nlisten_port = 2", "c.toml:2: not TOML: duplicate key"),
        ("not text", b"listen_port = 1\n# \xff", "c.toml:2: the file is not UTF-8 text"),
    ];
    for (name, content, expected) in rows {
        assert_eq!(load_error(content), *expected, "{name}");
    }
}

#[test]
fn a_missing_file_is_told_from_a_wrong_one() {
    let directory = tempfile::tempdir().unwrap();
    let error = load(&directory.path().join("none.toml")).unwrap_err();
    assert!(matches!(error, LoadError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("none.toml"), "{error}");
}

#[test]
fn a_good_file_is_what_its_text_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    fs::write(&path, BASE).unwrap();
    assert_eq!(load(&path).unwrap(), parse(BASE).unwrap());
}

#[test]
fn line_ends_and_byte_order_marks_do_not_matter() {
    let expected = accepted(BASE);
    assert_eq!(accepted(&BASE.replace('\n', "\r\n")), expected, "carriage returns");
    assert_eq!(accepted(&format!("\u{feff}{BASE}")), expected, "byte order mark");
}

/// A file with a key of this value, and the path of the key.
pub(super) fn file_with(scope: Scope, key: &str, value: &str) -> (String, String) {
    let said = format!("{key} = {value}");
    let target = "target = ['a:1']";
    let (text, path) = match scope {
        Scope::Global => (said, key.to_owned()),
        Scope::Listener => (format!("{BASE}[listeners.a]\nlisten_port = 1\n{said}"), format!("listeners.\"a\".{key}")),
        Scope::Rule => (format!("[protocols.a]\nprotocol = 'tls'\n{said}"), format!("protocols.\"a\".{key}")),
        Scope::Ech => {
            (format!("[protocols.a]\n{target}\n[protocols.a.ech]\n{said}"), format!("protocols.\"a\".ech.{key}"))
        }
        Scope::Confine => (format!("{BASE}[confine]\n{said}"), format!("confine.{key}")),
        Scope::Ebpf => (format!("{BASE}[ebpf]\n{said}"), format!("ebpf.{key}")),
        Scope::EchPrivate => (
            format!("[protocols.a]\n{target}\n[[protocols.a.ech.private]]\n{said}"),
            format!("protocols.\"a\".ech.private[0].{key}"),
        ),
        Scope::Health => (format!("{BASE}[health.a]\nkind = 'send'\n{said}"), format!("health.\"a\".{key}")),
        Scope::Bytes => (format!("{BASE}[health.a.send]\n{said}"), format!("health.\"a\".send.{key}")),
        Scope::Target => (format!("[[tcp_target]]\naddress = 'a:1'\n{said}"), format!("tcp_target[0].{key}")),
    };
    // These would be TOML's own mistakes, a key given twice.
    let text = text
        .replace("protocol = 'tls'\nprotocol =", "protocol =")
        .replace("kind = 'send'\nkind =", "kind =")
        .replace("listen_port = 1\nlisten_port =", "listen_port =")
        .replace("address = 'a:1'\naddress =", "address =");
    (text, path)
}

/// A key in the table of known keys that the checker never looks at would be accepted without effect or warning.
#[test]
fn every_known_key_is_looked_at() {
    let mut looked_at = 0;
    for (scope, key) in keys::known() {
        // No key takes a date.
        let (text, path) = file_with(scope, key, "2000-01-01");
        let errors = errors(&text);
        assert!(errors.iter().any(|error| error.ends_with(&format!(": {path}"))), "{path}: {errors:?}");
        looked_at += 1;
    }
    assert!(looked_at > 30, "{looked_at}");
}

#[test]
fn no_text_ends_the_process() {
    let bytes = include_bytes!("../../../../config.example.toml");
    let text = std::str::from_utf8(bytes).unwrap();
    for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)).step_by(37) {
        // Accepted or refused does not matter.
        parse(&text[..cut]).ok();
        parse(&text[..cut].replace("# ", "")).ok();
    }
    for opening in ["[", "{a=", "a=[", "[a."] {
        parse(&opening.repeat(100_000)).unwrap_err();
        parse(&format!("x = {}", opening.repeat(100_000))).unwrap_err();
    }
    load(Path::new("/")).unwrap_err();
}
