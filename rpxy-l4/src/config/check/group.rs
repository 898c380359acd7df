//! Groups of users, whose members may connect to a unix socket.

use std::fs;

use crate::config::{
    file::Field,
    report::{Report, quote},
};

/// Where groups have their names. Those that a directory service has are given by number.
const GROUPS: &str = "/etc/group";

/// The number of a group, by number or name.
pub(super) fn group(report: &mut Report<'_>, field: &Field<'_>) -> Option<u32> {
    if field.is_integer() {
        // The last number stands for none (chown(2)).
        return field.integer(report, 0..=u32::MAX - 1);
    }
    let Some(name) = field.as_string() else {
        field.wrong_type(report, "the name of a group or its number");
        return None;
    };
    if let Some(number) = name.parse().ok().filter(|number| *number != u32::MAX) {
        return Some(number);
    }
    let groups = match fs::read_to_string(GROUPS) {
        Ok(groups) => groups,
        Err(error) => {
            let message = format!("cannot look for {} in {GROUPS}: {error}", quote(name));
            report.error_with(&field.position, message, "give the number of the group");
            return None;
        }
    };
    let found = number_of(name, &groups);
    if found.is_none() {
        let message = format!("there is no group {} in {GROUPS}", quote(name));
        report.error_with(&field.position, message, "name one that exists, or give its number");
    }
    found
}

/// The numbers of the groups that a user is a member of, but for that of its own; none where they cannot be read.
pub(super) fn of_member(user: &str) -> Vec<u32> {
    with_member(user, &fs::read_to_string(GROUPS).unwrap_or_default())
}

/// The same, in the text of group(5).
fn with_member(user: &str, groups: &str) -> Vec<u32> {
    let number = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let (number, members) = (fields.next()?.parse().ok()?, fields.next()?);
        members.split(',').any(|member| member.trim() == user).then_some(number)
    };
    groups.lines().filter_map(number).collect()
}

/// The number of a group in the text of group(5): name, password, number, members.
fn number_of(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (!name.is_empty() && fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_member_are_those_that_name_it() {
        let groups = "adm:x:4:syslog,you\nyou:x:1000:\nssl:x:9:you\nbroken:x\nodd:x:many:you\nyours:x:5:yours\n";
        assert_eq!(with_member("you", groups), [4, 9]);
        assert_eq!(with_member("nobody", groups), [0; 0]);
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nadm:x:4:syslog,you\nadmins:!:1004\nbroken\nodd:x:many:\n:x:7:\n";
        for (name, expected) in [
            ("root", Some(0)),
            ("adm", Some(4)),
            ("admins", Some(1004)),
            ("ad", None),
            ("syslog", None),
            ("broken", None),
            ("odd", None),
            ("", None),
        ] {
            assert_eq!(number_of(name, groups), expected, "{name:?}");
        }
    }
}
