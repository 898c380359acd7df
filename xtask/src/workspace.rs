//! Where this workspace and its build products are, as cargo tells it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// Paths of the workspace that the current directory belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory of the root manifest.
    pub(crate) root: PathBuf,
    target: PathBuf,
}

/// A cargo build profile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    /// Cargo's `dev`: quick to build.
    Debug,
    /// Cargo's `release`: what is shipped and measured.
    Release,
}

impl Workspace {
    /// Asks cargo; an error when the current directory is in no workspace.
    pub(crate) fn locate() -> Result<Self> {
        let text = process::read(process::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata did not print JSON")?;
        let path = |key: &str| {
            let value = metadata.get(key).and_then(Value::as_str);
            value.map(PathBuf::from).with_context(|| format!("cargo metadata has no `{key}`"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// A cargo command in the root directory.
    pub(crate) fn cargo(&self) -> std::process::Command {
        let mut command = process::cargo();
        command.current_dir(&self.root);
        command
    }

    /// Builds one program of one package and returns where it is.
    pub(crate) fn build(&self, package: &str, program: &str, profile: Profile) -> Result<PathBuf> {
        let mut command = self.cargo();
        command.args(["build", "--locked", "--package", package, "--bin", program]);
        match profile {
            Profile::Debug => {}
            Profile::Release => _ = command.arg("--release"),
        }
        process::run(&mut command)?;
        Ok(self.program(program, profile))
    }

    /// The path at which cargo puts a program.
    pub(crate) fn program(&self, name: &str, profile: Profile) -> PathBuf {
        let directory = match profile {
            Profile::Debug => "debug",
            Profile::Release => "release",
        };
        self.target.join(directory).join(name)
    }

    /// The directory of all build products.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// A directory for the products of one task, beside those of cargo.
    pub(crate) fn scratch(&self, task: &str) -> PathBuf {
        self.target.join(task)
    }

    /// The object with the eBPF programs: where the build script of the daemon looks for it.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.target.join("bpf").join("rpxy-l4.o")
    }

    /// The same with programs that log, which the daemon embeds only when it is told to.
    pub(crate) fn ebpf_log_object(&self) -> PathBuf {
        self.target.join("bpf-log").join("rpxy-l4.o")
    }

    /// A path inside the repository.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }
}
