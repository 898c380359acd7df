//! A machine under QEMU, which emulates every instruction: it needs neither privileges nor hardware. Its kernel is Debian's for
//! cloud machines, or another one; all of its files are in its memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Depends on the current kernel of its release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// Seconds after which a guest that has not ended is killed.
const TIME_LIMIT: &str = "600";

/// A guest, and how it says how it went.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    /// Its kernel (vmlinuz).
    pub(crate) kernel: &'a Path,
    /// Its files, as of [`pack`].
    pub(crate) image: &'a Path,
    /// Its memory, as QEMU wants it.
    pub(crate) memory: &'a str,
    /// Parameters of its kernel.
    pub(crate) parameters: &'a str,
    /// Beginning of its last line on the console; the exit status follows.
    pub(crate) verdict: &'a str,
}

impl Guest<'_> {
    /// Starts it, and shows its console when it has ended.
    pub(crate) fn run(&self) -> Result<()> {
        let mut qemu = Command::new("timeout");
        qemu.args([TIME_LIMIT, "qemu-system-x86_64", "-accel", "tcg", "-m", self.memory, "-smp", "2"]);
        // Without the timer check: under emulation on a busy machine, the kernel would wait in vain for its ticks and panic.
        let parameters = format!("console=ttyS0 quiet panic=-1 no_timer_check {}", self.parameters);
        qemu.args(["-nographic", "-no-reboot", "-nic", "none", "-kernel"]).arg(self.kernel);
        qemu.arg("-initrd").arg(self.image).args(["-append", parameters.trim_end()]);
        println!("$ {}", process::display(&qemu));
        let output = qemu.stdin(Stdio::null()).output().context("QEMU")?;
        let console = String::from_utf8_lossy(&output.stdout);
        println!("{}", console.replace('\r', "").trim_end());
        match console.lines().find_map(|line| line.trim().strip_prefix(self.verdict)) {
            Some("0") => Ok(()),
            Some(status) => bail!("it failed in the guest: exit status {status}"),
            None => bail!("the guest ended without a verdict: {}", output.status),
        }
    }
}

/// Packs `root` as the files of a guest.
pub(crate) fn pack(root: &Path, image: &Path) -> Result<()> {
    let pack = "find . | busybox cpio -o -H newc > \"$1\"";
    process::run(Command::new("sh").args(["-c", pack, "sh"]).arg(image).current_dir(root))
}

/// The kernel that is asked for, or that of Debian's package.
pub(crate) fn kernel(asked: Option<&Path>, directory: &Path) -> Result<PathBuf> {
    match asked {
        Some(kernel) if kernel.is_file() => Ok(kernel.to_owned()),
        Some(kernel) => bail!("{}: no such file", kernel.display()),
        None => packaged(directory),
    }
}

/// The kernel of the package, which is fetched when it is not there yet.
fn packaged(directory: &Path) -> Result<PathBuf> {
    let ask = || process::read(Command::new("apt-cache").args(["depends", META_PACKAGE])).unwrap_or_default();
    let mut depends = ask();
    if kernel_package(&depends).is_none() && process::is_root() {
        process::run(Command::new("apt-get").arg("update"))?;
        depends = ask();
    }
    let package = kernel_package(&depends).with_context(|| {
        format!("{META_PACKAGE} is not in the lists of packages: run `apt-get update` first (as root)")
    })?;
    let version = package.trim_start_matches("linux-image-");
    let unpacked = directory.join(package);
    let kernel = unpacked.join("boot").join(format!("vmlinuz-{version}"));
    if !kernel.exists() {
        process::run(Command::new("apt-get").args(["download", package]).current_dir(directory))?;
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        };
        let archive = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).find(is_ours);
        let archive = archive.context("apt-get has downloaded nothing")?;
        process::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&unpacked))?;
        fs::remove_file(archive)?;
    }
    Ok(kernel)
}

/// The package that `apt-cache depends` names.
fn kernel_package(depends: &str) -> Option<&str> {
    depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| name.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_one_that_the_meta_package_depends_on() {
        let rows = [
            (
                "Debian 12",
                "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n",
                Some("linux-image-6.1.0-56-cloud-amd64"),
            ),
            ("no lists", "", None),
            ("something else first", "linux-image-cloud-amd64\n  Depends: kmod\n", None),
        ];
        for (name, depends, expected) in rows {
            assert_eq!(kernel_package(depends), expected, "{name}");
        }
    }
}
