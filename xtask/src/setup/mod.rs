//! `cargo xtask setup`: decides what this machine lacks, and installs it where it may.
//!
//! It errs towards leaving the machine alone: a program that is already there, from wherever, is taken as it is; no
//! service of an installed package is started or enabled; without root it only says what to type.

mod apt;
mod needs;

use anyhow::{Result, bail};

use crate::ebpf;
use crate::process;
use crate::workspace::Workspace;
pub(crate) use needs::Purpose;
use needs::{Need, Probe, Source};

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only say what is missing; fail when anything is.
    #[arg(long)]
    check: bool,
}

/// What is still missing after an attempt to install it, and how to get it.
#[derive(Debug)]
pub(crate) struct Missing {
    /// The purposes that suffer.
    pub(crate) purposes: Vec<Purpose>,
    /// What to type, or what to look for where there is no known command.
    pub(crate) remedy: String,
}

/// Installs everything for every purpose, or only reports with `--check`.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let missing = needs::missing(workspace, &Purpose::ALL);
    for need in &missing {
        println!("missing: {} ({})", need.probe, need.why);
    }
    if missing.is_empty() {
        println!("setup: nothing is missing");
        return Ok(());
    }
    if arguments.check {
        bail!("{} missing; `cargo xtask setup` installs them", missing.len());
    }
    require(workspace, &Purpose::ALL)?;
    println!("setup: done");
    Ok(())
}

/// Installs what `purposes` need; an error, with the remedy, when something stays missing.
pub(crate) fn require(workspace: &Workspace, purposes: &[Purpose]) -> Result<()> {
    match install(workspace, purposes)? {
        None => Ok(()),
        Some(missing) => bail!("{}", missing.remedy),
    }
}

/// Installs what `purposes` need as far as this user may. Returns what it could not install for want of rights or of a
/// known package manager; an error is an installation that was tried and failed.
pub(crate) fn install(workspace: &Workspace, purposes: &[Purpose]) -> Result<Option<Missing>> {
    let missing = needs::missing(workspace, purposes);
    for need in &missing {
        match need.source {
            Source::Apt(_) | Source::EbpfLinker => {}
            Source::Component(name) => match add_component(name) {
                Err(error) if has_alternative(need, &missing) => println!("setup: {error:#}"),
                result => result?,
            },
            Source::Crate(name) => process::run(process::cargo().args(["install", "--locked", name]))?,
        }
    }
    let packages = debian_packages(&needs::missing(workspace, purposes));
    if !packages.is_empty() && apt::is_available() && process::is_root() {
        apt::install(&packages)?;
    }
    // Last: it is built with what the packages brought.
    let is_linker = |need: &&Need| need.probe == Probe::EbpfLinker;
    let still = needs::missing(workspace, purposes);
    if still.iter().any(is_linker) && debian_packages(&still).is_empty() {
        ebpf::Linker::install(workspace)?;
    }
    let still = needs::missing(workspace, purposes);
    Ok(if still.is_empty() { None } else { Some(report(&still)) })
}

/// Whether a Debian package would do as well.
fn has_alternative(need: &Need, missing: &[&'static Need]) -> bool {
    apt::is_available()
        && missing.iter().any(|other| other.probe == need.probe && matches!(other.source, Source::Apt(_)))
}

fn add_component(name: &str) -> Result<()> {
    let Some(rustup) = process::find("rustup") else {
        bail!("there is no rustup to add {name}: install it for this toolchain");
    };
    process::run(std::process::Command::new(rustup).args(["component", "add", name]))
}

fn report(still: &[&'static Need]) -> Missing {
    let mut purposes: Vec<Purpose> = still.iter().map(|need| need.purpose).collect();
    purposes.dedup();
    let remedy = if apt::is_available() && !process::is_root() {
        format!("packages are missing; run\n  {}", apt::sudo_command_line(&debian_packages(still)))
    } else {
        let programs: Vec<String> = still.iter().map(|need| format!("{} ({})", need.probe, need.why)).collect();
        format!("install these by the means of this system:\n  {}", programs.join("\n  "))
    };
    Missing { purposes, remedy }
}

/// The packages of `needs`, each once: some hold several programs.
fn debian_packages(needs: &[&'static Need]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = needs
        .iter()
        .filter_map(|need| match need.source {
            Source::Apt(package) => Some(package),
            Source::Component(_) | Source::Crate(_) | Source::EbpfLinker => None,
        })
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_several_programs_is_named_once_and_others_than_debian_packages_not_at_all() {
        let all: Vec<&Need> = needs::NEEDS.iter().collect();
        let packages = debian_packages(&all);
        assert!(packages.windows(2).all(|pair| pair[0] < pair[1]), "sorted and without repetition: {packages:?}");
        assert!(
            packages.contains(&"openssh-server") && !packages.contains(&"rustfmt") && !packages.contains(&"cargo-fuzz")
        );
    }
}
