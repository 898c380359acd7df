//! Collects the problems of one file while it is checked, and turns byte offsets into lines and columns.

use std::path::Path;

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
    /// Byte offset in the text.
    pub(super) offset: usize,
}

/// The problems found so far in one text.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    unknown: Vec<(Position, Option<String>)>,
    files: Vec<Seen>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, problems: Vec::new(), unknown: Vec::new(), files: Vec::new() }
    }

    /// Another file has a part in what the configuration says, and is about to be read.
    pub(super) fn reads(&mut self, path: &Path) {
        self.files.push(Seen::now(path));
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
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        let mut kept: Vec<Problem> = Vec::with_capacity(self.problems.len());
        for problem in self.problems {
            let same_place = kept.iter().rev().take_while(|other| other.line == problem.line);
            if !same_place.clone().any(|other| *other == problem) {
                kept.push(problem);
            }
        }
        kept
    }

    fn unknown_item(&self, position: &Position, hint: &Option<String>) -> String {
        let (line, _) = line_and_column(self.text, position.offset);
        match hint {
            Some(hint) => format!("{} (line {line}: {hint})", position.path),
            None => format!("{} (line {line})", position.path),
        }
    }

    fn push(&mut self, severity: Severity, position: &Position, message: String, remedy: Option<String>) {
        let (line, column) = line_and_column(self.text, position.offset);
        self.problems.push(Problem { severity, path: position.path.clone(), line, column, message, remedy });
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
