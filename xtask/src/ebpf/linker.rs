//! Finds or builds bpf-linker, the linker of eBPF objects, in one version: the object's bytes depend on it.
//!
//! One on `PATH` is taken when it is of that version. Otherwise it is built into the target directory, where it is in
//! nobody's way. It needs LLVM's libraries to build and to run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace::Workspace;

/// The version of bpf-linker.
pub(crate) const VERSION: &str = "0.13.0";
/// The major version of LLVM that it is built with. The compiler's may not be newer.
pub(super) const LLVM: u32 = 22;
/// Tells where that LLVM is.
pub(crate) const LLVM_CONFIG: &str = "llvm-config-22";
const FEATURE: &str = "llvm-22";
const PROGRAM: &str = "bpf-linker";

/// A bpf-linker of the version wanted.
#[derive(Debug)]
pub(crate) struct Linker {
    pub(super) path: PathBuf,
}

impl Linker {
    /// Ours, or one on `PATH`.
    pub(crate) fn find(workspace: &Workspace) -> Option<Self> {
        let ours = root(workspace).join("bin").join(PROGRAM);
        [Some(ours), process::find(PROGRAM)]
            .into_iter()
            .flatten()
            .find(|path| is_wanted(path))
            .map(|path| Self { path })
    }

    /// Builds it; about a minute. LLVM must be there.
    pub(crate) fn install(workspace: &Workspace) -> Result<()> {
        let config = process::find(LLVM_CONFIG).with_context(|| format!("{LLVM_CONFIG} is missing"))?;
        let prefix = process::read(Command::new(config).arg("--prefix"))?;
        let mut command = process::cargo();
        command.args(["install", PROGRAM, "--version", &format!("={VERSION}"), "--locked"]);
        command.args(["--no-default-features", "--features", FEATURE]);
        // Without the variable its build script finds the directory of another LLVM.
        command.arg("--root").arg(root(workspace)).env("LLVM_PREFIX", prefix.trim());
        process::run(&mut command)
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PROGRAM} {VERSION}")
    }
}

fn root(workspace: &Workspace) -> PathBuf {
    workspace.scratch("tools")
}

fn is_wanted(path: &Path) -> bool {
    process::read(Command::new(path).arg("--version")).is_ok_and(|text| has_version(&text))
}

/// `bpf-linker 0.13.0`, with more behind it or not.
fn has_version(text: &str) -> bool {
    text.split_whitespace().any(|word| word == VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_that_is_pinned_will_do() {
        assert!(has_version("bpf-linker 0.13.0\n"));
        assert!(!has_version("bpf-linker 0.13.01\n") && !has_version("bpf-linker 0.9.14\n") && !has_version(""));
    }
}
