//! Collects the problems of one file while it is checked, and turns byte offsets into lines and columns.

use std::path::{Path, PathBuf};

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
    /// Included files in the order of their beginnings.
    included: Vec<Lines>,
    /// Each with the number of its file.
    problems: Vec<(usize, Problem)>,
    unknown: Vec<(Position, Option<String>)>,
    files: Vec<Seen>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, included: Vec::new(), problems: Vec::new(), unknown: Vec::new(), files: Vec::new() }
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
        let base = self.included.last().map_or(self.text.len(), |last| last.base + last.len) + 1;
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        self.included.push(Lines { path: path.to_owned(), base, len: text.len(), starts });
        base
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

    /// The file can be used.
    pub(super) fn warn(&mut self, position: &Position, message: impl Into<String>) {
        self.push(Severity::Warning, position, message.into(), None);
    }

    /// The file can be used, but `remedy` would be better.
    pub(super) fn warn_with(&mut self, position: &Position, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Warning, position, message.into(), Some(remedy.into()));
    }

    /// A key without a meaning; all of them become one warning.
    pub(super) fn unknown_key(&mut self, scope: Scope, key: &str, position: Position) {
        self.unknown.push((position, keys::hint(scope, key)));
    }

    /// All problems in the order of the file's lines.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        // What several listeners have in common is looked at for each of them.
        self.unknown.sort_by_key(|(position, _)| position.offset);
        self.unknown.dedup_by(|(one, _), (other, _)| one.path == other.path && one.offset == other.offset);
        if let [(first, _), ..] = self.unknown.as_slice() {
            let first = first.clone();
            let several = if self.unknown.len() == 1 { "unknown key" } else { "unknown keys" };
            let list: Vec<String> =
                self.unknown.iter().map(|(position, hint)| self.unknown_item(position, hint)).collect();
            let message = format!("{several} ignored: {}", list.join(", "));
            self.push(Severity::Warning, &Position { path: String::new(), offset: first.offset }, message, None);
        }
        self.problems.sort_by_key(|(file, problem)| (*file, problem.line, problem.column));
        let mut kept: Vec<Problem> = Vec::with_capacity(self.problems.len());
        for (_, problem) in self.problems {
            let same_line = |other: &&Problem| other.line == problem.line && other.file == problem.file;
            if !kept.iter().rev().take_while(same_line).any(|other| *other == problem) {
                kept.push(problem);
            }
        }
        kept
    }

    fn unknown_item(&self, position: &Position, hint: &Option<String>) -> String {
        let (_, file, line, _) = self.place(position.offset);
        let line = match file {
            Some(file) => format!("{}:{line}", file.display()),
            None => format!("line {line}"),
        };
        match hint {
            Some(hint) => format!("{} ({line}: {hint})", position.path),
            None => format!("{} ({line})", position.path),
        }
    }

    fn push(&mut self, severity: Severity, position: &Position, message: String, remedy: Option<String>) {
        let (number, file, line, column) = self.place(position.offset);
        let (path, file) = (position.path.clone(), file.map(Path::to_owned));
        self.problems.push((number, Problem { severity, file, path, line, column, message, remedy }));
    }

    /// Number and path of the file of an offset, with line and column; no path for the main file.
    fn place(&self, offset: usize) -> (usize, Option<&Path>, usize, usize) {
        let number = self.included.partition_point(|file| file.base <= offset);
        match number.checked_sub(1).and_then(|index| self.included.get(index)) {
            Some(file) => {
                let (line, column) = file.line_and_column(offset - file.base);
                (number, Some(&file.path), line, column)
            }
            None => {
                let (line, column) = line_and_column(self.text, offset);
                (0, None, line, column)
            }
        }
    }
}

/// The lines of an included file, whose text may hold private keys and is not kept.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    /// The offset at which it begins.
    base: usize,
    len: usize,
    /// Offsets of its lines.
    starts: Vec<usize>,
}

impl Lines {
    /// Line and column (in bytes) of an offset in the file, both from 1.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or_default();
        (line.max(1), offset - start + 1)
    }
}

/// Line and column (in characters) of a byte offset, both from 1. An offset past the end is the end.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
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
        for (name, offset, expected) in rows {
            assert_eq!(line_and_column(text, offset), expected, "{name}");
        }
    }

    #[test]
    fn quoted_values_are_bounded_and_on_one_line() {
        assert_eq!(quote("a\nb\"\u{1b}"), r#""a\nb\"\u{1b}""#);
        assert_eq!(quote(&"x".repeat(80)), format!("\"{}\"", "x".repeat(80)));
        assert_eq!(quote(&"x".repeat(81)), format!("\"{}...\"", "x".repeat(80)));
    }
}
