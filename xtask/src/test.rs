//! `cargo xtask test`: everything that one machine can check, in the order in which mistakes are cheapest to find.
//!
//! It stops at the first step that fails. What it could not check is listed in the end with the remedy, never passed over:
//! a run without the privileges for network namespaces succeeds, but reports that it proves less.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::ebpf::{self, Tools};
use crate::process;
use crate::setup::{self, Purpose};
use crate::test_kernel;
use crate::tidy;
use crate::workspace::{Profile, Workspace};

/// A step that takes longer hangs: the longest one takes a third of this on two busy cores.
const STEP_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs every check. With `setup`, first installs what is missing.
pub(crate) fn command(workspace: &Workspace, setup: bool) -> Result<()> {
    let started = Instant::now();
    let ci = env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    let mut machine = Machine { workspace, setup, left_out: Vec::new() };
    println!("==> [setup] {}", if setup { "installing what is missing" } else { "looking for what is missing" });
    let steps = machine.steps(ci)?;
    println!("==> setup: done in {} s", started.elapsed().as_secs());
    let count = steps.len();
    for (index, step) in steps.into_iter().enumerate() {
        println!("\n==> [{}/{count}] {}", index + 1, step.name);
        let begun = Instant::now();
        step.action.perform(workspace).with_context(|| format!("step `{}`", step.name))?;
        println!("==> {}: passed in {} s", step.name, begun.elapsed().as_secs());
    }
    println!("\nall {count} steps passed in {} s", started.elapsed().as_secs());
    if machine.left_out.is_empty() {
        println!("nothing was left out");
    }
    for skipped in machine.left_out {
        println!("left out: {}\n  remedy: {}", skipped.what, skipped.remedy.replace('\n', "\n  "));
    }
    Ok(())
}

struct LeftOut {
    what: &'static str,
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
            Self::Command(mut command) => process::run_within(&mut command, STEP_LIMIT),
            Self::Tidy => tidy::command(workspace),
            Self::Kernel => test_kernel::command(workspace, &test_kernel::Arguments::default()),
            Self::Ebpf(tools) => ebpf::build_for_tests(workspace, &tools),
        }
    }
}

impl Step {
    fn new(name: &'static str, command: Command) -> Self {
        Self { name, action: Action::Command(command) }
    }
}

/// This machine, as far as the steps depend on it.
struct Machine<'a> {
    workspace: &'a Workspace,
    setup: bool,
    left_out: Vec<LeftOut>,
}

impl Machine<'_> {
    /// Returns all steps that this machine can perform, in order.
    fn steps(&mut self, ci: bool) -> Result<Vec<Step>> {
        if let Some(missing) = self.missing(Purpose::Build)? {
            bail!("{missing}");
        }
        let peers = self.has(Purpose::Test, "end-to-end tests whose peers are not installed")?;
        let tools = self.ebpf_tools(ci)?;
        let namespaces = self.has_namespaces();
        let required = privileged_are_required(ci, process::is_root(), namespaces && peers && tools.is_some());
        let has_programs = tools.is_some();

        let mut steps = vec![Step::new("format", self.cargo("fmt --all --check"))];
        steps.extend(self.tidy());
        steps.extend(self.workspace_steps(tools, required));
        steps.extend(self.fuzz_steps());
        if self.has(Purpose::Interop, "tests with foreign software")? {
            let go = self.has(Purpose::Go, "tests with quic-go, as Debian 12 packages it")?;
            steps.extend(self.interop_steps(required, go));
        }
        if has_programs && self.has_other_kernel()? {
            steps.push(Step { name: "eBPF programs in another kernel", action: Action::Kernel });
        }
        if self.has(Purpose::Dependencies, "licences and sources of the dependencies")? {
            steps.extend(self.dependencies());
        }
        Ok(steps)
    }

    /// The remedy for what `purpose` lacks, after an attempt to install it where that was asked for.
    fn missing(&self, purpose: Purpose) -> Result<Option<String>> {
        let missing = if self.setup {
            setup::install(self.workspace, &[purpose])?
        } else {
            setup::missing(self.workspace, &[purpose])
        };
        Ok(missing)
    }

    /// Leaves `what` out if something that it needs is missing.
    fn has(&mut self, purpose: Purpose, what: &'static str) -> Result<bool> {
        let missing = self.missing(purpose)?;
        let has = missing.is_none();
        self.left_out.extend(missing.map(|remedy| LeftOut { what, remedy }));
        Ok(has)
    }

    /// The tools for the eBPF programs. Where the system does not package them, the rest is tested all the same, but for
    /// root in CI.
    fn ebpf_tools(&mut self, ci: bool) -> Result<Option<Tools>> {
        let what = "eBPF programs, and the tests that load them";
        let missing = self.missing(Purpose::Ebpf);
        let remedy = match (missing, Tools::find(self.workspace)) {
            (_, Some(tools)) => return Ok(Some(tools)),
            (Ok(Some(remedy)), None) => remedy,
            (Ok(None), None) => "cargo xtask build-ebpf".to_owned(),
            (Err(error), None) => format!("cargo xtask build-ebpf --setup ({error:#})"),
        };
        if ci && process::is_root() {
            bail!("{what}: {remedy}");
        }
        self.left_out.push(LeftOut { what, remedy });
        Ok(None)
    }

    /// Tells whether the programs can be tested in Debian's kernel.
    fn has_other_kernel(&mut self) -> Result<bool> {
        let what = "eBPF programs in another kernel";
        if process::find("apt-get").is_none() {
            let remedy = "run `cargo xtask test-kernel` on Debian, whose kernel it takes".to_owned();
            self.left_out.push(LeftOut { what, remedy });
            return Ok(false);
        }
        self.has(Purpose::Kernel, what)
    }

    /// Tells whether this process can make network namespaces. Found out by making one: neither root nor a capability mask
    /// tells what a container runtime forbids.
    fn has_namespaces(&mut self) -> bool {
        let name = format!("rpxy-l4-xtask-{}", std::process::id());
        let ip = |words: &[&str]| process::read(Command::new("ip").args(words)).map(drop);
        let made = ip(&["netns", "add", &name]).and_then(|()| {
            let linked = ip(&["-n", &name, "link", "add", "name", "near", "type", "veth", "peer", "name", "far"]);
            linked.and(ip(&["netns", "delete", &name]))
        });
        let Err(error) = made else { return true };
        let remedy = if process::find("ip").is_none() {
            "install `ip` (Debian: iproute2); `cargo xtask setup` does".to_owned()
        } else if process::is_root() {
            format!("give this container the capabilities NET_ADMIN and SYS_ADMIN ({error:#})")
        } else {
            "sudo -E env PATH=\"$PATH\" cargo xtask test".to_owned()
        };
        self.left_out.push(LeftOut { what: "end-to-end tests (they need network namespaces)", remedy });
        false
    }

    fn tidy(&mut self) -> Option<Step> {
        let remedy = if !self.workspace.path(".git").exists() {
            "run from a git clone"
        } else if process::find("git").is_none() {
            "install git"
        } else {
            return Some(Step { name: "tidy", action: Action::Tidy });
        };
        self.left_out.push(LeftOut { what: "tidy (git lists the files)", remedy: remedy.to_owned() });
        None
    }

    fn workspace_steps(&self, tools: Option<Tools>, required: bool) -> Vec<Step> {
        let mut test = self.cargo("test --locked --workspace");
        self.describe(&mut test, required);
        let mut doc = self.cargo("doc --locked --workspace --no-deps");
        doc.env("RUSTDOCFLAGS", "-D warnings");

        let mut steps = Vec::new();
        // Before the daemon, which embeds them.
        if let Some(tools) = tools {
            test.env("RPXY_L4_TESTS_OBJECT", self.workspace.ebpf_object());
            steps.extend(tools.lints(self.workspace).map(|lints| Step::new("lints of the eBPF programs", lints)));
            steps.push(Step { name: "eBPF programs", action: Action::Ebpf(tools) });
        }
        let without_features = "--locked --package rpxy-l4 --no-default-features";
        steps.extend([
            Step::new("lints", self.cargo("clippy --locked --workspace --all-targets --all-features -- -D warnings")),
            Step::new(
                "lints without default features",
                self.cargo(&format!("clippy {without_features} --all-targets -- -D warnings")),
            ),
            // Before the daemon is built: it leaves a daemon without features where the end-to-end tests look for one.
            Step::new("tests without default features", self.cargo(&format!("test {without_features}"))),
            Step::new("daemon", self.cargo("build --locked --package rpxy-l4 --bin rpxy-l4")),
            Step::new("tests", test),
            Step::new("documentation", doc),
        ]);
        steps
    }

    /// The fuzz targets, without the library that drives them. They are a workspace of their own: see its manifest.
    fn fuzz_steps(&self) -> [Step; 2] {
        let mut lints = self.cargo_of("fuzz", "clippy", "--locked -- -D warnings");
        lints.env("CUSTOM_LIBFUZZER_PATH", self.workspace.target().join("none"));
        [
            Step::new("format of the fuzz targets", self.cargo_of("fuzz", "fmt", "--check")),
            Step::new("lints of the fuzz targets", lints),
        ]
    }

    /// Tests with foreign software. They are a workspace of their own: see its manifest. Those with `go` are marked as
    /// ignored.
    fn interop_steps(&self, required: bool, go: bool) -> [Step; 3] {
        let mut test = self.cargo_of("tests/interop", "test", "--locked");
        if go {
            test.args(["--", "--include-ignored"]);
        }
        self.describe(&mut test, required);
        [
            Step::new("format of the tests with foreign software", self.cargo_of("tests/interop", "fmt", "--check")),
            Step::new(
                "lints of the tests with foreign software",
                self.cargo_of("tests/interop", "clippy", "--locked --all-targets -- -D warnings"),
            ),
            Step::new("tests with foreign software", test),
        ]
    }

    /// A cargo command for another workspace in this repository. Most of its dependencies are those of this one, so they
    /// share a directory.
    fn cargo_of(&self, folder: &str, subcommand: &str, options: &str) -> Command {
        let mut command = self.cargo(&format!("{subcommand} --manifest-path {folder}/Cargo.toml {options}"));
        command.env("CARGO_TARGET_DIR", self.workspace.target());
        command
    }

    fn dependencies(&self) -> Option<Step> {
        let mut deny = process::cargo_at(&setup::find_deny(self.workspace)?);
        // Advisories come from the network, so they are left to a scheduled run.
        deny.current_dir(&self.workspace.root);
        deny.args(["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
        Some(Step::new("licences and sources of the dependencies", deny))
    }

    /// Tells the end-to-end tests where the daemon is, and whether they may skip themselves.
    fn describe(&self, command: &mut Command, required: bool) {
        command.env("RPXY_L4_BIN", self.workspace.program("rpxy-l4", Profile::Debug));
        if required {
            command.env("RPXY_L4_TESTS_REQUIRED", "1");
        }
    }

    fn cargo(&self, line: &str) -> Command {
        let mut command = self.workspace.cargo();
        command.args(line.split(' '));
        command
    }
}

/// In CI, root means that the tests which need privileges must run. Elsewhere they must run when nothing stands in their
/// way, so that a test which skips itself on a complete machine is noticed.
fn privileged_are_required(ci: bool, root: bool, able: bool) -> bool {
    (ci && root) || able
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
