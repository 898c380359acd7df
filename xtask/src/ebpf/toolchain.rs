//! Finds a Rust toolchain that can build core for the eBPF target: one with the sources of its library.
//!
//! Asked in this order: rustup's active toolchain, its others, and what the system's packages installed (Debian:
//! `rustc-web`, `cargo-web`, `rust-web-src`). Any release will do that the workspace supports; a nightly is not needed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::linker;
use crate::process;

/// A compiler, its cargo and its library's sources.
#[derive(Debug)]
pub(crate) struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    release: String,
    /// The directory of the library and its sources.
    pub(super) sysroot: PathBuf,
}

/// The programs of each toolchain, the active one first.
fn rustup_toolchains(rustup: &Path) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let list = process::read(Command::new(rustup).args(["toolchain", "list"])).unwrap_or_default();
    let mut names: Vec<(bool, String)> = list
        .lines()
        .filter_map(|line| Some((line.contains("active"), line.split_whitespace().next()?.to_owned())))
        .collect();
    names.sort_by_key(|(active, _)| !active);
    names.into_iter().filter_map(move |(_, name)| {
        let which = |program| {
            let path = process::read(Command::new(rustup).args(["which", "--toolchain", &name, program])).ok()?;
            Some(PathBuf::from(path.trim()))
        };
        Some((which("cargo")?, which("rustc")?))
    })
}

impl Toolchain {
    /// The first that will do.
    pub(crate) fn find() -> Option<Self> {
        let system = Some((PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc")));
        let on_path = || Some((process::find("cargo")?, process::find("rustc")?));
        let rustup = process::find("rustup");
        let managed = rustup.iter().flat_map(|rustup| rustup_toolchains(rustup));
        let others = [on_path(), system].into_iter().flatten();
        managed.chain(others).find_map(|(cargo, rustc)| Self::inspect(cargo, rustc))
    }

    /// `cargo` of this toolchain, told to use its own compiler.
    pub(super) fn cargo(&self) -> Command {
        let mut command = process::cargo_at(&self.cargo);
        command.env("RUSTC", &self.rustc);
        // `cargo clippy` and `cargo fmt` are programs beside it.
        if let Some(directory) = self.cargo.parent() {
            let inherited = std::env::var_os("PATH").unwrap_or_default();
            let path = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&inherited));
            if let Ok(path) = std::env::join_paths(path) {
                command.env("PATH", path);
            }
        }
        command
    }

    /// Returns true if `cargo clippy` is part of it.
    pub(crate) fn has_clippy(&self) -> bool {
        self.cargo.with_file_name("clippy-driver").exists()
    }

    fn inspect(cargo: PathBuf, rustc: PathBuf) -> Option<Self> {
        let version = process::read(Command::new(&rustc).arg("-vV")).ok()?;
        let (release, llvm) = versions(&version)?;
        let sysroot = PathBuf::from(process::read(Command::new(&rustc).args(["--print", "sysroot"])).ok()?.trim());
        // What a newer LLVM writes the linker's may not be able to read.
        let fit = release >= required() && llvm <= linker::LLVM;
        let complete = cargo.exists() && sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists();
        let release = version.lines().next().unwrap_or_default().to_owned();
        (fit && complete).then_some(Self { cargo, rustc, release, sysroot })
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)
    }
}

/// The oldest release that builds this workspace.
fn required() -> (u32, u32) {
    release(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default()
}

/// Release and major version of LLVM in what `rustc -vV` prints.
fn versions(text: &str) -> Option<((u32, u32), u32)> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    let llvm = value("LLVM version")?.split('.').next()?.parse().ok()?;
    Some((release(value("release")?)?, llvm))
}

fn release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_compiler_prints() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(versions(text), Some(((1, 97), 22)));
        assert_eq!(versions("rustc 1.97.0\nrelease: 1.97.0\n"), None, "another code generator than LLVM");
        assert!(required() >= (1, 95));
    }
}
