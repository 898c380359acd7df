//! The files that the rules look at: all that git tracks or would add, as text.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// All files of the repository.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Text files by their path from the root; inputs of the fuzz targets left out.
    pub(super) files: Vec<(String, String)>,
    /// Every path, and that of every folder.
    pub(super) paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the repository at `root`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut git = Command::new("git");
        git.current_dir(root);
        // A hook's environment names a repository, which git prefers to the current directory.
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(variable);
        }
        // A container often runs as another user than the one who cloned, which git refuses without this setting.
        git.arg("-c").arg(format!("safe.directory={}", root.display()));
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let mut tree = Self::default();
        for path in process::read(&mut git)?.split_terminator('\0') {
            let full = root.join(path);
            // Listed but deleted in the working tree, or a symbolic link.
            if !full.is_file() || full.is_symlink() {
                continue;
            }
            let bytes = std::fs::read(&full).with_context(|| format!("cannot read {path}"))?;
            tree.add(path, String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')));
        }
        Ok(tree)
    }

    /// Returns the text of one file, empty if there is none.
    pub(super) fn text(&self, path: &str) -> &str {
        self.files.iter().find(|(name, _)| name == path).map_or("", |(_, text)| text)
    }

    fn add(&mut self, path: &str, text: Option<String>) {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        self.paths.extend(ends.map(|end| path[..end].to_owned()));
        if let Some(text) = text.filter(|_| !path.starts_with("fuzz/corpus/")) {
            self.files.push((path.to_owned(), text));
        }
    }

    #[cfg(test)]
    pub(super) fn of(files: Files<'_>) -> Self {
        let mut tree = Self::default();
        files.iter().for_each(|(path, text)| tree.add(path, Some((*text).to_owned())));
        tree
    }
}

/// Paths and texts of made-up files.
#[cfg(test)]
pub(super) type Files<'a> = &'a [(&'a str, &'a str)];
