//! `user`, `group` and the table `[confine]`.

use std::fs;

use super::group;
use crate::config::{
    file::{Field, Table},
    keys::Scope,
    model::{Confine, User},
    report::{Report, quote},
};

/// Where users have their names. Those that a directory service has are given by number.
const USERS: &str = "/etc/passwd";

pub(super) fn confine(report: &mut Report<'_>, root: &Table<'_>) -> Confine {
    let table = root.field("confine").and_then(|field| field.table(report, Scope::Confine));
    let field = |key| table.as_ref().and_then(|table| table.field(key));
    let mut switch = |key| field(key).and_then(|field| field.boolean(report)).unwrap_or(true);
    let [capabilities, landlock, seccomp, memory] = ["capabilities", "landlock", "seccomp", "memory"].map(&mut switch);
    Confine { user: user(report, root), capabilities, landlock, seccomp, memory }
}

fn user(report: &mut Report<'_>, root: &Table<'_>) -> Option<User> {
    let user = root.field("user");
    let group = root.field("group").map(|field| {
        if user.is_none() {
            report.warn(&field.position, "without user it has no effect");
        }
        group::group(report, &field)
    });
    let field = user?;
    let found = find(report, &field)?;
    let group = match (group, found.group) {
        (Some(group), _) => group?,
        (None, Some(group)) => group,
        (None, None) => {
            let message = format!("{USERS} does not tell the group of user {}", found.id);
            report.error_with(&field.position, message, "give it by group");
            return None;
        }
    };
    Some(User { groups: group::of_member(&found.name), name: found.name.into(), id: found.id, group })
}

/// A line of passwd(5), or a number that has none.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    name: String,
    id: u32,
    group: Option<u32>,
}

fn find(report: &mut Report<'_>, field: &Field<'_>) -> Option<Found> {
    let number = match field.as_string() {
        // The last number stands for none (chown(2)).
        None if field.is_integer() => Some(field.integer(report, 0..=u32::MAX - 1)?),
        None => {
            field.wrong_type(report, "the name of a user or its number");
            return None;
        }
        Some(name) => name.parse().ok().filter(|number| *number != u32::MAX),
    };
    let users = fs::read_to_string(USERS);
    let text = users.as_deref().unwrap_or_default();
    if let Some(id) = number {
        let unnamed = Found { name: id.to_string(), id, group: None };
        return Some(line_of(|_, known| known == id, text).unwrap_or(unnamed));
    }
    let name = field.as_string().unwrap_or_default();
    let found = line_of(|known, _| known == name, text);
    if found.is_none() {
        let message = match users {
            Ok(_) => format!("there is no user {} in {USERS}", quote(name)),
            Err(error) => format!("cannot look for {} in {USERS}: {error}", quote(name)),
        };
        report.error_with(&field.position, message, "name one that exists, or give its number and group");
    }
    found
}

/// The first line of passwd(5) that is wanted by its name and number: name, password, number, group.
fn line_of(wanted: impl Fn(&str, u32) -> bool, users: &str) -> Option<Found> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        let found = Found { name: name.to_owned(), id, group: fields.next().and_then(|group| group.parse().ok()) };
        (!name.is_empty() && wanted(name, id)).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name_or_its_number() {
        let users = "root:x:0:0::/:\nbroken\nodd:x:many:1::/:\n:x:7:7::/:\nalone:x:8\nproxy:x:13:14:,,:/bin:/bin/sh\n";
        let found = |name: &str, id, group| Some(Found { name: name.to_owned(), id, group });
        for (name, expected) in [
            ("root", found("root", 0, Some(0))),
            ("proxy", found("proxy", 13, Some(14))),
            ("alone", found("alone", 8, None)),
            ("prox", None),
            ("broken", None),
            ("odd", None),
            ("", None),
        ] {
            assert_eq!(line_of(|known, _| known == name, users), expected, "{name:?}");
        }
        assert_eq!(line_of(|_, known| known == 13, users), found("proxy", 13, Some(14)));
        assert_eq!(line_of(|_, known| known == 99, users), None);
    }
}
