//! `cargo xtask test-install`: the products of `dist` as their users meet them. The Debian package is installed in a clean
//! Debian, started, upgraded from an older one and from 0.2.x, removed and purged: once without systemd, and once under one
//! that has booted the same Debian in QEMU, where it is the service. The rpm is installed, upgraded and erased there, too, for
//! want of a distribution that is its own. The container image runs without a right.
//!
//! Not a part of `test`: it takes packages from Debian, minutes, and root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::dist;
use crate::guest::{self, Guest};
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// The Debian that packages are for.
const SUITE: &str = "bookworm";
/// What is in it beside the least: what the package depends on, and what reads its files.
const INCLUDED: &str = "--include=adduser,iproute2,kmod,libgcc-s1,logrotate,systemd-sysv";
/// What a guest has no use for, and not the room.
const NOT_IN_GUEST: [&str; 5] =
    ["usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt/archives", "var/lib/apt/lists"];
/// Modules of the guest's kernel that its tests need.
const MODULES: [&str; 1] = ["kernel/drivers/net/veth.ko"];
/// The guest's last words, before the exit status of the tests.
const VERDICT: &str = "rpxy-l4 package tests: ";
/// What its tests are started by.
const GUEST_UNIT: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/bash /root/test.sh\n";
/// Version of the package to upgrade from.
const OLDER: &str = "0.2.99";

/// Arguments of `cargo xtask test-install`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory that `dist` wrote [default: target/packages]
    #[arg(long, value_name = "DIRECTORY")]
    packages: Option<PathBuf>,

    /// The kernel of the guest (vmlinuz), for x86-64; without it Debian's is fetched.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

/// Tests what is there.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::require(workspace, &[Purpose::Kernel, Purpose::Install])?;
    if !process::is_root() {
        bail!("needs root: sudo -E env PATH=\"$PATH\" cargo xtask test-install");
    }
    let packages = arguments.packages.clone().unwrap_or_else(|| workspace.scratch("packages"));
    let newer = package(&packages, "deb").context("run `cargo xtask dist` first")?;
    let directory = workspace.scratch("test-install");
    fs::create_dir_all(&directory)?;

    println!("==> lintian");
    let mut lintian = Command::new("lintian");
    process::run(lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]).arg(&newer))?;

    println!("==> an older package of the same program");
    let older = directory.join("older");
    dist::of_version(workspace, &packages.join("root/usr/bin/rpxy-l4"), OLDER, &older)?;

    let scripts = |name: &str| format!("{}\n{name}", include_str!("common.sh"));
    let older = package(&directory.join("older"), "deb")?;
    println!("==> install, start, upgrade, purge");
    let root = debian(&directory)?;
    fs::copy(&older, root.join("tmp/older.deb"))?;
    fs::copy(&newer, root.join("tmp/newer.deb"))?;
    fs::write(root.join("tmp/test.sh"), scripts(include_str!("package.sh")))?;
    run_in(&root)?;

    println!("==> rpm");
    let root = debian(&directory)?;
    let script = directory.join("rpm.sh");
    fs::write(&script, scripts(include_str!("rpm.sh")))?;
    let rpms = [package(&directory.join("older"), "rpm")?, package(&packages, "rpm")?];
    process::run(isolated().arg("--mount-proc").arg("bash").arg(&script).arg(&root).args(&rpms))?;

    println!("==> under systemd");
    let root = debian(&directory)?;
    fs::copy(&older, root.join("root/older.deb"))?;
    fs::copy(&newer, root.join("root/newer.deb"))?;
    fs::write(root.join("root/test.sh"), scripts(include_str!("guest.sh")))?;
    under_systemd(&directory, &root, arguments.kernel.as_deref())?;

    println!("==> units");
    units(&packages.join("root"))?;

    println!("==> container image");
    let script = directory.join("image.sh");
    fs::write(&script, scripts(include_str!("image.sh")))?;
    process::run(isolated().arg("--mount-proc").arg("bash").arg(&script).arg(packages.join("image")))?;
    fs::remove_dir_all(&root)?;
    println!("test-install: passed");
    Ok(())
}

/// Runs `tmp/test.sh` in `root`, in namespaces of its own.
fn run_in(root: &Path) -> Result<()> {
    let script = "ip link set lo up && exec chroot \"$0\" /bin/bash /tmp/test.sh";
    let proc = format!("--mount-proc={}", root.join("proc").display());
    process::run(isolated().arg(proc).args(["sh", "-c", script]).arg(root))
}

/// Boots `root` under QEMU and has systemd run `root/test.sh` in it.
fn under_systemd(directory: &Path, root: &Path, kernel: Option<&Path>) -> Result<()> {
    let kernel = guest::kernel(kernel, directory)?;
    for heavy in NOT_IN_GUEST {
        fs::remove_dir_all(root.join(heavy)).with_context(|| format!("cannot remove {heavy}"))?;
        fs::create_dir(root.join(heavy))?;
    }
    let units = root.join("etc/systemd/system");
    fs::write(units.join("tests.service"), GUEST_UNIT)?;
    symlink("/etc/systemd/system/tests.service", units.join("multi-user.target.wants/tests.service"))?;
    // It would wait for a device that no udev tells of.
    symlink("/dev/null", units.join("serial-getty@ttyS0.service"))?;
    symlink("/sbin/init", root.join("init"))?;
    // Beside the kernel, where it comes from a package.
    let version = kernel.file_name().unwrap_or_default().to_string_lossy().replace("vmlinuz-", "");
    let modules = kernel.parent().and_then(Path::parent).map(|top| top.join("lib/modules").join(version));
    for module in modules.iter().flat_map(|modules| MODULES.map(|name| modules.join(name))) {
        match module.file_name().filter(|_| module.exists()) {
            Some(name) => drop(fs::copy(&module, root.join("root").join(name))?),
            None => println!("left out: there is no {}", module.display()),
        }
    }
    let image = directory.join("initramfs");
    guest::pack(root, &image)?;
    Guest { kernel: &kernel, image: &image, memory: "2G", parameters: "systemd.show_status=0", verdict: VERDICT }.run()
}

/// The package in `directory` whose name has this end.
fn package(directory: &Path, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut packages: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|is| is == end)).collect();
    packages.sort();
    packages.pop().with_context(|| format!("there is no {end} in {}", directory.display()))
}

/// A clean Debian. Fetched once, and unpacked for each run.
fn debian(directory: &Path) -> Result<PathBuf> {
    let archive = directory.join(format!("{SUITE}-booted.tar"));
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
