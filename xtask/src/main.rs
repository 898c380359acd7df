//! Developer tasks of rpxy-l4, run as `cargo xtask <command>`.
//!
//! Each task is a thin layer over the programs that do the work. Command lines are printed before they run, so that a
//! developer can repeat every step by hand. A task that cannot do all of its work reports what it left out, with the
//! remedy.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its terminal")]

mod bench;
mod dist;
mod ebpf;
mod fuzz;
mod guest;
mod pages;
mod process;
mod run;
mod setup;
mod sim;
mod test;
mod test_install;
mod test_kernel;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use setup::Purpose;
use workspace::Workspace;

/// Developer tasks of rpxy-l4.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,

    /// First install what this machine lacks for the task
    #[arg(long, global = true)]
    setup: bool,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what this machine lacks for all tasks
    Setup(setup::Arguments),
    /// Build the daemon in release mode and run it
    Run(run::Arguments),
    /// Build the eBPF programs, which the daemon then embeds
    BuildEbpf(ebpf::Arguments),
    /// Write the manual pages and completions that packages have
    Pages(pages::Arguments),
    /// Build the packages, the archive and the root of the container image
    Dist(dist::Arguments),
    /// Check everything that this machine can check: the one command before a commit
    Test,
    /// Install, start, upgrade and purge what `dist` has built, in a clean Debian, and run the container image; as root
    TestInstall(test_install::Arguments),
    /// Test the eBPF programs in another kernel (Debian's, or a given one) under QEMU
    TestKernel(test_kernel::Arguments),
    /// Measure the daemon side by side with HAProxy, nginx, sslh and kernel NAT
    Bench(bench::Arguments),
    /// Fuzz the parsers, each target for a while
    Fuzz(fuzz::Arguments),
    /// Simulate the UDP core at length, seed after seed
    Sim(sim::Arguments),
    /// Check the rules of this repository that no compiler and no lint knows
    Tidy,
}

fn main() -> ExitCode {
    match perform(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(cli: &Cli) -> Result<()> {
    let workspace = Workspace::locate()?;
    if cli.setup {
        // The task itself reports what is still missing.
        setup::install(&workspace, cli.task.purposes())?;
    }
    match &cli.task {
        Task::Setup(arguments) => setup::command(&workspace, arguments),
        Task::Run(arguments) => run::command(&workspace, arguments),
        Task::BuildEbpf(arguments) => {
            setup::require(&workspace, cli.task.purposes())?;
            ebpf::command(&workspace, arguments.log)
        }
        Task::Pages(arguments) => pages::command(&workspace, arguments),
        Task::Dist(arguments) => {
            setup::require(&workspace, cli.task.purposes())?;
            dist::command(&workspace, arguments)
        }
        Task::Test => test::command(&workspace, cli.setup),
        Task::TestInstall(arguments) => test_install::command(&workspace, arguments),
        Task::TestKernel(arguments) => test_kernel::command(&workspace, arguments),
        Task::Bench(arguments) => bench::command(&workspace, arguments),
        Task::Fuzz(arguments) => fuzz::command(&workspace, arguments),
        Task::Sim(arguments) => sim::command(&workspace, arguments),
        Task::Tidy => tidy::command(&workspace),
    }
}

impl Task {
    /// What `--setup` installs for it. Setup and test see to that themselves: the one reports all of it, and the other can
    /// do without some.
    fn purposes(&self) -> &'static [Purpose] {
        match self {
            Self::Setup(_) | Self::Test | Self::Tidy => &[],
            Self::Run(_) | Self::Sim(_) | Self::Pages(_) => &[Purpose::Build],
            Self::Dist(_) => &[Purpose::Build, Purpose::Dist],
            Self::BuildEbpf(_) => &[Purpose::Build, Purpose::Ebpf],
            Self::TestInstall(_) => &[Purpose::Build, Purpose::Dist, Purpose::Install],
            Self::TestKernel(_) => &[Purpose::Build, Purpose::Kernel],
            Self::Bench(_) => &[Purpose::Build, Purpose::Bench],
            Self::Fuzz(_) => &[Purpose::Build, Purpose::Fuzz],
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
