//! The root of the container image: the program, the libraries that it was linked with, and who it runs as.
//!
//! Taken from this machine, so that no registry is asked; the packages that the libraries come from are noted where scanners
//! look for them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Release;
use super::tree::{DOCUMENTS, Tree};
use crate::process;
use crate::workspace::Workspace;

/// Where the daemon finds its files in a container; see `rpxy-l4 container`.
const DIRECTORIES: [(&str, u32); 8] = [
    ("etc/rpxy-l4", 0o755),
    ("rpxy-l4/config", 0o755),
    // Whoever the container is run as may write there.
    ("rpxy-l4/log", 0o1777),
    ("run/rpxy-l4", 0o1777),
    ("tmp", 0o1777),
    // Where runtimes mount, also on a root that they cannot write to.
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
];

/// Lays out the image, packs its layer, and returns the name of that file.
pub(super) fn pack(workspace: &Workspace, release: &Release, tree: &Tree) -> Result<String> {
    let image = Tree { root: release.fresh("image")? };
    let program = tree.root.join("usr/bin/rpxy-l4");
    image.copy(&program, "usr/bin/rpxy-l4", 0o755)?;
    for name in ["passwd", "group", "nsswitch.conf"] {
        image.copy(&workspace.path(format!("packaging/image/{name}")), &format!("etc/{name}"), 0o644)?;
    }
    for name in ["LICENSE", "third-party.txt.gz", "sbom.cdx.json.gz"] {
        let path = format!("{DOCUMENTS}/{name}");
        image.copy(&tree.root.join(&path), &path, 0o644)?;
    }
    let libraries = libraries(&program)?;
    for library in &libraries {
        let to = library.strip_prefix("/").unwrap_or(library).display().to_string();
        image.copy(library, &to, 0o755)?;
    }
    for package in owners(&libraries)? {
        let status = process::read(Command::new("dpkg-query").args(["--status", &package]))?;
        image.write(&format!("var/lib/dpkg/status.d/{package}"), &status)?;
        let copyright = format!("usr/share/doc/{package}/copyright");
        image.copy(&fs::canonicalize(Path::new("/").join(&copyright))?, &copyright, 0o644)?;
    }
    for (path, mode) in DIRECTORIES {
        image.make_directory(path)?;
        fs::set_permissions(image.root.join(path), fs::Permissions::from_mode(mode))?;
    }
    release.epoch.stamp(&image.root)?;

    let name = format!("rpxy-l4-{}-{}-image.tar.zst", release.version, release.machine());
    let mut tar = release.packer("tar");
    tar.args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--use-compress-program", "zstd -19 --threads=1", "--file"]).arg(release.out.join(&name));
    process::run(tar.arg("--directory").arg(&image.root).arg("."))?;
    Ok(name)
}

/// The libraries of `program` and its loader, by the paths under which the loader looks for them.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let said = process::read(Command::new("ldd").arg(program))?;
    let paths = said.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        path.split(" (").next().filter(|path| path.starts_with('/'))
    });
    Ok(paths.map(PathBuf::from).collect())
}

/// The packages that `files` belong to.
fn owners(files: &BTreeSet<PathBuf>) -> Result<BTreeSet<String>> {
    let owner = |file: &PathBuf| {
        // The packager may have another idea of /lib than the file system.
        let real = fs::canonicalize(file)?;
        let spelled = [file.clone(), real.clone(), PathBuf::from("/usr").join(file.strip_prefix("/").unwrap_or(file))];
        let shorter = real.strip_prefix("/usr").ok().map(|path| Path::new("/").join(path));
        let said = spelled
            .into_iter()
            .chain(shorter)
            .find_map(|path| process::read(Command::new("dpkg-query").arg("--search").arg(path)).ok());
        let said = said.with_context(|| format!("{} belongs to no package", file.display()))?;
        said.split(':').next().map(str::to_owned).context("dpkg-query said nothing")
    };
    files.iter().map(owner).collect()
}
