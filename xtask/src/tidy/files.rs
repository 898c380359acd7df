//! Which files the rules look at: all that git tracks or would add, as text.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// Inputs of tests and fuzz targets keep the bytes they need, wrong line ends included.
const DATA: [&str; 2] = ["fuzz/corpus/", "/proptest-regressions/"];

/// A text file of the repository.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Path from the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// All files of the repository.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Text files, data of tests left out.
    pub(super) files: Vec<SourceFile>,
    /// Every path, with all parent directories.
    pub(super) paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the repository at `root`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        // A container often runs as another user than the one who cloned, which git refuses without this setting.
        let trusted = format!("safe.directory={}", root.display());
        let mut list = git(root);
        list.args(["-c", &trusted, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let mut tree = Self::default();
        for path in process::read(&mut list)?.split_terminator('\0') {
            let full = root.join(path);
            // Listed but deleted in the working tree, or a symbolic link to somewhere else.
            if !full.is_file() || full.is_symlink() {
                continue;
            }
            tree.add_path(path);
            if DATA.iter().any(|data| path.contains(data)) {
                continue;
            }
            let bytes = std::fs::read(&full).with_context(|| format!("cannot read {path}"))?;
            if let Some(text) = text(bytes) {
                tree.files.push(SourceFile { path: path.to_owned(), text });
            }
        }
        Ok(tree)
    }

    /// The text of one file.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    fn add_path(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        self.paths.extend(ends.map(|end| path[..end].to_owned()));
    }
}

/// A git command on the repository at `root`, also when a hook of git started this process: a hook's environment names
/// a repository and an index, which git prefers to the current directory.
fn git(root: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(root);
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    command
}

/// None for a binary file.
fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
impl Tree {
    /// A tree of made-up files.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add_path(path);
            tree.files.push(SourceFile { path: (*path).to_owned(), text: (*text).to_owned() });
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracked_and_new_files_are_read_ignored_deleted_binary_and_corpus_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        process::read(git(root).args(["init", "--quiet"])).unwrap();
        for folder in ["src/deep", "fuzz/corpus/http"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let rows: [(&str, &[u8], bool); 7] = [
            (".gitignore", b"ignored\n", true),
            ("ignored", b"x\n", false),
            ("tracked.rs", b"//! T.\n", true),
            ("src/deep/new.rs", b"//! N.\n", true),
            ("deleted.rs", b"//! D.\n", false),
            ("binary", b"\0\xff", false),
            ("fuzz/corpus/http/seed", b"GET / \r\n", false),
        ];
        for (path, bytes, _) in rows {
            std::fs::write(root.join(path), bytes).unwrap();
        }
        process::read(git(root).args(["add", "tracked.rs", "deleted.rs"])).unwrap();
        std::fs::remove_file(root.join("deleted.rs")).unwrap();

        let tree = Tree::read(root).unwrap();
        for (path, _, expected) in rows {
            assert_eq!(tree.text(path).is_some(), expected, "{path}");
        }
        for path in ["src", "src/deep", "src/deep/new.rs", "fuzz/corpus/http/seed", "binary"] {
            assert!(tree.paths.contains(path), "{path} exists");
        }
    }
}
