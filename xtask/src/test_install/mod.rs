//! `cargo xtask test-install`: the products of `dist` as their users meet them. The Debian package is installed in a clean
//! Debian, started as its unit does, upgraded from an older one, removed and purged; the container image runs without a
//! right.
//!
//! Not a part of `test`: it takes packages from Debian, minutes, and root. There is no systemd in that root, so that what
//! maintainer scripts ask of it is not tested here; the units are, by `systemd-analyze verify`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::dist;
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// The Debian that packages are for.
const SUITE: &str = "bookworm";
/// What is in it beside the least: what the package depends on, and what reads its files.
const INCLUDED: &str = "--include=adduser,libgcc-s1,logrotate";
/// Version of the package to upgrade from.
const OLDER: &str = "0.2.99";

/// Arguments of `cargo xtask test-install`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory that `dist` wrote [default: target/packages]
    #[arg(long, value_name = "DIRECTORY")]
    packages: Option<PathBuf>,
}

/// Tests what is there.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::require(workspace, &[Purpose::Install])?;
    if !process::is_root() {
        bail!("needs root: sudo -E env PATH=\"$PATH\" cargo xtask test-install");
    }
    let packages = arguments.packages.clone().unwrap_or_else(|| workspace.scratch("packages"));
    let newer = package(&packages).context("run `cargo xtask dist` first")?;
    let directory = workspace.scratch("test-install");
    fs::create_dir_all(&directory)?;

    println!("==> lintian");
    let mut lintian = Command::new("lintian");
    process::run(lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]).arg(&newer))?;

    println!("==> an older package of the same program");
    let older = directory.join("older");
    dist::of_version(workspace, &packages.join("root/usr/bin/rpxy-l4"), OLDER, &older)?;

    println!("==> install, start, upgrade, purge");
    let root = debian(&directory)?;
    fs::copy(package(&older)?, root.join("tmp/older.deb"))?;
    fs::copy(&newer, root.join("tmp/newer.deb"))?;
    fs::write(root.join("tmp/test.sh"), include_str!("package.sh"))?;
    let script = "ip link set lo up && exec chroot \"$0\" /bin/bash /tmp/test.sh";
    process::run(
        isolated().arg(format!("--mount-proc={}", root.join("proc").display())).args(["sh", "-c", script]).arg(&root),
    )?;

    println!("==> units");
    units(&packages.join("root"))?;

    println!("==> container image");
    let script = directory.join("image.sh");
    fs::write(&script, include_str!("image.sh"))?;
    process::run(isolated().arg("--mount-proc").arg("bash").arg(&script).arg(packages.join("image")))?;
    println!("test-install: passed");
    Ok(())
}

/// The Debian package in `directory`.
fn package(directory: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut packages: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    packages.sort();
    packages.pop().with_context(|| format!("there is no package in {}", directory.display()))
}

/// A clean Debian. Fetched once, and unpacked for each run.
fn debian(directory: &Path) -> Result<PathBuf> {
    let archive = directory.join(format!("{SUITE}.tar"));
    if !archive.exists() {
        let part = directory.join("part.tar");
        let mut fetch = Command::new("mmdebstrap");
        // apt is not to become a user who may not read a developer's directories.
        fetch.args(["--aptopt=APT::Sandbox::User \"root\"", "--variant=minbase", INCLUDED, SUITE]).arg(&part);
        process::run(&mut fetch)?;
        fs::rename(part, &archive)?;
    }
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir(&root)?;
    process::run(Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&root))?;
    Ok(root)
}

/// A command in namespaces of its own, which ends with all that it started.
fn isolated() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
    command
}

/// Has systemd read the units of the package, where there is a systemd.
fn units(root: &Path) -> Result<()> {
    if process::find("systemd-analyze").is_none() {
        println!("left out: systemd-analyze is not installed");
        return Ok(());
    }
    let directory = root.join("usr/lib/systemd/system");
    // The instance has a name only where it is asked for.
    for unit in ["rpxy-l4.service", "rpxy-l4@web.service"] {
        let mut verify = Command::new("systemd-analyze");
        verify.env("SYSTEMD_UNIT_PATH", format!("{}:", directory.display()));
        let output = verify.args(["verify", "--man=no", unit]).output().context("systemd-analyze")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Other units of this machine are not our business, and the program is not installed here.
        let ours = |line: &&str| line.contains("rpxy-l4") && !line.contains("is not executable");
        let complaints: Vec<&str> = said.lines().filter(ours).collect();
        if !complaints.is_empty() {
            bail!("{unit}: {}", complaints.join("\n"));
        }
        println!("{unit}: nothing to complain about");
    }
    Ok(())
}
