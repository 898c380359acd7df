//! `rpxy-l4 container`: the entry point of the container image. Turns its variables and mounts, those of the image of
//! 0.2.x, into a command line and runs the daemon by it.
//!
//! What it cannot do is answered by a line that says what to do instead. It never fails for the sake of a variable.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};

use crate::config::model::ADMIN_SOCKET;

/// Where the image of 0.2.x has its configuration, its directory of configurations and its logs.
const OLD_FILE: &str = "/etc/rpxy-l4.toml";
const OLD_DIRECTORY: &str = "/rpxy-l4/config";
const OLD_LOGS: &str = "/rpxy-l4/log";
/// Where packages have the configuration.
const FILE: &str = "/etc/rpxy-l4/config.toml";

/// What the container is like.
struct Surroundings<'a> {
    /// The value of a variable, if it has one.
    variable: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a file is there.
    exists: &'a dyn Fn(&Path) -> bool,
    /// Whether files can be made in a directory.
    is_writable: &'a dyn Fn(&Path) -> bool,
    /// The user and the group of this process.
    ids: (u32, u32),
}

/// How to run the daemon.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    arguments: Vec<String>,
    /// The value of `RUST_LOG`, if it is to be another one.
    log_level: Option<String>,
    /// What to tell before.
    words: Vec<String>,
}

/// Becomes the daemon.
///
/// # Errors
///
/// The program cannot be run again.
#[expect(clippy::print_stdout, reason = "the container's log, as the daemon's lines that follow")]
pub(super) fn run() -> Result<()> {
    let ids = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let plan = plan(&Surroundings {
        variable: &|name| env::var(name).ok().filter(|value| !value.is_empty()),
        exists: &Path::exists,
        is_writable: &is_writable,
        ids,
    });
    for words in &plan.words {
        println!("rpxy-l4: {words}");
    }
    let mut daemon = process::Command::new(env::current_exe().context("cannot find this program")?);
    daemon.arg0("rpxy-l4").args(plan.arguments);
    daemon.envs(plan.log_level.map(|level| ("RUST_LOG", level)));
    Err(daemon.exec()).context("cannot run the daemon")
}

fn is_writable(directory: &Path) -> bool {
    let probe = directory.join(format!(".rpxy-l4-{}", process::id()));
    let made = fs::OpenOptions::new().write(true).create_new(true).open(&probe).is_ok();
    made && fs::remove_file(&probe).is_ok()
}

fn plan(at: &Surroundings<'_>) -> Plan {
    let mut plan = Plan::default();
    let config = configuration(at);
    plan.words.push(format!("configuration file: {}", config.display()));
    plan.arguments.extend(["--config".to_owned(), config.display().to_string(), "--wait-for-config".to_owned()]);

    if (at.variable)("LOG_TO_FILE").is_some_and(|value| value == "true") {
        if (at.is_writable)(Path::new(OLD_LOGS)) {
            plan.arguments.extend(["--log-dir".to_owned(), OLD_LOGS.to_owned()]);
            plan.words.push(format!("log files: {OLD_LOGS}; rotate them from outside, then send SIGUSR1"));
        } else {
            let (user, group) = at.ids;
            plan.words.push(format!(
                "LOG_TO_FILE: logs to the standard output instead: user {user}:{group} may not write to {OLD_LOGS}; mount a \
                 directory of that user there, or run the container as its owner"
            ));
        }
    }
    for name in ["LOGROTATE_NUM", "LOGROTATE_SIZE"] {
        if (at.variable)(name).is_some() {
            plan.words.push(format!("{name} has no effect: rotate log files from outside, then send SIGUSR1"));
        }
    }
    if (at.variable)("RUST_LOG").is_none() {
        plan.log_level = (at.variable)("LOG_LEVEL");
    }
    plan.words.extend(owner(at));

    let runtime = Path::new(ADMIN_SOCKET).parent().unwrap_or(Path::new("/"));
    if (at.is_writable)(runtime) {
        plan.arguments.extend(["--admin-socket".to_owned(), ADMIN_SOCKET.to_owned()]);
    } else {
        plan.words.push(format!(
            "{} is not writable: without an admin_socket elsewhere, the health check fails; mount a tmpfs there",
            runtime.display()
        ));
    }
    plan
}

/// The configuration: the file of 0.2.x, the one in its directory, or that of packages. One that is yet to come is waited
/// for where its directory is.
fn configuration(at: &Surroundings<'_>) -> PathBuf {
    let named = (at.variable)("CONFIG_FILENAME");
    let in_directory = Path::new(OLD_DIRECTORY).join(named.as_deref().unwrap_or("config.toml"));
    let file = PathBuf::from(FILE);
    if (at.exists)(Path::new(OLD_FILE)) {
        OLD_FILE.into()
    } else if named.is_some() || ((at.exists)(&in_directory) && !(at.exists)(&file)) {
        in_directory
    } else {
        file
    }
}

/// A word about the user whom the variables ask for, if this process is another one.
fn owner(at: &Surroundings<'_>) -> Option<String> {
    let number = |name: &str| (at.variable)(name).map(|value| value.parse().map_err(|_odd| value));
    let (user, group) = (number("HOST_UID"), number("HOST_GID"));
    let is_met = |asked: &Option<Result<u32, String>>, is: u32| asked.as_ref().is_none_or(|id| *id == Ok(is));
    if is_met(&user, at.ids.0) && is_met(&group, at.ids.1) {
        return None;
    }
    let text = |asked: Option<Result<u32, String>>, is: u32| match asked {
        Some(Ok(id)) => id.to_string(),
        Some(Err(text)) => text,
        None => is.to_string(),
    };
    let (user, group) = (text(user, at.ids.0), text(group, at.ids.1));
    Some(format!(
        "HOST_UID and HOST_GID have no effect: run the container as that user, with --user {user}:{group} or, in a compose \
         file, user: \"{user}:{group}\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there, which variables are set, and who runs.
    fn planned(files: &[&str], writable: &[&str], variables: &[(&str, &str)], ids: (u32, u32)) -> Plan {
        let has = |all: &[&str], path: &Path| all.iter().any(|one| Path::new(one) == path);
        plan(&Surroundings {
            variable: &|name| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()),
            exists: &|path| has(files, path),
            is_writable: &|path| has(writable, path),
            ids,
        })
    }

    #[test]
    fn the_configuration_is_where_it_was_in_0_2_or_where_packages_have_it() {
        let (old, named) = ("/rpxy-l4/config/config.toml", "/rpxy-l4/config/a.toml");
        for (row, files, name, expected) in [
            ("nothing yet", &[][..], None, FILE),
            ("of packages", &[FILE], None, FILE),
            ("file of 0.2", &[OLD_FILE, FILE], None, OLD_FILE),
            ("directory of 0.2", &[old], None, old),
            ("both", &[old, FILE], None, FILE),
            ("another name", &[named], Some("a.toml"), named),
            ("another name, not there yet", &[FILE], Some("a.toml"), named),
        ] {
            let variables: Vec<_> = name.map(|name| ("CONFIG_FILENAME", name)).into_iter().collect();
            assert_eq!(planned(files, &[], &variables, (1, 1)).arguments[..2], ["--config", expected], "{row}");
        }
    }

    #[test]
    fn variables_become_arguments_or_are_answered() {
        struct Row(&'static str, &'static [(&'static str, &'static str)], Option<&'static str>, Option<&'static str>);
        for Row(row, variables, level, said) in [
            Row("none", &[], None, None),
            Row("level", &[("LOG_LEVEL", "debug")], Some("debug"), None),
            Row("two levels", &[("LOG_LEVEL", "debug"), ("RUST_LOG", "warn")], None, None),
            Row("no files", &[("LOG_TO_FILE", "false")], None, None),
            Row("rotation", &[("LOGROTATE_NUM", "3")], None, Some("LOGROTATE_NUM has no effect")),
            Row("user", &[("HOST_UID", "501"), ("HOST_USER", "jun")], None, Some("--user 501:8")),
        ] {
            let plan = planned(&[], &["/run/rpxy-l4", OLD_LOGS], variables, (7, 8));
            assert_eq!(plan.arguments[3..], ["--admin-socket", ADMIN_SOCKET], "{row}");
            assert_eq!(plan.log_level.as_deref(), level, "{row}");
            // The first tells the file.
            assert_eq!(plan.words.len(), 1 + usize::from(said.is_some()), "{row}: {:?}", plan.words);
            assert!(said.is_none_or(|said| plan.words[1].contains(said)), "{row}: {:?}", plan.words);
        }
    }

    #[test]
    fn what_cannot_be_written_to_is_not_used_and_told() {
        for (row, writable, options, said) in [
            ("all", &["/run/rpxy-l4", OLD_LOGS][..], &["--log-dir", "--admin-socket"][..], "SIGUSR1"),
            ("no logs", &["/run/rpxy-l4"], &["--admin-socket"], "user 7:8 may not write"),
            ("no socket", &[OLD_LOGS], &["--log-dir"], "mount a tmpfs"),
        ] {
            let plan = planned(&[], writable, &[("LOG_TO_FILE", "true")], (7, 8));
            let after = plan.arguments[3..].iter().filter(|argument| argument.starts_with("--"));
            assert_eq!(after.collect::<Vec<_>>(), options, "{row}");
            assert!(plan.words.iter().any(|words| words.contains(said)), "{row}: {:?}", plan.words);
        }
    }

    #[test]
    fn whoever_already_is_the_user_is_told_nothing() {
        for (row, variables, told) in [
            ("both", [("HOST_UID", "7"), ("HOST_GID", "8")], None),
            ("another group", [("HOST_UID", "7"), ("HOST_GID", "9")], Some("--user 7:9")),
            ("no number", [("HOST_UID", "jun"), ("HOST_GID", "8")], Some("--user jun:8")),
        ] {
            let plan = planned(&[], &["/run/rpxy-l4"], &variables, (7, 8));
            let said = plan.words.get(1).map(String::as_str);
            assert_eq!(said.is_some(), told.is_some(), "{row}: {said:?}");
            assert!(told.is_none_or(|told| said.is_some_and(|said| said.contains(told))), "{row}: {said:?}");
        }
    }
}
