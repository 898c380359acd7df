//! The admin socket, and who may read through it.

use super::{BASE, accepted, refuses, warns};
use crate::config::model::Config;

fn with(text: &str) -> Config {
    accepted(&format!("{BASE}{text}"))
}

#[test]
fn admin_socket() {
    let path = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
    for (name, value) in [
        ("the usual place", "/run/rpxy-l4.sock".to_owned()),
        ("shortest", path(2)),
        ("below the longest", path(106)),
        ("longest", path(107)),
    ] {
        assert_eq!(with(&format!("admin_socket = '{value}'")).admin_socket, Some(value.into()), "{name}");
    }
    refuses(&[
        ("too long", &format!("admin_socket = '{}'", path(108)), "3: admin_socket"),
        ("relative", "admin_socket = 'rpxy-l4.sock'", "3: admin_socket"),
        ("empty", "admin_socket = ''", "3: admin_socket"),
        ("abstract", "admin_socket = '@rpxy-l4'", "3: admin_socket"),
        ("directory", "admin_socket = '/run/'", "3: admin_socket"),
        ("root", "admin_socket = '/'", "3: admin_socket"),
        ("parent", "admin_socket = '/run/..'", "3: admin_socket"),
        ("with a zero", "admin_socket = \"/run/a\\u0000b\"", "3: admin_socket"),
        ("switch", "admin_socket = true", "3: admin_socket"),
    ]);
}

#[test]
fn admin_group() {
    let socket = "admin_socket = '/run/a'";
    for (name, value, expected) in [
        ("by number", "4", 4),
        ("the first", "0", 0),
        ("the last", "4294967294", u32::MAX - 1),
        ("by name", "'root'", 0),
    ] {
        assert_eq!(with(&format!("{socket}\nadmin_group = {value}")).admin_group, Some(expected), "{name}");
    }
    refuses(&[
        ("nobody's number", &format!("{socket}\nadmin_group = 4294967295"), "4: admin_group"),
        ("below the first", &format!("{socket}\nadmin_group = -1"), "4: admin_group"),
        ("no such group", &format!("{socket}\nadmin_group = 'no-such-group'"), "4: admin_group"),
        ("empty", &format!("{socket}\nadmin_group = ''"), "4: admin_group"),
        ("several", &format!("{socket}\nadmin_group = ['root']"), "4: admin_group"),
    ]);
    warns(&[
        ("with a socket", &format!("{socket}\nadmin_group = 0"), None),
        ("without", "admin_group = 0", Some("3: admin_group")),
    ]);
}
