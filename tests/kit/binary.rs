//! The daemon's binary: where it is, what was built into it, and runs of it that serve nobody.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use crate::{OrFail as _, host::Host, process::Process};

/// Names the daemon's binary when it is not next to the test.
pub const BINARY_VARIABLE: &str = "RPXY_L4_BIN";

/// Path of the daemon's binary.
///
/// # Panics
///
/// When there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os(BINARY_VARIABLE) {
        return path.into();
    }
    // Tests are in target/<profile>/deps, programs in target/<profile>.
    let test = env::current_exe().or_fail("path of the test");
    let path = test.parent().and_then(Path::parent).or_fail("directory of the test").join("rpxy-l4");
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, or set {BINARY_VARIABLE}", path.display());
    path
}

/// Path of a daemon whose programs log; it need not be there.
///
/// # Panics
///
/// When there is no other daemon, either.
pub fn logging_binary() -> PathBuf {
    binary().ancestors().nth(2).or_fail("target directory").join("bpf-log/rpxy-l4")
}

/// Returns what the daemon lacks for a kernel plane, with the remedy; `None` when nothing.
pub fn missing_object() -> Option<String> {
    // Built into the daemon when it was there.
    let object = binary().ancestors().nth(2)?.join("bpf/rpxy-l4.o");
    (!object.exists()).then(|| format!("{} is missing; run `cargo xtask build-ebpf`", object.display()))
}

/// Runs the daemon's binary on `host` to its end, for what it does without serving.
///
/// # Panics
///
/// When it cannot be run or does not end.
#[track_caller]
pub fn run_to_end(host: &Host, arguments: &[&str]) -> (ExitStatus, Vec<String>) {
    let mut command: Command = host.command(binary());
    command.args(arguments).env_remove("RUST_LOG");
    let mut process = Process::spawn("rpxy-l4", &mut command).or_fail("start the daemon");
    let status = process.wait().or_fail("end");
    (status, process.lines())
}
