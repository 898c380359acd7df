//! Starts other programs for all tasks: prints what it runs, and turns a failure into an error that names the command.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Where administration programs live that a user's `PATH` often leaves out.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A cargo command whose build is the same as one typed by hand.
///
/// `cargo run` describes the xtask package to its child in `CARGO_PKG_*` and the like. Build scripts of some
/// dependencies watch these variables, and would build again whenever a developer changes between the two ways.
pub(crate) fn cargo() -> Command {
    cargo_at(Path::new(&env::var_os("CARGO").unwrap_or_else(|| "cargo".into())))
}

/// The same with the cargo at `path`.
pub(crate) fn cargo_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    let inherited =
        env::vars_os().map(|(name, _)| name).filter(|name| name.to_str().is_some_and(describes_the_running_package));
    for name in inherited {
        command.env_remove(name);
    }
    command
}

/// Runs `command` on this terminal; an error unless it ends with success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", display(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", display(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", display(command));
    }
    Ok(())
}

/// Runs `command` on this terminal as [`run`] does, but ends it, with all that it started, when it takes longer than
/// `limit`.
///
/// A process group of its own would be simpler to end, but would no longer hear Ctrl-C.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    println!("$ {}", display(command));
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", display(command)))?;
    let id = child.id();
    let (ended, end) = mpsc::channel();
    // It ends with the child, whose status nobody may be waiting for any more.
    thread::spawn(move || ended.send(child.wait()));
    let Ok(status) = end.recv_timeout(limit) else {
        kill_with_descendants(id);
        bail!(
            "`{}` was still running after {} s and was killed: something in it hangs",
            display(command),
            limit.as_secs()
        );
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`{}` failed: {status}", display(command)),
        Err(error) => Err(error).with_context(|| format!("cannot wait for `{}`", display(command))),
    }
}

/// Kills a process, those that it started, those that these started and so on.
fn kill_with_descendants(id: u32) {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((id, parent(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?))
        })
        .collect();
    let mut doomed = vec![id];
    let mut next = 0;
    while let Some(&id) = doomed.get(next) {
        doomed.extend(parents.iter().filter(|(_, parent)| *parent == id).map(|(child, _)| *child));
        next += 1;
    }
    let ids = doomed.iter().map(u32::to_string);
    if let Err(error) = read(Command::new("sh").args(["-c", "kill -KILL \"$@\"", "sh"]).args(ids)) {
        println!("{error:#}");
    }
}

/// The fourth field of `/proc/<pid>/stat`; the second is a name in parentheses that may hold anything (proc(5)).
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Runs `command` quietly and returns its standard output; an error, with what it wrote to standard error, unless it
/// ends with success.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", display(command)))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", display(command), output.status, reason.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` did not print UTF-8", display(command)))
}

/// Finds `program` in `PATH` or the system directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

/// Tells whether this process runs as root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The files of a process in /proc belong to its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The command line as a shell takes it, with the variables that it sets.
pub(crate) fn display(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quote(&value?.to_string_lossy()))));
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| quote(&argument.to_string_lossy()));
    variables.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn describes_the_running_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_PACKAGE"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        let rows = [
            ("plain words", vec!["test", "--workspace"], "prog test --workspace"),
            ("a blank", vec!["-D warnings"], "prog '-D warnings'"),
            ("an empty word", vec![""], "prog ''"),
            ("a quote", vec!["it's"], r"prog 'it'\''s'"),
        ];
        for (name, arguments, expected) in rows {
            assert_eq!(display(Command::new("/opt/bin/prog").args(arguments)), expected, "{name}");
        }
        assert_eq!(display(Command::new("prog").env("A", "b c").env_remove("D")), "A='b c' prog");
    }

    #[test]
    fn a_failing_command_is_an_error_that_names_it_and_tells_its_reason() {
        let error = read(Command::new("sh").args(["-c", "echo because >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("because"), "{error}");
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err().to_string();
        assert!(error.contains("cannot start `program`"), "{error}");
    }

    #[test]
    fn a_command_that_takes_too_long_is_an_error() {
        let error = run_within(Command::new("sleep").arg("1000"), Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("`sleep 1000`") && error.contains("hangs"), "{error}");
        run_within(&mut Command::new("true"), Duration::MAX).unwrap();
        assert!(run_within(&mut Command::new("false"), Duration::MAX).is_err());
    }

    #[test]
    fn a_command_is_killed_with_all_that_it_started() {
        let script = "(sleep 1000 & echo started; wait) & wait";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        kill_with_descendants(child.id());
        // Ends when nobody holds the other end any more.
        assert_eq!(output.read_line(&mut String::new()).unwrap(), 0);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn the_parent_of_a_process_is_found_behind_any_name() {
        assert_eq!(parent("7 (a) b (c)) S 5 7 7 0"), Some(5));
        assert_eq!(parent(""), None);
    }

    #[test]
    fn programs_are_found_by_name_only_when_they_can_run() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
