//! Developer tasks of rpxy-l4, run as `cargo xtask <command>`.
//!
//! Each command is a thin layer over the programs that do the work, so that a developer can repeat every step by hand:
//! the command lines are printed before they run. Where a task cannot do all of its work it says what it left out, and
//! which command would make up for it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its terminal")]

mod bench;
mod ebpf;
mod fuzz;
mod process;
mod run;
mod setup;
mod test;
mod test_kernel;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Developer tasks of rpxy-l4.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what this machine lacks for building, testing, benchmarking and fuzzing.
    Setup(setup::Arguments),
    /// Build the daemon in release mode and run it.
    Run(run::Arguments),
    /// Build the eBPF programs, which the daemon then embeds.
    BuildEbpf(ebpf::Arguments),
    /// Check everything that this machine can check: the one command before a commit.
    Test(test::Arguments),
    /// Test the eBPF programs in another kernel, Debian's packaged one, under QEMU.
    TestKernel(test_kernel::Arguments),
    /// Measure the daemon side by side with HAProxy, nginx, sslh and kernel NAT.
    Bench(bench::Arguments),
    /// Fuzz the parsers, each target for a while.
    Fuzz(fuzz::Arguments),
    /// Check the rules of this repository that no compiler knows.
    Tidy,
}

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let workspace = Workspace::locate()?;
    match task {
        Task::Setup(arguments) => setup::command(&workspace, &arguments),
        Task::Run(arguments) => run::command(&workspace, &arguments),
        Task::BuildEbpf(arguments) => ebpf::command(&workspace, arguments.log),
        Task::Test(arguments) => test::command(&workspace, &arguments),
        Task::TestKernel(arguments) => test_kernel::command(&workspace, &arguments),
        Task::Bench(arguments) => bench::command(&workspace, &arguments),
        Task::Fuzz(arguments) => fuzz::command(&workspace, &arguments),
        Task::Tidy => tidy::command(&workspace),
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
