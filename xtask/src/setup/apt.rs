//! Installs Debian packages without letting their services onto the machine.
//!
//! Debian starts a daemon when its package is configured, and enables it for the next boot. The tests want the programs
//! only, and port 80 or 22 may be in use. So a policy file refuses every start while packages are installed, and the
//! services of packages that were new are disabled afterwards.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// Asked by Debian's maintainer scripts before they start a service; exit status 101 forbids it (invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Tells our policy file from one of the administrator.
const MARK: &str = "# Written by `cargo xtask setup` of rpxy-l4.";
const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];

/// The units that packages enable.
const SERVICES: [(&str, &[&str]); 7] = [
    ("fail2ban", &["fail2ban.service"]),
    ("haproxy", &["haproxy.service"]),
    ("nginx", &["nginx.service"]),
    ("ngtcp2-server", &["ngtcp2d.service"]),
    ("openssh-server", &["ssh.service", "ssh.socket"]),
    ("prometheus", &["prometheus.service"]),
    ("sslh", &["sslh.service"]),
];

/// Tells whether this is Debian or one of its derivatives.
pub(super) fn is_available() -> bool {
    process::find("apt-get").is_some()
}

/// Installs those of `packages` that this system has; as root. All of them must be missing.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    println!("setup: installing {}", packages.join(" "));
    let held = ServicesHeld::new(Path::new(POLICY))?;
    // The lists may be old or absent. When one of several sources cannot be reached, the others often suffice.
    if let Err(error) = process::run(apt_get().arg("update")) {
        println!("setup: going on with the package lists that are there: {error:#}");
    }
    // One that this release of the system does not have would keep apt-get from installing the others.
    let (known, unknown): (Vec<&str>, Vec<&str>) = packages.iter().partition(|package| is_known(package));
    if !unknown.is_empty() {
        println!("setup: not packaged for this system: {}", unknown.join(" "));
    }
    if known.is_empty() {
        return Ok(());
    }
    let installed = process::run(apt_get().args(INSTALL).args(&known));
    disable_services(&known);
    drop(held);
    installed
}

fn is_known(package: &str) -> bool {
    process::read(Command::new("apt-cache").args(["show", "--no-all-versions", package])).is_ok()
}

/// The command for a user without root rights.
pub(super) fn sudo_command_line(packages: &[&str]) -> String {
    format!("sudo apt-get update && sudo apt-get {} {}", INSTALL.join(" "), packages.join(" "))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn disable_services(packages: &[&str]) {
    let Some(systemctl) = process::find("systemctl") else { return };
    for (package, units) in SERVICES {
        if !packages.contains(&package) {
            continue;
        }
        // An installation that failed half-way may not have brought the unit: then there is nothing to disable.
        for unit in units.iter().filter(|unit| Path::new("/lib/systemd/system").join(unit).exists()) {
            if let Err(error) = process::read(Command::new(&systemctl).args(["disable", unit])) {
                println!("setup: {unit} may start at the next boot: {error:#}");
            }
        }
    }
}

/// While this lives, no maintainer script starts a service. An administrator's own policy is left to decide.
#[derive(Debug)]
struct ServicesHeld {
    written: Option<PathBuf>,
}

impl ServicesHeld {
    fn new(policy: &Path) -> Result<Self> {
        if std::fs::read_to_string(policy).is_ok_and(|text| text.contains(MARK)) {
            // Left by a run that was killed.
            std::fs::remove_file(policy).with_context(|| format!("cannot remove {}", policy.display()))?;
        }
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(policy);
        let mut file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(Self { written: None }),
            Err(error) => return Err(error).with_context(|| format!("cannot create {}", policy.display())),
        };
        let held = Self { written: Some(policy.to_owned()) };
        file.write_all(policy_script(std::process::id()).as_bytes())
            .with_context(|| format!("cannot write {}", policy.display()))?;
        Ok(held)
    }
}

impl Drop for ServicesHeld {
    fn drop(&mut self) {
        if let Some(path) = &self.written
            && let Err(error) = std::fs::remove_file(path)
        {
            println!("setup: remove {} by hand: {error}", path.display());
        }
    }
}

/// Refuses only while the process that wrote it lives, so that a file left behind by a kill does no harm.
fn policy_script(writer: u32) -> String {
    format!("#!/bin/sh\n{MARK}\n[ -d /proc/{writer} ] && exit 101\nexit 0\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(policy: &Path) -> Option<i32> {
        Command::new("sh").arg(policy).status().unwrap().code()
    }

    #[test]
    fn services_are_refused_while_held_and_the_policy_is_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        let held = ServicesHeld::new(&policy).unwrap();
        assert_eq!(verdict(&policy), Some(101));
        drop(held);
        assert!(!policy.exists());
    }

    #[test]
    fn an_administrators_policy_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        std::fs::write(&policy, "#!/bin/sh\nexit 104\n").unwrap();
        drop(ServicesHeld::new(&policy).unwrap());
        assert_eq!(verdict(&policy), Some(104));
    }

    #[test]
    fn a_policy_left_by_a_killed_run_refuses_nothing_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        // No process has this identifier: it is over the kernel's limit of 2^22.
        std::fs::write(&policy, policy_script(u32::MAX)).unwrap();
        assert_eq!(verdict(&policy), Some(0));
        let held = ServicesHeld::new(&policy).unwrap();
        assert_eq!(verdict(&policy), Some(101));
        drop(held);
        assert!(!policy.exists());
    }

    #[test]
    fn the_remedy_of_a_user_is_a_whole_command_line() {
        assert_eq!(
            sudo_command_line(&["curl", "nginx"]),
            "sudo apt-get update && sudo apt-get install --yes --no-install-recommends curl nginx"
        );
    }
}
