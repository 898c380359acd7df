//! The second build: of a copy of the sources elsewhere, with nothing taken from the first but the eBPF object, which is
//! checked by itself ([RELEASING.md](../../../RELEASING.md)).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Release;
use crate::process;
use crate::workspace::Workspace;

/// Builds again and compares; an error that names the files that differ.
pub(super) fn again(workspace: &Workspace, release: &Release, products: &[String]) -> Result<()> {
    let place = workspace.scratch("dist-verify");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let sources = place.join("elsewhere/sources");
    copy_sources(workspace, &sources)?;
    let out = place.join("packages");
    let mut cargo = process::cargo();
    cargo.current_dir(&sources).env("CARGO_TARGET_DIR", place.join("target"));
    cargo.env("SOURCE_DATE_EPOCH", release.epoch.to_string()).env("RPXY_L4_EBPF_OBJECT", workspace.ebpf_object());
    cargo.args(["run", "--quiet", "--locked", "--package", "xtask", "--", "dist", "--target", &release.target]);
    cargo.args(["--package-version", &release.version, "--maintainer", &release.maintainer, "--out"]).arg(&out);
    process::run(&mut cargo)?;
    let different: Vec<&String> =
        products.iter().filter(|name| !same(&release.out.join(name), &out.join(name)).unwrap_or(false)).collect();
    if !different.is_empty() {
        bail!(
            "the second build differs in {different:?}; the files are in {} and {}",
            release.out.display(),
            out.display()
        );
    }
    println!("dist: a second build in {} gave the same {} files", sources.display(), products.len());
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))
}

/// Copies what git knows of the working tree.
fn copy_sources(workspace: &Workspace, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let script = "git ls-files -z | xargs -0 cp --parents --no-dereference --target-directory \"$0\"";
    process::read(Command::new("sh").current_dir(&workspace.root).args(["-e", "-c", script]).arg(to)).map(drop)
}

fn same(one: &Path, other: &Path) -> Result<bool> {
    Ok(fs::read(one)? == fs::read(other)?)
}
