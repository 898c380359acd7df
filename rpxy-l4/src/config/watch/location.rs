//! The real location of a configuration file: the directories whose changes can change it, and its fingerprint.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

/// As many symbolic links as Linux follows in one path.
const MOST_LINKS: u32 = 40;

/// A file at one moment. Two equal fingerprints mean, as far as the file system can tell, the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Seconds and nanoseconds. Tells a change that keeps size and modification time, as `cp -p` makes.
    changed: (i64, i64),
}

impl Fingerprint {
    /// The file behind `path`, symbolic links followed; `None` when there is no regular file to read.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().filter(fs::Metadata::is_file).as_ref().map(Self::from_metadata)
    }

    /// The directory behind `path`, which changes when a name is added, removed or moved; `None` when there is none.
    pub(super) fn of_directory(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().filter(fs::Metadata::is_dir).as_ref().map(Self::from_metadata)
    }

    fn from_metadata(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A directory as such, whatever its name: device and inode.
pub(super) type DirectoryId = (u64, u64);

/// The directories in which an entry can be changed so that `path` leads to another file: the one that holds the file,
/// and each that holds a symbolic link on the way. When a part is missing, the directory in which it would appear.
pub(super) fn directories(path: &Path) -> BTreeMap<PathBuf, DirectoryId> {
    let mut found = BTreeMap::new();
    let mut note = |directory: &Path| {
        if let Ok(metadata) = fs::metadata(directory) {
            found.insert(directory.to_owned(), (metadata.dev(), metadata.ino()));
        }
    };
    let mut here = PathBuf::new();
    let mut ahead: Vec<Step> = steps(path);
    let mut links = 0;
    while let Some(step) = ahead.pop() {
        let name = match step {
            Step::Root => {
                here = PathBuf::from("/");
                continue;
            }
            Step::Up => {
                here.pop();
                continue;
            }
            Step::Down(name) => name,
        };
        let next = here.join(&name);
        match fs::read_link(&next) {
            Ok(target) if links < MOST_LINKS => {
                note(&here);
                links += 1;
                ahead.extend(steps(&target));
            }
            _ if ahead.is_empty() || !next.is_dir() => {
                note(&here);
                break;
            }
            _ => here = next,
        }
    }
    found
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

/// The parts of a path, the first one last.
fn steps(path: &Path) -> Vec<Step> {
    let step = |component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path, path: &Path) -> Vec<String> {
        let relative = |directory: &PathBuf| directory.strip_prefix(root).unwrap().display().to_string();
        directories(path).keys().map(relative).collect()
    }

    #[test]
    fn directories_that_matter() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["etc", "etc/..2024", "opt", "loop"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        fs::write(root.join("opt/real.toml"), "").unwrap();
        fs::write(root.join("etc/plain.toml"), "").unwrap();
        fs::write(root.join("etc/..2024/mounted.toml"), "").unwrap();
        symlink(root.join("opt/real.toml"), root.join("etc/absolute.toml")).unwrap();
        symlink("../opt/real.toml", root.join("etc/relative.toml")).unwrap();
        symlink("absolute.toml", root.join("etc/twice.toml")).unwrap();
        symlink("..2024", root.join("etc/..data")).unwrap();
        symlink("..data/mounted.toml", root.join("etc/mounted.toml")).unwrap();
        symlink("nowhere.toml", root.join("etc/dangling.toml")).unwrap();
        symlink("b", root.join("loop/a")).unwrap();
        symlink("a", root.join("loop/b")).unwrap();

        let rows: &[(&str, &str, &[&str])] = &[
            ("plain file", "etc/plain.toml", &["etc"]),
            ("missing file", "etc/missing.toml", &["etc"]),
            ("missing directory", "etc/missing/a.toml", &["etc"]),
            ("absolute link", "etc/absolute.toml", &["etc", "opt"]),
            ("relative link", "etc/relative.toml", &["etc", "opt"]),
            ("link to a link", "etc/twice.toml", &["etc", "opt"]),
            ("projected volume", "etc/mounted.toml", &["etc", "etc/..2024"]),
            ("dangling link", "etc/dangling.toml", &["etc"]),
            ("dots", "opt/../etc/./plain.toml", &["etc"]),
            ("links in a circle", "loop/a", &["loop"]),
        ];
        for (name, path, expected) in rows {
            assert_eq!(names(&root, &root.join(path)), *expected, "{name}");
        }
    }

    #[test]
    fn only_regular_files_have_a_fingerprint() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a");
        assert_eq!(Fingerprint::of(&file), None, "missing");
        assert_eq!(Fingerprint::of(root.path()), None, "directory");
        fs::write(&file, "1").unwrap();
        let before = Fingerprint::of(&file);
        assert!(before.is_some());
        assert_eq!(before, Fingerprint::of(&file), "untouched");
        fs::write(&file, "12").unwrap();
        assert_ne!(before, Fingerprint::of(&file), "written");
    }
}
