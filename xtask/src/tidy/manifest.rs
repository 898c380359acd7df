//! Rules for the crates: those that parse forbid unsafe code, and all of them take the lints of the workspace.

use super::Finding;
use super::files::Tree;

/// Crates without any unsafe code: parsers, and what kernel and daemon share.
const WITHOUT_UNSAFE: [&str; 2] = ["rpxy-l4-common/src/lib.rs", "rpxy-l4-proto/src/lib.rs"];

/// Checks all crates.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let unsafe_code = WITHOUT_UNSAFE.iter().filter(|path| !has_line(tree.text(path), "#![forbid(unsafe_code)]"));
    let lints = tree.files.iter().filter(|(path, text)| path.ends_with("/Cargo.toml") && !takes_lints(text));
    unsafe_code
        .map(|path| Finding::new(path, 1, "forbid-unsafe", "add `#![forbid(unsafe_code)]` under the docs"))
        .chain(lints.map(|(path, _)| Finding::new(path, 1, "lints", "add `[lints]` with `workspace = true`")))
        .collect()
}

/// A workspace of its own has nothing to take them from.
fn takes_lints(manifest: &str) -> bool {
    has_line(manifest, "[workspace]") || manifest.contains("[lints]\nworkspace = true\n")
}

fn has_line(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line.trim() == wanted)
}

#[cfg(test)]
mod tests {
    use super::super::files::Files;
    use super::*;

    #[test]
    fn crates_declare_what_they_must() {
        let [common, proto] = WITHOUT_UNSAFE.map(|path| (path, "//! D.\n#![forbid(unsafe_code)]\n"));
        let lints = "[package]\n\n[lints]\nworkspace = true\n";
        let rows: [(&str, Files<'_>, &[&str]); 6] = [
            ("good", &[common, proto, ("a/Cargo.toml", lints)], &[]),
            ("only denied", &[common, (proto.0, "//! D.\n#![deny(unsafe_code)]\n")], &["forbid-unsafe"]),
            ("in a comment", &[common, (proto.0, "//! #![forbid(unsafe_code)]\n")], &["forbid-unsafe"]),
            ("no such file", &[common], &["forbid-unsafe"]),
            ("no lints", &[common, proto, ("a/Cargo.toml", "[package]\n")], &["lints"]),
            ("a workspace of its own", &[common, proto, ("a/Cargo.toml", "[package]\n[workspace]\n")], &[]),
        ];
        for (name, files, expected) in rows {
            let rules: Vec<&str> = check(&Tree::of(files)).iter().map(|finding| finding.rule).collect();
            assert_eq!(rules, expected, "{name}");
        }
    }
}
