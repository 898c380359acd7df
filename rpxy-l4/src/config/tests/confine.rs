//! `user`, `group` and the table `[confine]`.

use super::{BASE, accepted, refuses, warnings, warns};
use crate::config::model::Confine;

fn with(text: &str) -> Confine {
    accepted(&format!("{BASE}{text}")).confine
}

#[test]
fn all_of_it_is_on_and_each_can_be_switched_off() {
    let on = Confine::default();
    assert!(on.capabilities && on.landlock && on.seccomp && on.memory && on.user.is_none());
    assert_eq!(with(""), on);
    assert_eq!(with("[confine]"), on);
    for (row, expected) in [
        ("capabilities", Confine { capabilities: false, ..on.clone() }),
        ("landlock", Confine { landlock: false, ..on.clone() }),
        ("seccomp", Confine { seccomp: false, ..on.clone() }),
        ("memory", Confine { memory: false, ..on }),
    ] {
        assert_eq!(with(&format!("[confine]\n{row} = false")), expected, "{row}");
    }
    warns(&[("slip", "[confine]\nlandlok = false", Some("4: confine.landlok"))]);
}

#[test]
fn users() {
    let user = |text: &str| {
        let user = with(text).user.unwrap();
        (user.name.to_string(), user.id, user.group)
    };
    for (row, text, expected) in [
        ("by name", "user = 'root'", ("root", 0, 0)),
        ("by number, which has a name", "user = 0", ("root", 0, 0)),
        ("by number as text", "user = '0'", ("root", 0, 0)),
        ("with another group", "user = 'root'\ngroup = 7", ("root", 0, 7)),
        ("with a group by name", "user = 'root'\ngroup = 'root'", ("root", 0, 0)),
        ("the last", "user = 4294967294\ngroup = 4294967294", ("4294967294", u32::MAX - 1, u32::MAX - 1)),
    ] {
        let (name, id, group) = expected;
        assert_eq!(user(text), (name.to_owned(), id, group), "{row}");
    }
    refuses(&[
        ("no such user", "user = 'rpxy-l4-nobody'", "3: user"),
        ("no such group", "user = 'root'\ngroup = 'rpxy-l4-nobody'", "4: group"),
        ("a number without a group", "user = 4294967294", "3: user"),
        ("no number", "user = 4294967295\ngroup = 7", "3: user"),
        ("below the first", "user = -1\ngroup = 7", "3: user"),
        ("switch", "user = true", "3: user"),
        ("empty", "user = ''", "3: user"),
    ]);
    warns(&[("a group alone", "group = 7", Some("3: group"))]);
    assert_eq!(warnings(&format!("{BASE}user = 'root'")), [""; 0]);
}
