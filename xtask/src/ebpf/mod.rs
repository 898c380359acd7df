//! `cargo xtask build-ebpf`: from the sources of the eBPF programs to the object that the daemon embeds.
//!
//! The compiler has no ready-made core library for `bpfel-unknown-none`, so it builds core too; the linker is
//! bpf-linker, which optimises all of it as one and writes the types for the kernel (BTF). Versions are pinned and the
//! object names no directory of this machine: the same sources and the same compiler give the same bytes anywhere.

mod linker;
mod object;
mod toolchain;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::workspace::{Profile, Workspace};
pub(crate) use linker::{LLVM_CONFIG, Linker, VERSION as LINKER_VERSION};
pub(crate) use toolchain::Toolchain;

/// The package and the program in it.
const PACKAGE: &str = "rpxy-l4-ebpf";
const TARGET: &str = "bpfel-unknown-none";
/// The profile in the root manifest.
const PROFILE: &str = "bpf";
/// Flags of code generation. Instruction set 3 is known since Linux 5.1. Copies and fills of a known size are written
/// out: by default the linker leaves them, for the sake of older verifiers, to functions that go byte by byte (50 ns a
/// packet).
const CODE: [&str; 4] =
    ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3", "-Clink-arg=--disable-expand-memcpy-in-order"];
/// Most instructions that a program may have, with the functions that it calls. The kernel's limit is on those that its
/// verifier walks through, over all paths; a program that outgrows this one should be looked at long before.
const BUDGET: usize = 4096;

/// Arguments of `cargo xtask build-ebpf`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Build programs that log every verdict, as an object beside the one that the daemon embeds
    #[arg(long)]
    pub(crate) log: bool,
}

/// Which object is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// The one that the daemon embeds.
    Plain,
    /// The one that logs every verdict.
    Log,
}

impl Variant {
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Log => &["--features", "ebpf-log"],
        }
    }

    fn object(self, workspace: &Workspace) -> PathBuf {
        match self {
            Self::Plain => workspace.ebpf_object(),
            Self::Log => workspace.ebpf_log_object(),
        }
    }

    /// To make a message takes as much as half a program.
    fn budget(self) -> usize {
        match self {
            Self::Plain => BUDGET,
            Self::Log => BUDGET * 3 / 2,
        }
    }
}

/// The tools that compile the sources.
pub(crate) struct Tools {
    toolchain: Toolchain,
    linker: Linker,
}

impl Tools {
    /// Looks for them; `None` when one is missing.
    pub(crate) fn find(workspace: &Workspace) -> Option<Self> {
        Some(Self { toolchain: Toolchain::find()?, linker: Linker::find(workspace)? })
    }

    /// A cargo command for the programs: `subcommand` with everything that selects them.
    fn cargo(&self, workspace: &Workspace, subcommand: &str) -> std::process::Command {
        let mut command = self.toolchain.cargo();
        command.current_dir(&workspace.root);
        // Building core is unstable; this lets a stable compiler do it, as the one that is tested with.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker.path);
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags(&workspace.root));
        command.env_remove("RUSTFLAGS");
        command.args([subcommand, "--locked", "--package", PACKAGE, "--bin", PACKAGE]);
        command.args(["--target", TARGET, "--profile", PROFILE, "-Zbuild-std=core"]);
        command.arg("--target-dir").arg(workspace.scratch("bpf-build"));
        command
    }

    /// Lints of what is compiled for the kernel alone, where the toolchain has them. With all features: what one of
    /// them leaves out is compiled by the build.
    pub(crate) fn lints(&self, workspace: &Workspace) -> Option<std::process::Command> {
        self.toolchain.has_clippy().then(|| {
            let mut command = self.cargo(workspace, "clippy");
            command.args(["--all-features", "--", "-D", "warnings"]);
            command
        })
    }

    /// Separated as cargo wants them: a path may hold a blank.
    fn flags(&self, root: &Path) -> OsString {
        let mut flags = OsString::from(CODE.join("\u{1f}"));
        let registry = cargo_home().map(|home| (home, "/cargo"));
        let renamed = [(self.toolchain.sysroot.clone(), "/rust"), (root.to_owned(), "/rpxy-l4")];
        for (path, name) in registry.into_iter().chain(renamed) {
            flags.push("\u{1f}--remap-path-prefix=");
            flags.push(path);
            flags.push("=");
            flags.push(name);
        }
        flags
    }
}

/// Builds the programs and prints their sizes.
pub(crate) fn command(workspace: &Workspace, log: bool) -> Result<()> {
    let tools = Tools::find(workspace).context("the toolchain for the eBPF programs is not installed")?;
    let variant = if log { Variant::Log } else { Variant::Plain };
    let object = build(workspace, &tools, variant)?;
    println!("{}", object.display());
    if variant == Variant::Log {
        println!("to embed it: RPXY_L4_EBPF_OBJECT={} cargo build --release --package rpxy-l4", object.display());
    }
    Ok(())
}

/// Builds what the tests need: the object that the daemon embeds, the one that logs, and a daemon with that.
pub(crate) fn build_for_tests(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let object = build(workspace, tools, Variant::Log)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--package", "rpxy-l4", "--bin", "rpxy-l4"]);
    process::run(cargo.env("RPXY_L4_EBPF_OBJECT", &object))?;
    let (daemon, copy) = (workspace.program("rpxy-l4", Profile::Debug), object.with_file_name("rpxy-l4"));
    std::fs::copy(&daemon, &copy).with_context(|| format!("{} to {}", daemon.display(), copy.display()))?;
    build(workspace, tools, Variant::Plain)?;
    Ok(())
}

/// Builds an object and returns where it is.
fn build(workspace: &Workspace, tools: &Tools, variant: Variant) -> Result<PathBuf> {
    println!("eBPF toolchain: {}; {}", tools.toolchain, tools.linker);
    process::run(tools.cargo(workspace, "build").args(variant.features()))?;
    let built = workspace.scratch("bpf-build").join(TARGET).join(PROFILE).join(PACKAGE);
    let bytes = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = variant.object(workspace);
    // A file that stays as it is keeps cargo from building the daemon again.
    if std::fs::read(&object).ok().as_ref() != Some(&bytes) {
        store(&object, &bytes).with_context(|| format!("cannot write {}", object.display()))?;
    }
    weigh(&bytes, variant.budget()).with_context(|| object.display().to_string())?;
    Ok(object)
}

/// Whole or not at all: the daemon may be built at the same time.
fn store(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, path)
}

fn weigh(bytes: &[u8], budget: usize) -> Result<()> {
    let programs = object::programs(bytes)?;
    if programs.is_empty() {
        bail!("there is no program in the object");
    }
    for program in &programs {
        let object::Program { name, own, shared } = program;
        println!("{name}: {own} instructions, {shared} in functions shared by all; budget {budget}");
    }
    let over: Vec<&str> = programs.iter().filter(|p| p.own + p.shared > budget).map(|p| p.name.as_str()).collect();
    if !over.is_empty() {
        bail!("over the budget of {budget} instructions: {}", over.join(", "));
    }
    Ok(())
}

fn cargo_home() -> Option<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}
