//! What documents say of the code, compared with it: the code map, the limits, the capabilities of the unit.

mod capabilities;
mod code_map;
mod limits;

use super::Finding;
use super::files::Tree;
use super::modules::Crate;

/// Checks all documents.
pub(super) fn check(tree: &Tree, crates: &[Crate]) -> Vec<Finding> {
    let mut findings = code_map::check(tree, crates);
    findings.extend(limits::check(tree));
    findings.extend(capabilities::check(tree));
    findings
}

/// The lines of the section under `heading`, up to the next one of its level, each with its number.
fn section<'a>(markdown: &'a str, heading: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let level = heading.split(' ').next().unwrap_or_default();
    let lines = markdown.lines().enumerate().map(|(index, line)| (index + 1, line));
    let inside = lines.skip_while(move |(_, line)| *line != heading).skip(1);
    inside.take_while(move |(_, line)| line.split(' ').next() != Some(level))
}

/// The cells of a row of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// What stands between backquotes.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
