//! `cargo xtask setup`, or `--setup` with another task: finds out what this machine lacks, and installs it.
//!
//! Without being asked to, nothing is installed. A program that is already there, from wherever, is taken as it is; no
//! service of an installed package is started or enabled. Packages of the system are installed by root only; a user gets
//! the command to type.

mod aioquic;
mod apt;
mod deny;
mod needs;
mod pip;

use anyhow::{Result, bail};

use crate::ebpf;
use crate::process;
use crate::workspace::Workspace;
pub(crate) use deny::find as find_deny;
pub(crate) use needs::Purpose;
use needs::{Need, Probe, Source};

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only list what is missing, and fail if anything is
    #[arg(long)]
    check: bool,
}

/// Installs everything for every purpose, or only lists it with `--check`.
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
        bail!("{} missing; `cargo xtask setup` installs what it can", missing.len());
    }
    if let Some(remedy) = install(workspace, &Purpose::ALL)? {
        bail!("{remedy}");
    }
    println!("setup: done");
    Ok(())
}

/// Returns an error with the remedy when something that `purposes` need is missing.
pub(crate) fn require(workspace: &Workspace, purposes: &[Purpose]) -> Result<()> {
    missing(workspace, purposes).map_or(Ok(()), |remedy| bail!("{remedy}"))
}

/// Looks for what `purposes` need, installs nothing, and returns the remedy if something is missing.
pub(crate) fn missing(workspace: &Workspace, purposes: &[Purpose]) -> Option<String> {
    let missing = needs::missing(workspace, purposes);
    if missing.is_empty() {
        return None;
    }
    let can_install = debian_packages(&missing).is_empty() || (apt::is_available() && process::is_root());
    Some(if can_install {
        format!("`cargo xtask setup` installs what is missing:\n{}", list(&missing))
    } else {
        by_hand(&missing)
    })
}

/// Installs what `purposes` need, as far as this user may, and returns the remedy if something is still missing. Fails if
/// the system's package manager does.
pub(crate) fn install(workspace: &Workspace, purposes: &[Purpose]) -> Result<Option<String>> {
    for need in needs::missing(workspace, purposes) {
        goes_on_without(match need.source {
            Source::Component(name) => add_component(name),
            Source::Crate(name) => process::run(process::cargo().args(["install", "--locked", name])),
            Source::CargoDeny => deny::install(workspace),
            Source::Aioquic => aioquic::install(workspace),
            Source::Apt(_) | Source::EbpfLinker => Ok(()),
        });
    }
    let packages = debian_packages(&needs::missing(workspace, purposes));
    if !packages.is_empty() && apt::is_available() && process::is_root() {
        apt::install(&packages)?;
    }
    // Last: it is built with what the packages brought.
    let still = needs::missing(workspace, purposes);
    if still.iter().any(|need| need.probe == Probe::EbpfLinker) && debian_packages(&still).is_empty() {
        goes_on_without(ebpf::Linker::install(workspace));
    }
    let still = needs::missing(workspace, purposes);
    Ok((!still.is_empty()).then(|| by_hand(&still)))
}

/// Something else may do instead, and what stays missing is reported in the end.
fn goes_on_without(installed: Result<()>) {
    if let Err(error) = installed {
        println!("setup: {error:#}");
    }
}

fn add_component(name: &str) -> Result<()> {
    let Some(rustup) = process::find("rustup") else {
        bail!("{name} cannot be added to this toolchain: it is not rustup's");
    };
    process::run(std::process::Command::new(rustup).args(["component", "add", name]))
}

/// The remedy where this process cannot install.
fn by_hand(missing: &[&'static Need]) -> String {
    let packages = debian_packages(missing);
    if apt::is_available() && !process::is_root() && !packages.is_empty() {
        format!("install packages, then the rest:\n  {}\n  cargo xtask setup", apt::sudo_command_line(&packages))
    } else {
        format!("install these, and make sure that they are on PATH:\n{}", list(missing))
    }
}

/// One line for each missing thing. Of several ways to get one, the first is named.
fn list(missing: &[&'static Need]) -> String {
    let mut lines: Vec<(Probe, String)> = Vec::new();
    for need in missing {
        let from = match need.source {
            Source::Apt(package) => format!("; Debian: {package}"),
            Source::Crate(name) => format!("; cargo install --locked {name}"),
            Source::Component(name) => format!("; rustup component add {name}"),
            Source::EbpfLinker | Source::CargoDeny | Source::Aioquic => String::new(),
        };
        if lines.iter().all(|(probe, _)| *probe != need.probe) {
            lines.push((need.probe, format!("  {} ({}{from})", need.probe, need.why)));
        }
    }
    lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

/// The packages of `needs`, each once: some contain several programs.
fn debian_packages(needs: &[&'static Need]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = needs
        .iter()
        .filter_map(|need| match need.source {
            Source::Apt(package) => Some(package),
            Source::Component(_) | Source::Crate(_) | Source::EbpfLinker | Source::CargoDeny | Source::Aioquic => None,
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
