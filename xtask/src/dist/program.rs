//! The program of a release: optimised, stripped, with the eBPF object, and without a path of this machine.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::Release;
use crate::process;
use crate::workspace::Workspace;

/// The profile in the root manifest.
const PROFILE: &str = "dist";
/// An object to embed instead of that of this clone; the daemon's build script knows it, too.
const OBJECT: &str = "RPXY_L4_EBPF_OBJECT";

/// Builds it and returns where it is.
///
/// In a directory of its own: other flags than a developer's would have cargo build everything again and again.
pub(super) fn build(workspace: &Workspace, release: &Release) -> Result<PathBuf> {
    let object = std::env::var_os(OBJECT).map_or_else(|| workspace.ebpf_object(), PathBuf::from);
    if !object.exists() {
        bail!("there are no eBPF programs to embed: run `cargo xtask build-ebpf --setup` first");
    }
    require_target(&release.target)?;
    let directory = workspace.scratch("dist-build");
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--package", "rpxy-l4", "--bin", "rpxy-l4"]);
    cargo.args(["--profile", PROFILE, "--target", &release.target]);
    cargo.env("CARGO_TARGET_DIR", &directory).env(OBJECT, &object).env_remove("RUSTFLAGS");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?.join("\u{1f}"));
    if release.target.starts_with("aarch64") {
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    }
    process::run(&mut cargo)?;
    Ok(directory.join(&release.target).join(PROFILE).join("rpxy-l4"))
}

/// What makes paths the same everywhere. The standard library has none of this machine, unless its sources are installed.
fn flags(workspace: &Workspace) -> Result<Vec<String>> {
    let home = match std::env::var("CARGO_HOME") {
        Ok(home) => home,
        Err(_unset) => format!("{}/.cargo", std::env::var("HOME").context("neither CARGO_HOME nor HOME is set")?),
    };
    let sysroot = process::read(std::process::Command::new("rustc").args(["--print", "sysroot"]))?;
    let root = workspace.root.display();
    Ok(vec![
        format!("--remap-path-prefix={home}=/usr/src/cargo"),
        format!("--remap-path-prefix={}=/usr/src/rust", sysroot.trim()),
        format!("--remap-path-prefix={root}=/usr/src/rpxy-l4"),
    ])
}

/// An error, with the remedy, where this toolchain has no standard library for `target`.
fn require_target(target: &str) -> Result<()> {
    let mut rustc = std::process::Command::new("rustc");
    let library = process::read(rustc.args(["--print", "target-libdir", "--target", target]))?;
    if !std::path::Path::new(library.trim()).exists() {
        bail!("this Rust toolchain has no standard library for {target}: run `rustup target add {target}`");
    }
    Ok(())
}
