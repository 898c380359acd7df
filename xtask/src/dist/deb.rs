//! The Debian package, by dpkg-deb.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Release;
use super::tree::{self, DOCUMENTS, Tree};
use crate::process;
use crate::workspace::Workspace;

/// Revision of the package.
const REVISION: &str = "1";
/// What dpkg runs.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// Packs `tree` with what Debian wants beside, and returns the name of the file.
pub(super) fn pack(workspace: &Workspace, release: &Release, tree: &Tree) -> Result<String> {
    let root = tree.duplicate(&release.fresh("deb")?)?;
    let version = format!("{}-{REVISION}", release.version);
    add_documents(workspace, release, &root, &version)?;

    let control = root.root.join("DEBIAN");
    fs::create_dir(&control)?;
    let from = workspace.path("packaging/deb");
    root.copy(&from.join("conffiles"), "DEBIAN/conffiles", 0o644)?;
    for script in SCRIPTS {
        root.copy(&from.join(script), &format!("DEBIAN/{script}"), 0o755)?;
    }
    let template = fs::read_to_string(from.join("control")).context("packaging/deb/control")?;
    let filled = template
        .replace("@VERSION@", &version)
        .replace("@MAINTAINER@", &release.maintainer)
        .replace("@ARCHITECTURE@", release.debian_architecture())
        .replace("@SIZE@", &size(&root.root)?.to_string())
        .replace("@DEPENDS@", &dependencies(release, &root.root)?);
    root.write("DEBIAN/control", &filled)?;
    root.write("DEBIAN/md5sums", &sums(&root.root)?)?;
    release.epoch.stamp(&root.root)?;

    let name = format!("rpxy-l4_{version}_{}.deb", release.debian_architecture());
    let mut pack = release.packer("dpkg-deb");
    pack.args(["--root-owner-group", "--threads-max=1", "-Zxz", "--build"]);
    process::run(pack.arg(&root.root).arg(release.out.join(&name)))?;
    Ok(name)
}

fn add_documents(workspace: &Workspace, release: &Release, root: &Tree, version: &str) -> Result<()> {
    let licence = fs::read_to_string(workspace.path("LICENSE"))?;
    // The first lines are those of the paragraph above.
    let (_, grant) = licence.split_once("Permission is").context("LICENSE is not that of MIT")?;
    let grant = format!("Permission is{grant}");
    let lines = grant.lines().map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") });
    let template = fs::read_to_string(workspace.path("packaging/deb/copyright"))?;
    let copyright = template.replace("@LICENSE@", &lines.collect::<Vec<_>>().join("\n"));
    root.write(&format!("{DOCUMENTS}/copyright"), &copyright)?;
    fs::remove_file(root.root.join(DOCUMENTS).join("LICENSE"))?;
    let date = release.epoch.format("%a, %d %b %Y %H:%M:%S +0000")?;
    let changelog = format!(
        "rpxy-l4 ({version}) unstable; urgency=medium\n\n  * Release {}; see changelog.gz.\n\n -- {}  {date}\n",
        release.version, release.maintainer
    );
    let place = format!("{DOCUMENTS}/changelog.Debian");
    root.write(&place, &changelog)?;
    tree::compress(release, &root.root.join(place))?;
    root.copy(&workspace.path("packaging/deb/lintian-overrides"), "usr/share/lintian/overrides/rpxy-l4", 0o644)?;
    Ok(())
}

/// The packages of the libraries that the program is linked with, with the versions that it needs.
fn dependencies(release: &Release, root: &Path) -> Result<String> {
    let directory = release.fresh("shlibdeps")?;
    // dpkg-shlibdeps wants to be in a source package.
    fs::create_dir(directory.join("debian"))?;
    fs::write(directory.join("debian/control"), "Source: rpxy-l4\n\nPackage: rpxy-l4\nArchitecture: any\n")?;
    let mut ask = release.packer("dpkg-shlibdeps");
    let architecture = release.debian_architecture();
    ask.current_dir(&directory).env("DEB_HOST_ARCH", architecture).arg("-O");
    if !release.is_native() {
        // The libraries of the cross compiler, whose packages have other names here.
        ask.arg(format!("-l/usr/{}-linux-gnu/lib", release.machine()));
    }
    ask.arg("-e").arg(fs::canonicalize(root)?.join("usr/bin/rpxy-l4"));
    let said = process::read(&mut ask)?;
    fs::remove_dir_all(&directory)?;
    let line = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    let line = line.context("dpkg-shlibdeps found no library")?;
    Ok(line.replace(&format!(":{architecture}"), "").replace(&format!("-{architecture}-cross"), ""))
}

/// In KiB, as Debian's policy counts (section 5.6.20): files to the next KiB, and one for everything else.
fn size(directory: &Path) -> Result<u64> {
    let mut sum = 1;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { size(&entry.path())? } else { metadata.len().div_ceil(1024) };
    }
    Ok(sum)
}

fn sums(root: &Path) -> Result<String> {
    let script = "find . -path ./DEBIAN -prune -o -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 md5sum";
    process::read(Command::new("sh").current_dir(root).args(["-e", "-c", script]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_up() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/b"), [0; 1025]).unwrap();
        assert_eq!(size(directory.path()).unwrap(), 4);
        assert!(sums(directory.path()).unwrap().ends_with("  a/b\n"));
    }

    #[test]
    fn scripts_are_valid_shell() {
        for name in SCRIPTS {
            let script = format!("{}/../packaging/deb/{name}", env!("CARGO_MANIFEST_DIR"));
            process::read(Command::new("sh").args(["-n", &script])).unwrap();
        }
    }
}
