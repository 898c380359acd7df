//! Starts other programs for all tasks: says what it runs, and turns a failure into an error that names the command.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Where `program` is installed, looked for in `PATH` and then in the system directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

/// True when this process has the rights of the superuser.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The files of a process in /proc belong to its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The command line as a shell would take it, with the variables that it sets.
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
    fn programs_are_found_by_name_only_when_they_can_run() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
