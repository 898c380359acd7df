//! The status page, and when it needs a token.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use super::{BASE, accepted, errors, refuses, warnings, warns};
use crate::config::model::{StatusListen, StatusPage, StatusToken};

const TOKEN: &str = "0123456789abcdef";

/// A file with `text` and `mode`, as long as the directory is there.
fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

fn page(text: &str) -> Option<StatusPage> {
    accepted(&format!("{BASE}{text}")).status
}

#[test]
fn it_is_off_and_served_at_an_address_or_a_unix_socket() {
    assert_eq!(page(""), None);
    let ip = |text: &str| StatusListen::Ip(text.parse().unwrap());
    for (row, listen, expected) in [
        ("IPv4", "127.0.0.1:9902", ip("127.0.0.1:9902")),
        ("all of this machine", "127.255.255.255:1", ip("127.255.255.255:1")),
        ("IPv6", "[::1]:9902", ip("[::1]:9902")),
        ("IPv4 in IPv6", "[::ffff:127.0.0.1]:9902", ip("[::ffff:127.0.0.1]:9902")),
        ("a unix socket", "unix:/run/rpxy-l4/status.sock", StatusListen::Unix("/run/rpxy-l4/status.sock".into())),
    ] {
        let page = page(&format!("status_listen = '{listen}'")).unwrap();
        assert_eq!((page.listen, page.token, page.hosts.len()), (expected, None, 0), "{row}");
    }
    refuses(&[
        ("no port", "status_listen = '127.0.0.1'", "3: status_listen"),
        ("a name", "status_listen = 'localhost:9902'", "3: status_listen"),
        ("a port alone", "status_listen = 9902", "3: status_listen"),
        ("a path", "status_listen = '/run/status.sock'", "3: status_listen"),
        ("a relative path", "status_listen = 'unix:status.sock'", "3: status_listen"),
        ("no path", "status_listen = 'unix:'", "3: status_listen"),
        ("beside the metrics", "metrics_listen = '127.0.0.1:1'\nstatus_listen = '127.0.0.1:1'", "4: status_listen"),
        ("at the admin socket", "admin_socket = '/run/a'\nstatus_listen = 'unix:/run/a'", "4: status_listen"),
    ]);
}

#[test]
fn beyond_this_machine_it_needs_a_token() {
    let (_directory, path) = file(&format!("{TOKEN}\n"), 0o600);
    for listen in ["0.0.0.0:9902", "[::]:9902", "192.0.2.1:9902", "[::ffff:192.0.2.1]:9902", "128.0.0.1:9902"] {
        let text = format!("status_listen = '{listen}'");
        refuses(&[(listen, &text, "3: status_listen")]);
        let page = page(&format!("{text}\nstatus_token_file = '{}'", path.display())).unwrap();
        assert_eq!(page.token, StatusToken::new(TOKEN), "{listen}");
    }
}

#[test]
fn a_token_is_one_line_that_can_be_sent() {
    let longest = "x".repeat(512);
    for (row, text, expected) in [
        ("shortest", TOKEN, Some(TOKEN)),
        ("with the end of a line", "0123456789abcdef\r\n", Some(TOKEN)),
        ("every character", "AZaz09-._~+/====\n", Some("AZaz09-._~+/====")),
        ("longest", &longest, Some(&longest)),
        ("too long", &format!("{longest}x"), None),
        ("too short", "0123456789abcde\n", None),
        ("empty", "", None),
        ("two lines", "0123456789abcdef\n0123456789abcdef\n", None),
        ("a space", " 0123456789abcdef", None),
        ("beyond ASCII", "0123456789abcdef\u{e9}", None),
    ] {
        let (_directory, path) = file(text, 0o600);
        let text = format!("{BASE}status_listen = '127.0.0.1:9902'\nstatus_token_file = '{}'", path.display());
        match expected {
            Some(token) => assert_eq!(accepted(&text).status.unwrap().token, StatusToken::new(token), "{row}"),
            None => assert_eq!(errors(&text), ["4: status_token_file"], "{row}"),
        }
    }
    refuses(&[
        ("no file", "status_listen = '127.0.0.1:1'\nstatus_token_file = '/nonexistent/token'", "4: status_token_file"),
        ("a directory", "status_listen = '127.0.0.1:1'\nstatus_token_file = '/proc'", "4: status_token_file"),
    ]);
}

#[test]
fn a_token_that_others_can_read_is_told_of() {
    for (mode, expected) in [(0o400, &[][..]), (0o600, &[]), (0o640, &[]), (0o604, &["4: status_token_file"])] {
        let (_directory, path) = file(TOKEN, mode);
        let text = format!("{BASE}status_listen = '127.0.0.1:9902'\nstatus_token_file = '{}'", path.display());
        assert_eq!(warnings(&text), expected, "{mode:o}");
    }
}

#[test]
fn names_that_browsers_may_use() {
    let page =
        page("status_listen = '127.0.0.1:9902'\nstatus_hosts = ['Gateway.Example.', '192.0.2.1', '2001:DB8::0']");
    assert_eq!(page.unwrap().hosts, ["gateway.example", "192.0.2.1", "2001:db8::"].map(Into::into));
    let with = |hosts: &str| format!("status_listen = '127.0.0.1:9902'\nstatus_hosts = {hosts}");
    refuses(&[
        ("a port", &with("['a:9902']"), "4: status_hosts[0]"),
        ("a scheme", &with("['http://a']"), "4: status_hosts[0]"),
        ("a wildcard", &with("['a', '*.example']"), "4: status_hosts[1]"),
        ("empty", &with("['']"), "4: status_hosts[0]"),
        ("no array", &with("'a'"), "4: status_hosts"),
    ]);
}

#[test]
fn what_has_no_effect_is_told() {
    warns(&[
        ("names without a page", "status_hosts = ['a']", Some("3: status_hosts")),
        ("a group for a unix socket", "status_listen = 'unix:/run/a'\nadmin_group = 0", None),
        ("a group for an address", "status_listen = '127.0.0.1:1'\nadmin_group = 0", Some("4: admin_group")),
    ]);
}
