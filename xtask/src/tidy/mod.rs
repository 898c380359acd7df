//! `cargo xtask tidy`: the rules of this repository that no compiler and no lint knows.
//!
//! Every rule is a function from text to findings, with its own test. A finding is one line,
//! `file:line: rule: what to do`, so that an editor can jump to it. Only a rule that is always right may fail the run;
//! a matter of judgement, such as a long file, is a note.

mod code;
mod files;
mod repository;
mod rust;
mod text;

use std::fmt;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use files::Tree;

/// Checks every file that git knows or would add; an error when a rule is broken.
pub(crate) fn command(workspace: &Workspace) -> Result<()> {
    let tree = Tree::read(&workspace.root)?;
    let mut findings = Vec::new();
    for file in &tree.files {
        findings.extend(text::check(&file.path, &file.text, &tree));
        if file.path.ends_with(".rs") {
            findings.extend(rust::check(&file.path, &file.text));
        }
    }
    findings.extend(repository::check(&tree));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let broken = findings.iter().filter(|finding| finding.weight == Weight::Broken).count();
    if broken > 0 {
        bail!("tidy: {broken} to mend");
    }
    println!("tidy: {} files, nothing to mend", tree.files.len());
    Ok(())
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// A rule is broken: the run fails.
    Broken,
    /// Someone should look.
    Note,
}

/// One place where a rule does not hold. Sorts by place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    advice: String,
    weight: Weight,
}

impl Finding {
    /// A broken rule at a line, counted from 1.
    fn broken(path: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, advice: advice.into(), weight: Weight::Broken }
    }

    /// A matter of judgement at a line, counted from 1.
    fn note(path: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { weight: Weight::Note, ..Self::broken(path, line, rule, advice) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.weight {
            Weight::Broken => "",
            Weight::Note => "note: ",
        };
        write!(f, "{}:{}: {mark}{}: {}", self.path, self.line, self.rule, self.advice)
    }
}

/// Shared by the tests of the rules.
#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `findings`, all of which must be of `rule`.
    pub(super) fn lines(findings: &[Finding], rule: &str) -> Vec<usize> {
        findings.iter().inspect(|finding| assert_eq!(finding.rule, rule)).map(|finding| finding.line).collect()
    }

    #[test]
    fn a_finding_is_one_line_that_an_editor_understands() {
        let broken = Finding::broken("a/b.rs", 7, "unfinished", "finish it");
        assert_eq!(broken.to_string(), "a/b.rs:7: unfinished: finish it");
        assert_eq!(Finding::note("c.rs", 1, "long", "split it").to_string(), "c.rs:1: note: long: split it");
    }

    #[test]
    fn findings_sort_by_place() {
        let mut findings =
            [Finding::note("b", 1, "r", ""), Finding::broken("a", 10, "r", ""), Finding::broken("a", 9, "r", "")];
        findings.sort();
        let places: Vec<(&str, usize)> = findings.iter().map(|f| (f.path.as_str(), f.line)).collect();
        assert_eq!(places, [("a", 9), ("a", 10), ("b", 1)]);
    }
}
