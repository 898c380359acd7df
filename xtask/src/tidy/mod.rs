//! `cargo xtask tidy`: the rules of this repository that no compiler and no lint knows.
//!
//! Every rule is a function from text to findings. A finding is one line, `file:line: rule: advice`, so that an editor can
//! jump to it. Each of them fails the run.

mod cycles;
mod documents;
mod files;
mod manifest;
mod modules;
mod rust;
mod text;

use std::fmt;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use files::Tree;
use modules::Crate;

/// Checks every file that git knows or would add; an error when a rule is broken.
pub(crate) fn command(workspace: &Workspace) -> Result<()> {
    let tree = Tree::read(&workspace.root)?;
    let findings = check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    println!("tidy: {} files, no findings", tree.files.len());
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let crates = Crate::all(tree);
    let mut findings: Vec<Finding> = crates.iter().flat_map(cycles::check).collect();
    for (path, text) in &tree.files {
        findings.extend(text::check(path, text, tree));
        if path.ends_with(".rs") {
            findings.extend(rust::check(path, text));
        }
    }
    findings.extend(manifest::check(tree));
    findings.extend(documents::check(tree, &crates));
    findings.sort();
    findings
}

/// One place where a rule does not hold. Sorts by place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    advice: String,
}

impl Finding {
    /// A finding at a line, counted from 1.
    fn new(path: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.advice)
    }
}
