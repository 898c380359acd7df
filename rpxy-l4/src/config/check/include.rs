//! Files that the configuration file includes: `include = ["conf.d/*.toml"]`.
//!
//! Patterns are relative to the file and have wildcards in their last part only. Included files include nothing more. A
//! directory is watched as a whole, so that a file that is added or removed counts as a change.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::de::DeTable;
use zeroize::Zeroizing;

use crate::config::{
    file::{Entries, Field},
    report::{Report, quote},
};

/// Files that one configuration includes at most.
const MOST: usize = 1024;
/// Their size together at most, in bytes; and that of the file that includes them.
pub(in crate::config) const MOST_BYTES: usize = 64 << 20;

/// An included file.
pub(super) struct Included {
    /// May hold private keys.
    pub(super) text: Zeroizing<String>,
    /// Where it begins ([`Report::add_file`]).
    pub(super) base: usize,
}

/// The files that the file with these entries includes, in the order of its patterns and, for each, by name.
pub(super) fn files(report: &mut Report<'_>, main: &DeTable<'_>, directory: &Path) -> Vec<Included> {
    let Some(field) = Entries { table: main, base: 0 }.include() else { return Vec::new() };
    let mut paths: Vec<(Field<'_>, PathBuf)> = Vec::new();
    for pattern in field.one_or_many(report).unwrap_or_default() {
        let Some(text) = pattern.string(report) else { continue };
        for path in matching(report, &pattern, &directory.join(text)) {
            if !paths.iter().any(|(_, known)| *known == path) {
                paths.push((pattern.clone(), path));
            }
        }
    }
    if paths.len() > MOST {
        report.error(&field.position, format!("{} files are more than the {MOST} that can be included", paths.len()));
        return Vec::new();
    }
    let mut included = Vec::new();
    let mut bytes = 0;
    for (pattern, path) in paths {
        let size = fs::metadata(&path).map_or(0, |of| usize::try_from(of.len()).unwrap_or(usize::MAX));
        bytes = size.saturating_add(bytes);
        if bytes > MOST_BYTES {
            report.error(&field.position, format!("included files have more than {} MiB together", MOST_BYTES >> 20));
            return Vec::new();
        }
        let Some(text) = read(report, &pattern, &path) else { continue };
        let base = report.add_file(&path, &text);
        included.push(Included { text, base });
    }
    included
}

/// The files that a pattern stands for, by name.
fn matching(report: &mut Report<'_>, pattern: &Field<'_>, path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(last)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        report.error(&pattern.position, "does not name a file");
        return Vec::new();
    };
    let is_wildcard = |text: &str| text.contains(['*', '?']);
    if directory.to_str().is_none_or(is_wildcard) {
        report.error_with(&pattern.position, "has a wildcard in a directory", "wildcards are for names of files");
        return Vec::new();
    }
    if !is_wildcard(last) {
        return vec![path.to_owned()];
    }
    report.reads_directory(directory);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // It may come later.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            report
                .error(&pattern.position, format!("cannot read {}: {error}", quote(&directory.display().to_string())));
            return Vec::new();
        }
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut paths: Vec<PathBuf> = names
        .filter(|name| !name.starts_with('.') && fits(last.as_bytes(), name.as_bytes()))
        .map(|name| directory.join(name))
        .filter(|path| path.is_file() || leads_nowhere(path))
        .collect();
    paths.sort();
    paths
}

/// Returns whether a path is a link to something that is not there, or to itself: somebody's rules are missing.
fn leads_nowhere(path: &Path) -> bool {
    path.is_symlink() && fs::metadata(path).is_err()
}

fn read(report: &mut Report<'_>, pattern: &Field<'_>, path: &Path) -> Option<Zeroizing<String>> {
    report.reads(path);
    let name = quote(&path.display().to_string());
    match file(path).map(|bytes| String::from_utf8(bytes).map(Zeroizing::new)) {
        Ok(Ok(text)) => return Some(text),
        Ok(Err(error)) => {
            drop(Zeroizing::new(error.into_bytes()));
            report.error(&pattern.position, format!("{name} is not UTF-8 text"));
        }
        Err(error) => report.error(&pattern.position, format!("cannot read {name}: {error}")),
    }
    None
}

/// The bytes of a file. A device or a pipe may have no end, or nothing for a long time.
fn file(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() || kind.is_dir() { fs::read(path) } else { Err(io::Error::other("not a file")) }
}

/// Returns whether `pattern` stands for `name`: `*` for any bytes, `?` for one. Takes time in proportion to both lengths.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut upto) = (0, 0);
    // The last star, and what it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(upto) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, upto));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                upto += 1;
            }
            Some(_) | None => match &mut star {
                Some((before, taken)) => {
                    *taken += 1;
                    (at, upto) = (*before + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Reports an included file that would include more.
pub(super) fn refuse_nested(report: &mut Report<'_>, files: &[Entries<'_>]) {
    for field in files.iter().skip(1).filter_map(Entries::include) {
        report.error_with(&field.position, "an included file cannot include more", "move it to the main file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml.bak", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?.toml", "a.toml", true),
            ("?.toml", "ab.toml", false),
            ("?", "", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("**", "x", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
