//! Rules for the repository as a whole: what must be there, and what every crate must declare.

use super::Finding;
use super::files::Tree;

/// Files that users, packagers and the tests look for.
const REQUIRED: [&str; 9] = [
    ".ci/run",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "config.example.toml",
];

/// Crates that must stay free of unsafe code: parsers, and what kernel and daemon share.
const WITHOUT_UNSAFE: [&str; 2] = ["rpxy-l4-common/src/lib.rs", "rpxy-l4-proto/src/lib.rs"];

/// All rules for the repository.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = required_files(tree);
    if let Some(text) = tree.text("CHANGELOG.md") {
        findings.extend(unreleased_section("CHANGELOG.md", text));
    }
    for path in WITHOUT_UNSAFE {
        findings.extend(forbids_unsafe(path, tree.text(path).unwrap_or_default()));
    }
    for file in tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        findings.extend(inherits_lints(&file.path, &file.text));
    }
    findings
}

fn required_files(tree: &Tree) -> Vec<Finding> {
    let absent = REQUIRED.iter().filter(|path| !tree.paths.contains(**path));
    absent.map(|path| Finding::broken(path, 1, "required-file", "write it")).collect()
}

fn unreleased_section(path: &str, text: &str) -> Option<Finding> {
    let heading = |line: &str| {
        let title = line.strip_prefix("## ")?;
        Some(title.trim_matches(['[', ']', ' ']).eq_ignore_ascii_case("unreleased"))
    };
    let present = text.lines().any(|line| heading(line) == Some(true));
    (!present).then(|| Finding::broken(path, 1, "changelog", "add the section `## Unreleased` for what comes next"))
}

fn forbids_unsafe(path: &str, text: &str) -> Option<Finding> {
    let present = text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]");
    (!present).then(|| Finding::broken(path, 1, "forbid-unsafe", "add `#![forbid(unsafe_code)]` under the docs"))
}

/// A package outside this workspace, which has a `[workspace]` table of its own, has nothing to inherit from.
fn inherits_lints(path: &str, text: &str) -> Option<Finding> {
    let outside = text.lines().any(|line| line.trim() == "[workspace]");
    let inherits = text
        .lines()
        .skip_while(|line| line.trim() != "[lints]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.split_whitespace().collect::<String>() == "workspace=true");
    let good = outside || inherits || text.lines().any(|line| line.trim() == "lints.workspace = true");
    (!good).then(|| Finding::broken(path, 1, "lints", "add `[lints]` with `workspace = true`"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::lines;
    use super::*;

    #[test]
    fn what_people_look_for_is_there() {
        let all: Vec<(&str, &str)> = REQUIRED.iter().map(|path| (*path, "")).collect();
        assert_eq!(required_files(&Tree::of(&all)), []);
        let findings = required_files(&Tree::of(&all[1..]));
        assert_eq!(findings.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), [".ci/run"]);
        assert_eq!(lines(&findings, "required-file"), [1]);
    }

    #[test]
    fn the_changelog_has_room_for_the_next_release() {
        let rows = [
            ("plain", "# Changelog\n\n## Unreleased\n", true),
            ("linked", "## [Unreleased]\n", true),
            ("in a sentence", "Unreleased changes\n", false),
            ("another heading", "## 0.3.0\n", false),
            ("a heading of another level", "### Unreleased\n", false),
        ];
        for (name, text, good) in rows {
            assert_eq!(unreleased_section("CHANGELOG.md", text).is_none(), good, "{name}");
        }
    }

    #[test]
    fn the_parsers_forbid_unsafe_code() {
        let rows = [
            ("forbidden", "//! D.\n#![no_std]\n#![forbid(unsafe_code)]\n", true),
            ("only denied", "//! D.\n#![deny(unsafe_code)]\n", false),
            ("only in a comment", "//! #![forbid(unsafe_code)]\n", false),
            ("no such file", "", false),
        ];
        for (name, text, good) in rows {
            assert_eq!(forbids_unsafe("lib.rs", text).is_none(), good, "{name}");
        }
    }

    #[test]
    fn every_crate_takes_the_lints_of_the_workspace() {
        let rows = [
            ("inherits", "[package]\n\n[lints]\nworkspace = true\n", true),
            ("inherits in one line", "lints.workspace = true\n[package]\n", true),
            ("no section", "[package]\nname = \"a\"\n", false),
            ("switched off", "[lints]\nworkspace = false\n", false),
            ("of another section", "[lints]\n[dependencies]\nworkspace = true\n", false),
            ("a workspace of its own", "[package]\n[workspace]\n", true),
        ];
        for (name, text, good) in rows {
            assert_eq!(inherits_lints("a/Cargo.toml", text).is_none(), good, "{name}");
        }
    }
}
