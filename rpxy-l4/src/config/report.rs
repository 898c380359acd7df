//! Collects the problems of one file while it is checked, and turns byte offsets into lines and columns, in one go at the
//! end: a file may have as many problems as lines.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    keys::{self, Scope},
    problem::{Problem, Severity},
    watch::Seen,
};

/// A key and its position in the file.
#[derive(Debug, Clone)]
pub(super) struct Position {
    /// The key, as in `protocols."web".target[0]`.
    pub(super) path: String,
    /// Byte offset in the text, and behind it in those of included files.
    pub(super) offset: usize,
}

/// The problems found so far in one text and the files that it includes.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    /// Mode of its file; 0 where there is none.
    mode: u32,
    /// Included files in the order of their beginnings.
    included: Vec<Included>,
    /// With the offset of each; file, line and column follow.
    problems: Vec<(usize, Problem)>,
    /// Offsets of keys without a meaning where they are, by name.
    unknown: Vec<(String, usize)>,
    /// Problems that are the want of one of these keys.
    missing: Vec<(usize, &'static [&'static str])>,
    files: Vec<Seen>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self::of_file(text, 0)
    }

    /// The same of a text whose file has this mode.
    pub(super) fn of_file(text: &'t str, mode: u32) -> Self {
        let (problems, unknown, missing, files) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { text, mode, included: Vec::new(), problems, unknown, missing, files }
    }

    /// Another file has a part in what the configuration says, and is about to be read.
    pub(super) fn reads(&mut self, path: &Path) {
        self.files.push(Seen::now(path));
    }

    /// The names in a directory have a part in it.
    pub(super) fn reads_directory(&mut self, path: &Path) {
        self.files.push(Seen::directory(path));
    }

    /// The text of an included file. Returns the offset at which it begins.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> usize {
        let base = self.included.last().map_or(self.text.len(), |last| last.base + last.text.len()) + 1;
        let mode = fs::metadata(path).map_or(0, |of| of.mode());
        self.included.push(Included { path: path.to_owned(), base, mode, text: text.to_owned().into() });
        base
    }

    /// The mode of the file that has something private at `position`, if everybody may read it or write to it.
    pub(super) fn open_to_others(&self, position: &Position) -> Option<u32> {
        let included = self.included.iter().rev().find(|file| file.base <= position.offset);
        open_to_others(included.map_or(self.mode, |file| file.mode))
    }

    /// The files noted so far.
    pub(super) fn take_files(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.files)
    }

    /// The file cannot be used.
    pub(super) fn error(&mut self, position: &Position, message: impl Into<String>) {
        self.push(Severity::Error, position, message.into(), None);
    }

    /// The file cannot be used, and `remedy` says what to write instead.
    pub(super) fn error_with(&mut self, position: &Position, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Error, position, message.into(), Some(remedy.into()));
    }

    /// The file cannot be used without one of `keys` at its top. Where one is elsewhere, that is the remedy.
    pub(super) fn missing(
        &mut self,
        position: &Position,
        message: &str,
        keys: &'static [&'static str],
        remedy: Option<&str>,
    ) {
        self.missing.push((self.problems.len(), keys));
        self.push(Severity::Error, position, message.to_owned(), remedy.map(str::to_owned));
    }

    /// The file can be used.
    pub(super) fn warn(&mut self, position: &Position, message: impl Into<String>) {
        self.push(Severity::Warning, position, message.into(), None);
    }

    /// The file can be used, but `remedy` would be better.
    pub(super) fn warn_with(&mut self, position: &Position, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Warning, position, message.into(), Some(remedy.into()));
    }

    /// A key without a meaning.
    pub(super) fn unknown_key(&mut self, scope: Scope, key: &str, position: &Position) {
        self.push(Severity::Warning, position, "unknown key ignored".to_owned(), keys::hint(scope, key));
        self.unknown.push((key.to_owned(), position.offset));
    }

    /// Says where keys of the top of the file are instead. A key below a table is that table's, however it is indented.
    fn misplaced(&self, keys: &[&str]) -> Option<String> {
        let here = |(key, offset): &&(String, usize)| *offset <= self.text.len() && keys.contains(&key.as_str());
        let (key, offset) = self.unknown.iter().find(here)?;
        let (line, _) = Cursor::new(self.text).line_and_column(*offset);
        Some(format!("{key} in line {line} is below a [table] and so belongs to that: move it to the top of the file"))
    }

    /// All problems in the order of the files' lines.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        for (index, keys) in std::mem::take(&mut self.missing) {
            if let (Some(remedy), Some((_, problem))) = (self.misplaced(keys), self.problems.get_mut(index)) {
                problem.remedy = Some(remedy);
            }
        }
        self.problems.sort_by_key(|(offset, problem)| (*offset, problem.severity));
        // What several listeners have in common is looked at for each of them.
        let mut kept: Vec<(usize, Problem)> = Vec::with_capacity(self.problems.len());
        for (offset, problem) in self.problems {
            let same_place = kept.iter().rev().take_while(|(other, _)| *other == offset);
            if !same_place.map(|(_, other)| other).any(|other| *other == problem) {
                kept.push((offset, problem));
            }
        }
        let mut files = self.included.iter().peekable();
        let (mut file, mut base, mut cursor) = (None, 0, Cursor::new(self.text));
        let placed = kept.into_iter().map(|(offset, problem)| {
            while let Some(next) = files.next_if(|next| next.base <= offset) {
                (file, base, cursor) = (Some(&next.path), next.base, Cursor::new(&next.text));
            }
            let (line, column) = cursor.line_and_column(offset - base);
            Problem { file: file.cloned(), line, column, ..problem }
        });
        placed.collect()
    }

    fn push(&mut self, severity: Severity, position: &Position, message: String, remedy: Option<String>) {
        let problem =
            Problem { severity, file: None, path: position.path.clone(), line: 1, column: 1, message, remedy };
        self.problems.push((position.offset, problem));
    }
}

/// An included file.
#[derive(Debug)]
struct Included {
    path: PathBuf,
    /// The offset at which it begins.
    base: usize,
    mode: u32,
    /// May hold private keys.
    text: Zeroizing<String>,
}

/// The bits of a mode for permissions, if others than owner and group have some.
#[must_use]
pub(super) fn open_to_others(mode: u32) -> Option<u32> {
    Some(mode & 0o7777).filter(|mode| mode & 0o007 != 0)
}

/// Walks through a text once.
#[derive(Debug)]
struct Cursor<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
    column: usize,
}

impl<'t> Cursor<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, offset: 0, line: 1, column: 1 }
    }

    /// Line and column (in characters) of a byte offset, both from 1. Offsets must not go back; one past the end is the
    /// end.
    fn line_and_column(&mut self, offset: usize) -> (usize, usize) {
        let between = self.text.get(self.offset..offset).or_else(|| self.text.get(self.offset..)).unwrap_or_default();
        for character in between.chars() {
            match character {
                '\n' => (self.line, self.column) = (self.line + 1, 1),
                _ => self.column += 1,
            }
        }
        self.offset += between.len();
        (self.line, self.column)
    }
}

/// A value as it is quoted in a message: bounded, and on one line whatever it holds.
pub(super) fn quote(value: &str) -> String {
    const LONGEST: usize = 80;
    let mut quoted: String = value.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if value.chars().nth(LONGEST).is_some() {
        quoted.push_str("...");
    }
    format!("\"{quoted}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let text = "a\nbé = 1\r\n\nc";
        let rows = [
            ("start", 0, (1, 1)),
            ("start of line 2", 2, (2, 1)),
            ("after a two-byte letter", 5, (2, 3)),
            ("last line", text.len() - 1, (4, 1)),
            ("past the end", text.len() + 9, (4, 2)),
        ];
        let mut cursor = Cursor::new(text);
        for (name, offset, expected) in rows {
            assert_eq!(cursor.line_and_column(offset), expected, "{name}");
            assert_eq!(Cursor::new(text).line_and_column(offset), expected, "{name}, alone");
        }
    }

    #[test]
    fn quoted_values_are_bounded_and_on_one_line() {
        assert_eq!(quote("a\nb\"\u{1b}"), r#""a\nb\"\u{1b}""#);
        assert_eq!(quote(&"x".repeat(80)), format!("\"{}\"", "x".repeat(80)));
        assert_eq!(quote(&"x".repeat(81)), format!("\"{}...\"", "x".repeat(80)));
    }
}
