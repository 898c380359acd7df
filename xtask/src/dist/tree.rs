//! The files of a package where they are installed, as all packages have them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Release, unit};
use crate::process;
use crate::workspace::Workspace;

/// Where documents go.
pub(super) const DOCUMENTS: &str = "usr/share/doc/rpxy-l4";
/// Where units go.
const UNITS: &str = "usr/lib/systemd/system";

/// From the repository, to where they are installed.
const FILES: [(&str, &str); 10] = [
    ("packaging/rpxy-l4.service", "usr/lib/systemd/system/rpxy-l4.service"),
    ("packaging/rpxy-l4.sysusers", "usr/lib/sysusers.d/rpxy-l4.conf"),
    ("packaging/rpxy-l4.logrotate", "etc/logrotate.d/rpxy-l4"),
    ("config.example.toml", "usr/share/doc/rpxy-l4/examples/config.toml"),
    ("packaging/prometheus/alerts.yml", "usr/share/doc/rpxy-l4/prometheus/alerts.yml"),
    ("packaging/grafana/rpxy-l4.json", "usr/share/doc/rpxy-l4/grafana/rpxy-l4.json"),
    ("packaging/fail2ban/action.d/rpxy-l4.conf", "usr/share/doc/rpxy-l4/fail2ban/action.d/rpxy-l4.conf"),
    ("packaging/fail2ban/filter.d/rpxy-l4.conf", "usr/share/doc/rpxy-l4/fail2ban/filter.d/rpxy-l4.conf"),
    ("packaging/fail2ban/jail.d/rpxy-l4.conf", "usr/share/doc/rpxy-l4/fail2ban/jail.d/rpxy-l4.conf"),
    ("LICENSE", "usr/share/doc/rpxy-l4/LICENSE"),
];

/// A directory with these files.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
}

impl Tree {
    /// Lays out `program`, the `pages` and everything else.
    pub(super) fn lay(workspace: &Workspace, release: &Release, program: &Path, pages: &Path) -> Result<Self> {
        let tree = Self { root: release.fresh("root")? };
        tree.copy(program, "usr/bin/rpxy-l4", 0o755)?;
        for (from, to) in FILES {
            tree.copy(&workspace.path(from), to, 0o644)?;
        }
        let service = fs::read_to_string(workspace.path("packaging/rpxy-l4.service"))?;
        tree.write(&format!("{UNITS}/rpxy-l4@.service"), &unit::instances(&service)?)?;
        for name in ["third-party.txt", "sbom.cdx.json"] {
            tree.copy(&release.out.join(name), &format!("{DOCUMENTS}/{name}"), 0o644)?;
            compress(release, &tree.root.join(DOCUMENTS).join(name))?;
        }
        tree.copy(&workspace.path("CHANGELOG.md"), &format!("{DOCUMENTS}/changelog"), 0o644)?;
        compress(release, &tree.root.join(DOCUMENTS).join("changelog"))?;
        tree.copy_pages(release, pages)?;
        tree.make_directory("etc/rpxy-l4")?;
        release.epoch.stamp(&tree.root)?;
        Ok(tree)
    }

    fn copy_pages(&self, release: &Release, pages: &Path) -> Result<()> {
        let manual = pages.join("man");
        for entry in fs::read_dir(&manual).with_context(|| format!("cannot list {}", manual.display()))? {
            let page = entry?.path();
            let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let section = name.rsplit('.').next().unwrap_or_default();
            let to = format!("usr/share/man/man{section}/{name}");
            self.copy(&page, &to, 0o644)?;
            compress(release, &self.root.join(to))?;
        }
        for (from, to) in [
            ("bash/rpxy-l4", "bash-completion/completions/rpxy-l4"),
            ("zsh/_rpxy-l4", "zsh/vendor-completions/_rpxy-l4"),
            ("fish/rpxy-l4.fish", "fish/vendor_completions.d/rpxy-l4.fish"),
        ] {
            self.copy(&pages.join(from), &format!("usr/share/{to}"), 0o644)?;
        }
        Ok(())
    }

    /// A copy of all of it at `to`, to be changed.
    pub(super) fn duplicate(&self, to: &Path) -> Result<Self> {
        process::read(Command::new("cp").arg("-a").arg(self.root.join(".")).arg(to))?;
        Ok(Self { root: to.to_owned() })
    }

    /// Copies the file `from` to `to` in the tree.
    pub(super) fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let path = self.place(to)?;
        fs::copy(from, &path).with_context(|| format!("cannot copy {} to {}", from.display(), path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
    }

    /// Writes `text` to `to` in the tree.
    pub(super) fn write(&self, to: &str, text: &str) -> Result<()> {
        let path = self.place(to)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?)
    }

    /// Makes a directory and those above it, whatever the umask.
    pub(super) fn make_directory(&self, path: &str) -> Result<()> {
        let mut at = self.root.clone();
        for part in Path::new(path) {
            at.push(part);
            if !at.exists() {
                fs::create_dir(&at).with_context(|| format!("cannot create {}", at.display()))?;
                fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    /// The path of `to`, whose directory is there.
    fn place(&self, to: &str) -> Result<PathBuf> {
        if let Some(directory) = Path::new(to).parent().and_then(Path::to_str) {
            self.make_directory(directory)?;
        }
        Ok(self.root.join(to))
    }
}

/// Compresses a file in place, without its name and time.
pub(super) fn compress(release: &Release, path: &Path) -> Result<()> {
    process::read(release.packer("gzip").args(["-9", "--no-name", "--force"]).arg(path)).map(drop)
}
