//! `cargo xtask test-kernel`: loads the eBPF programs into another kernel than this machine's, and tests them there.
//!
//! It takes about a minute ([`guest`]). The only files are the program tests, what they load and read, and
//! busybox. The package of the kernel is unpacked, not installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::guest::{self, Guest};
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// The guest's last words, before the exit status of the tests.
const VERDICT: &str = "rpxy-l4 program tests: ";
/// The tests read the corpus of this fuzz target.
const CORPUS: &str = "fuzz/corpus/packet";

#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// The kernel to start (vmlinuz), for x86-64, with what it needs built in; without it Debian's is fetched.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

/// Builds what is needed and runs it in the guest.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::require(workspace, &[Purpose::Build, Purpose::Kernel])?;
    if !workspace.ebpf_object().exists() {
        bail!("there are no eBPF programs to test: run `cargo xtask build-ebpf` first");
    }
    if !workspace.ebpf_log_object().exists() {
        bail!("there are no eBPF programs that log to test: run `cargo xtask build-ebpf --log` first");
    }
    let directory = workspace.scratch("test-kernel");
    fs::create_dir_all(&directory)?;
    let kernel = guest::kernel(arguments.kernel.as_deref(), &directory)?;
    let image = initramfs(workspace, &directory, &tests(workspace)?)?;
    Guest { kernel: &kernel, image: &image, memory: "1G", parameters: "", verdict: VERDICT }.run()
}

/// Builds the program tests.
fn tests(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    // Of the whole workspace: a package by itself has other features of shared dependencies, which would be built again.
    cargo.args(["test", "--locked", "--workspace", "--test", "prog", "--no-run"]);
    cargo.args(["--message-format", "json"]).stderr(Stdio::inherit());
    println!("$ {}", process::display(&cargo));
    let output = cargo.output().context("cargo")?;
    if !output.status.success() {
        bail!("cargo: {}", output.status);
    }
    let messages = String::from_utf8(output.stdout)?;
    executable(&messages).context("cargo does not tell where the program tests are")
}

/// The program that cargo's messages name for the target `prog`.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == "prog");
    programs.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// The files of the guest, packed.
fn initramfs(workspace: &Workspace, directory: &Path, tests: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let init = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mount -t proc proc /proc\n\
         /bin/busybox mount -t sysfs sys /sys\n\
         /bin/busybox mount -t devtmpfs dev /dev\n\
         echo \"Linux $(/bin/busybox uname -r)\"\n\
         export RPXY_L4_TESTS_OBJECT=/rpxy-l4.o RPXY_L4_TESTS_LOG_OBJECT=/rpxy-l4-log.o\n\
         RPXY_L4_TESTS_REQUIRED=1 /prog\n\
         echo \"{VERDICT}$?\"\n\
         /bin/busybox poweroff -f\n"
    );
    for empty in ["proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(empty))?;
    }
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let busybox = process::find("busybox").context("busybox")?;
    copy(&busybox, &root, Path::new("bin/busybox"))?;
    copy(&workspace.ebpf_object(), &root, Path::new("rpxy-l4.o"))?;
    copy(&workspace.ebpf_log_object(), &root, Path::new("rpxy-l4-log.o"))?;
    // Without what a debugger wants it is a tenth.
    process::run(Command::new("strip").arg("-o").arg(root.join("prog")).arg(tests))?;
    // It fails for a busybox that needs none.
    let of_busybox = process::read(Command::new("ldd").arg(&busybox)).unwrap_or_default();
    let of_tests = process::read(Command::new("ldd").arg(tests))?;
    for library in libraries(&of_tests).chain(libraries(&of_busybox)) {
        copy(Path::new(library), &root, Path::new(library.trim_start_matches('/')))?;
    }
    // Where the tests look for it: beside the folder that they were built in.
    let below = |path: PathBuf| path.strip_prefix("/").map(Path::to_owned).context("a relative workspace");
    fs::create_dir_all(root.join(below(workspace.path("tests"))?))?;
    for entry in fs::read_dir(workspace.path(CORPUS))? {
        let path = entry?.path();
        copy(&path, &root, &below(path.clone())?)?;
    }
    let image = directory.join("initramfs");
    guest::pack(&root, &image)?;
    Ok(image)
}

/// Absolute paths in what `ldd` prints.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.split_ascii_whitespace().filter(|word| word.starts_with('/'))
}

fn copy(from: &Path, root: &Path, to: &Path) -> Result<()> {
    let to = root.join(to);
    fs::create_dir_all(to.parent().context("no folder")?)?;
    fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_absolute_paths() {
        let ldd =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(libraries(ldd).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn the_tests_are_where_cargo_says() {
        let messages = "{\"target\":{\"name\":\"lib\"},\"executable\":null}\n\
                        {\"target\":{\"name\":\"prog\"},\"executable\":\"/t/prog-1\"}\nnoise\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/prog-1")));
    }
}
