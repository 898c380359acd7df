//! The package for rpm, by rpmbuild.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Release;
use super::tree::{DOCUMENTS, Tree};
use crate::process;
use crate::workspace::Workspace;

/// Packs `tree`, and returns the name of the file.
pub(super) fn pack(workspace: &Workspace, release: &Release, tree: &Tree) -> Result<String> {
    let directory = release.fresh("rpm")?;
    let root = directory.join("root");
    fs::create_dir(&root)?;
    let root = tree.duplicate(&root)?;
    // Where zsh looks on these systems.
    root.make_directory("usr/share/zsh/site-functions")?;
    fs::rename(
        root.root.join("usr/share/zsh/vendor-completions/_rpxy-l4"),
        root.root.join("usr/share/zsh/site-functions/_rpxy-l4"),
    )?;
    fs::remove_dir(root.root.join("usr/share/zsh/vendor-completions"))?;
    release.epoch.stamp(&root.root)?;

    let template = fs::read_to_string(workspace.path("packaging/rpm/rpxy-l4.spec"))?;
    let spec = template
        .replace("@VERSION@", &release.version)
        .replace("@ARCHITECTURE@", release.machine())
        .replace("@TREE@", &root.root.display().to_string())
        .replace("@FILES@", &files(&root.root)?.join("\n"));
    let file = directory.join("rpxy-l4.spec");
    fs::write(&file, spec)?;

    let name = format!("rpxy-l4-{}-1.{}.rpm", release.version, release.machine());
    let mut build = release.packer("rpmbuild");
    build.args(["-bb", "--target", release.machine(), "--define"]).arg(format!("_topdir {}", directory.display()));
    for define in [
        format!("_rpmdir {}", release.out.display()),
        format!("_rpmfilename {name}"),
        "_buildhost reproducible".to_owned(),
        "use_source_date_epoch_as_buildtime 1".to_owned(),
        "clamp_mtime_to_source_date_epoch 1".to_owned(),
        // In one thread, and as old systems read it.
        "_binary_payload w19.zstdio".to_owned(),
    ] {
        build.args(["--define", &define]);
    }
    process::run(build.arg(&file))?;
    Ok(name)
}

/// The entries of `%files`: every file, and the directories that are the package's own.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut entries = Vec::new();
    list(root, root, &mut entries)?;
    entries.sort();
    Ok(entries)
}

fn list(root: &Path, directory: &Path, entries: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.strip_prefix(root).context("a file outside of the tree")?.display().to_string();
        if path.is_dir() {
            match name.as_str() {
                "etc/rpxy-l4" => entries.push(format!("%attr(0750,root,rpxy-l4) %dir /{name}")),
                DOCUMENTS => entries.push(format!("%dir /{name}")),
                _ if name.starts_with(DOCUMENTS) => entries.push(format!("%dir /{name}")),
                _ => {}
            }
            list(root, &path, entries)?;
        } else if name.starts_with("etc/") {
            entries.push(format!("%config(noreplace) /{name}"));
        } else if name.starts_with(DOCUMENTS) {
            entries.push(format!("%doc /{name}"));
        } else {
            entries.push(format!("/{name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configuration_and_what_is_a_document_is_told() {
        let root = tempfile::tempdir().unwrap();
        for file in ["etc/logrotate.d/rpxy-l4", "usr/bin/rpxy-l4", "usr/share/doc/rpxy-l4/a/b"] {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), "").unwrap();
        }
        fs::create_dir_all(root.path().join("etc/rpxy-l4")).unwrap();
        let expected = [
            "%attr(0750,root,rpxy-l4) %dir /etc/rpxy-l4",
            "%config(noreplace) /etc/logrotate.d/rpxy-l4",
            "%dir /usr/share/doc/rpxy-l4",
            "%dir /usr/share/doc/rpxy-l4/a",
            "%doc /usr/share/doc/rpxy-l4/a/b",
            "/usr/bin/rpxy-l4",
        ];
        assert_eq!(files(root.path()).unwrap(), expected);
    }
}
