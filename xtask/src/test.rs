//! `cargo xtask test`: everything that one machine can check, in the order in which mistakes are cheapest to find.
//!
//! It stops at the first step that fails. What it could not check is listed in the end with the remedy, never passed
//! over: a run without the rights for network namespaces is green, but says that it proves less.

use std::env;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::ebpf::{self, Tools};
use crate::process;
use crate::setup::{self, Purpose};
use crate::test_kernel;
use crate::tidy;
use crate::workspace::{Profile, Workspace};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Install nothing; test with what is there.
    #[arg(long)]
    no_setup: bool,
}

/// Runs every check.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let mut left_out = Vec::new();
    let ci = env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    let complete = prepare(workspace, arguments, &mut left_out)?;
    let tools = ebpf_tools(workspace, arguments, ci && process::is_root(), &mut left_out)?;
    let namespaces = namespaces(&mut left_out);
    let required = privileged_are_required(ci, process::is_root(), namespaces && complete && tools.is_some());
    let kernel = tools.is_some() && other_kernel(workspace, arguments, &mut left_out)?;
    let steps = steps(workspace, required, tools, kernel, &mut left_out);
    let count = steps.len();
    for (index, step) in steps.into_iter().enumerate() {
        println!("\n==> [{}/{count}] {}", index + 1, step.name);
        let begun = Instant::now();
        step.action.perform(workspace).with_context(|| format!("step `{}`", step.name))?;
        println!("==> {}: passed in {} s", step.name, begun.elapsed().as_secs());
    }
    println!("\nall {count} steps passed in {} s", started.elapsed().as_secs());
    if left_out.is_empty() {
        println!("nothing was left out");
    }
    for skipped in left_out {
        println!("left out: {}\n  remedy: {}", skipped.what, skipped.remedy.replace('\n', "\n  "));
    }
    Ok(())
}

struct LeftOut {
    what: String,
    remedy: String,
}

struct Step {
    name: &'static str,
    action: Action,
}

enum Action {
    Command(Command),
    Tidy,
    Ebpf(Tools),
    Kernel,
}

impl Action {
    fn perform(self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::Command(mut command) => process::run(&mut command),
            Self::Tidy => tidy::command(workspace),
            Self::Kernel => test_kernel::command(workspace, &test_kernel::Arguments::default()),
            Self::Ebpf(tools) => ebpf::build_for_tests(workspace, &tools),
        }
    }
}

/// Installs what is missing; true when all peers of the end-to-end tests are there.
fn prepare(workspace: &Workspace, arguments: &Arguments, left_out: &mut Vec<LeftOut>) -> Result<bool> {
    if arguments.no_setup {
        return Ok(false);
    }
    println!("==> setup");
    let Some(missing) = setup::install(workspace, &[Purpose::Build, Purpose::Test])? else { return Ok(true) };
    if missing.purposes.contains(&Purpose::Build) {
        bail!("{}", missing.remedy);
    }
    left_out
        .push(LeftOut { what: "end-to-end tests whose peers are not installed".to_owned(), remedy: missing.remedy });
    Ok(false)
}

/// What the eBPF programs are built with. Where it is not to be had, the rest is tested all the same, unless `required`.
fn ebpf_tools(
    workspace: &Workspace,
    arguments: &Arguments,
    required: bool,
    left_out: &mut Vec<LeftOut>,
) -> Result<Option<Tools>> {
    let what = "eBPF programs, and the tests that load them".to_owned();
    let installed = if arguments.no_setup { Ok(None) } else { setup::install(workspace, &[Purpose::Ebpf]) };
    let remedy = match (installed, Tools::find(workspace)) {
        (_, Some(tools)) => return Ok(Some(tools)),
        (Ok(Some(missing)), None) => missing.remedy,
        (Ok(None), None) => "cargo xtask build-ebpf".to_owned(),
        (Err(error), None) => format!("cargo xtask build-ebpf ({error:#})"),
    };
    if required {
        bail!("{what}: {remedy}");
    }
    left_out.push(LeftOut { what, remedy });
    Ok(None)
}

/// Whether the programs can be tested in another kernel: Debian's, which QEMU runs.
fn other_kernel(workspace: &Workspace, arguments: &Arguments, left_out: &mut Vec<LeftOut>) -> Result<bool> {
    let remedy = if process::find("apt-get").is_none() {
        "run `cargo xtask test-kernel` on Debian, whose kernel it takes".to_owned()
    } else if arguments.no_setup {
        "cargo xtask test-kernel".to_owned()
    } else {
        match setup::install(workspace, &[Purpose::Kernel])? {
            None => return Ok(true),
            Some(missing) => missing.remedy,
        }
    };
    left_out.push(LeftOut { what: "eBPF programs in another kernel".to_owned(), remedy });
    Ok(false)
}

/// In CI, root means that the tests which need rights must run. Elsewhere they must run when nothing stands in their way, so
/// that a test which skips itself on a complete machine is seen.
fn privileged_are_required(ci: bool, root: bool, able: bool) -> bool {
    (ci && root) || able
}

/// True when this process can make network namespaces. Found out by making one: neither root nor a capability mask
/// tells what a container runtime forbids.
fn namespaces(left_out: &mut Vec<LeftOut>) -> bool {
    let name = format!("rpxy-l4-xtask-{}", std::process::id());
    let ip = |words: &[&str]| process::read(Command::new("ip").args(words)).map(drop);
    let made = ip(&["netns", "add", &name]).and_then(|()| {
        let linked = ip(&["-n", &name, "link", "add", "name", "near", "type", "veth", "peer", "name", "far"]);
        linked.and(ip(&["netns", "delete", &name]))
    });
    let Err(error) = made else { return true };
    let remedy = if process::is_root() {
        format!("give this container the capabilities NET_ADMIN and SYS_ADMIN ({error:#})")
    } else {
        "sudo -E env PATH=\"$PATH\" cargo xtask test".to_owned()
    };
    left_out.push(LeftOut { what: "end-to-end tests (they need network namespaces)".to_owned(), remedy });
    false
}

fn steps(
    workspace: &Workspace,
    required: bool,
    tools: Option<Tools>,
    kernel: bool,
    left_out: &mut Vec<LeftOut>,
) -> Vec<Step> {
    let cargo = |line: &str| {
        let mut command = workspace.cargo();
        command.args(line.split(' '));
        command
    };
    let command = |name, command| Step { name, action: Action::Command(command) };

    let mut test = cargo("test --locked --workspace");
    test.env("RPXY_L4_BIN", workspace.program("rpxy-l4", Profile::Debug));
    if required {
        test.env("RPXY_L4_TESTS_REQUIRED", "1");
    }
    let mut doc = cargo("doc --locked --workspace --no-deps");
    doc.env("RUSTDOCFLAGS", "-D warnings");

    let mut steps = vec![command("format", cargo("fmt --all --check"))];
    if workspace.path(".git").exists() {
        steps.push(Step { name: "tidy", action: Action::Tidy });
    } else {
        let remedy = "run from a git clone".to_owned();
        left_out.push(LeftOut { what: "tidy (asks git which files are ours)".to_owned(), remedy });
    }
    // Before the daemon, which embeds them.
    if let Some(tools) = tools {
        test.env("RPXY_L4_TESTS_OBJECT", workspace.ebpf_object());
        steps.extend(tools.lints(workspace).map(|lints| command("lints of the eBPF programs", lints)));
        steps.push(Step { name: "eBPF programs", action: Action::Ebpf(tools) });
    }
    steps.extend([
        command("lints", cargo("clippy --locked --workspace --all-targets --all-features -- -D warnings")),
        command(
            "lints without default features",
            cargo("clippy --locked --package rpxy-l4 --no-default-features --all-targets -- -D warnings"),
        ),
        // Before the daemon is built: it leaves a daemon without features where the end-to-end tests look for one.
        command("tests without default features", cargo("test --locked --package rpxy-l4 --no-default-features")),
        command("daemon", cargo("build --locked --package rpxy-l4 --bin rpxy-l4")),
        command("tests", test),
        command("documentation", doc),
    ]);
    steps.extend(ech_steps(workspace, required, left_out));
    if kernel {
        steps.push(Step { name: "eBPF programs in another kernel", action: Action::Kernel });
    }
    if process::find("cargo-deny").is_some() {
        // Advisories come from the network, so they are left to a scheduled run.
        steps.push(command("dependencies", cargo("deny check --hide-inclusion-graph bans licenses sources")));
    } else {
        left_out.push(LeftOut {
            what: "licences and sources of the dependencies".to_owned(),
            remedy: "cargo install --locked cargo-deny && cargo deny check".to_owned(),
        });
    }
    steps
}

/// Tests with foreign software for Encrypted Client Hello. They are a workspace of their own: see its manifest.
fn ech_steps(workspace: &Workspace, required: bool, left_out: &mut Vec<LeftOut>) -> Vec<Step> {
    let missing: Vec<&str> =
        ["cmake", "clang", "c++"].into_iter().filter(|name| process::find(name).is_none()).collect();
    if !missing.is_empty() {
        left_out.push(LeftOut {
            what: "tests of Encrypted Client Hello with foreign software".to_owned(),
            remedy: format!("install {}", missing.join(", ")),
        });
        return Vec::new();
    }
    let cargo = |name: &str, line: &str| {
        let mut command = workspace.cargo();
        command.args([name, "--manifest-path", "tests/interop/Cargo.toml"]).args(line.split(' '));
        command
    };
    let build = |name: &str, line: &str| {
        let mut command = cargo(name, line);
        // Its dependencies have other features than the workspace's.
        command.env("CARGO_TARGET_DIR", workspace.scratch("ech"));
        command.env("RPXY_L4_BIN", workspace.program("rpxy-l4", Profile::Debug));
        if required {
            command.env("RPXY_L4_TESTS_REQUIRED", "1");
        }
        command
    };
    [
        ("format of the ECH tests", cargo("fmt", "--check")),
        ("lints of the ECH tests", build("clippy", "--locked --all-targets -- -D warnings")),
        ("ECH tests", build("test", "--locked")),
    ]
    .map(|(name, command)| Step { name, action: Action::Command(command) })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_need_rights_may_only_be_skipped_where_they_cannot_be_asked_for() {
        let rows = [
            ("a user at home", false, false, false, false),
            ("root at home without namespaces", false, true, false, false),
            ("root at home", false, true, true, true),
            ("a user in CI", true, false, false, false),
            ("root in CI without namespaces", true, true, false, true),
            ("root in CI", true, true, true, true),
        ];
        for (name, ci, root, able, expected) in rows {
            assert_eq!(privileged_are_required(ci, root, able), expected, "{name}");
        }
    }
}
