//! The tar archive, for systems without a package.

use anyhow::Result;

use super::{Release, tree::Tree};
use crate::process;

/// Packs `tree` below a directory with name and version, and returns the name of the file.
pub(super) fn pack(release: &Release, tree: &Tree) -> Result<String> {
    let base = format!("rpxy-l4-{}-{}", release.version, release.machine());
    let name = format!("{base}.tar.zst");
    let mut tar = release.packer("tar");
    tar.args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args([
        &format!("--mtime=@{}", release.epoch),
        &format!("--transform=s,^\\./,{base}/,"),
        "--exclude=./etc/rpxy-l4",
    ]);
    // One thread: the number of threads would change the file.
    tar.args(["--use-compress-program", "zstd -19 --threads=1", "--file"]).arg(release.out.join(&name));
    process::run(tar.arg("--directory").arg(&tree.root).arg("."))?;
    Ok(name)
}
