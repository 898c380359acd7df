//! docs/configuration.md has every key, under the heading of its table, and no other; numbers are those of the checker.

use std::collections::BTreeSet;

use crate::config::{
    keys::{self, Scope},
    schema::{Kind, kind},
};

const REFERENCE: &str = include_str!("../../../../docs/configuration.md");

/// Rows of a table: what they are in, key and value.
fn rows() -> Vec<(Scope, &'static str, &'static str)> {
    let mut scope = None;
    let mut rows = Vec::new();
    for line in REFERENCE.lines() {
        scope = match line {
            "## Listeners" => Some(Scope::Listener),
            "## The process" => Some(Scope::Global),
            "## Confinement" => Some(Scope::Confine),
            "## Kernel plane" => Some(Scope::Ebpf),
            "## Rules" => Some(Scope::Rule),
            "### Encrypted Client Hello" => Some(Scope::Ech),
            "### Private names" => Some(Scope::EchPrivate),
            "## Targets" => Some(Scope::Target),
            "## Checks" => Some(Scope::Health),
            "### Bytes" => Some(Scope::Bytes),
            _ => scope,
        };
        let mut cells = line.split(" | ");
        let key = cells.next().and_then(|cell| cell.strip_prefix("| `")?.strip_suffix('`'));
        if let (Some(scope), Some(key), Some(value)) = (scope, key, cells.next()) {
            rows.push((scope, key, value));
        }
    }
    rows
}

#[test]
fn has_every_key_once() {
    let rows = rows();
    let written: BTreeSet<_> = rows.iter().map(|(scope, key, _)| (format!("{scope:?}"), *key)).collect();
    assert_eq!(written.len(), rows.len(), "a key twice");
    // Keys of a listener at the top are in the section of listeners.
    let known = keys::known().filter(|(scope, key)| *scope != Scope::Global || !keys::is_known(Scope::Listener, key));
    let known: BTreeSet<_> = known.map(|(scope, key)| (format!("{scope:?}"), key)).collect();
    let missing: Vec<_> = known.difference(&written).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    let strange: Vec<_> = written.difference(&known).collect();
    assert!(strange.is_empty() || !cfg!(feature = "proxy-protocol"), "no keys: {strange:?}");
}

#[test]
fn has_the_numbers_and_words_of_the_checker() {
    for (scope, key, value) in rows() {
        let kind = kind(scope, key).unwrap_or_else(|| panic!("{key}"));
        if let Kind::Integer(least, most) = kind {
            assert!(value.starts_with(&format!("{least} to {most}")), "{key}: {value}");
        }
        // Older spellings, and references to another key's words.
        if let Kind::Words(words) = kind
            && !value.starts_with("as ")
        {
            for word in words.iter().filter(|word| word.parse::<u8>().is_err()) {
                assert!(value.contains(&format!("`\"{word}\"`")), "{key}: {word} is missing in {value}");
            }
        }
        assert_eq!(value == "boolean", kind == Kind::Switch, "{key}");
        assert_eq!(value.starts_with("duration"), kind == Kind::Duration, "{key}: {value}");
    }
}

#[test]
fn says_what_is_not_inherited() {
    let own = |key: &str| {
        REFERENCE.lines().any(|line| line.starts_with(&format!("| `{key}` |")) && line.contains("| *own*;"))
    };
    for (_, key) in keys::known().filter(|(scope, _)| *scope == Scope::Listener) {
        assert_eq!(own(key), !keys::is_inherited(key), "{key}");
    }
}
