//! The capabilities that the documents name are those that the systemd unit gives.

use std::collections::BTreeSet;

use super::super::Finding;
use super::super::files::Tree;
use super::section;

const UNIT: &str = "packaging/rpxy-l4.service";
/// Where they are listed: a document and a section of it.
const LISTS: [(&str, &str); 2] = [("docs/operations.md", "## systemd"), ("SECURITY.md", "## Threat model")];
/// Documents that may count them.
const COUNTS: [&str; 3] = ["docs/operations.md", "SECURITY.md", "packaging/README.md"];
const NUMBERS: [&str; 7] = ["no", "one", "two", "three", "four", "five", "six"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let given = |key: &str| {
        let line = tree.text(UNIT).lines().find_map(|line| line.strip_prefix(key));
        names(line.unwrap_or_default()).collect::<BTreeSet<&str>>()
    };
    let capabilities = given("AmbientCapabilities=");
    let count = capabilities.len();
    let mut findings = Vec::new();
    let mut add = |path: &str, line, advice: String| findings.push(Finding::new(path, line, "capabilities", advice));
    if given("CapabilityBoundingSet=") != capabilities {
        add(UNIT, 1, "the bounding set is not the ambient set".to_owned());
    }
    for (path, heading) in LISTS {
        let listed: BTreeSet<&str> = section(tree.text(path), heading).flat_map(|(_, line)| names(line)).collect();
        if listed != capabilities {
            let wanted: Vec<&str> = capabilities.iter().copied().collect();
            add(path, 1, format!("`{heading}` lists other capabilities than {UNIT}: {}", wanted.join(", ")));
        }
    }
    for path in COUNTS {
        let words: Vec<&str> = tree.text(path).split_whitespace().collect();
        let counted = words.windows(2).filter(|pair| pair[1].starts_with("capabilities")).map(|pair| pair[0]);
        for word in counted.filter(|word| NUMBERS.iter().position(|n| n == word).is_some_and(|n| n != count)) {
            add(path, 1, format!("{UNIT} has {count} capabilities, not {word}"));
        }
    }
    findings
}

/// The names of capabilities in a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("CAP_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_name_the_capabilities_of_the_unit() {
        let unit = "AmbientCapabilities=CAP_A CAP_B\nCapabilityBoundingSet=CAP_A CAP_B\n";
        let rows = [
            ("all", unit, "with `CAP_A` and `CAP_B`", 0),
            ("counted", unit, "with two capabilities:\nCAP_A, CAP_B", 0),
            ("counted wrongly", unit, "three capabilities (CAP_A, CAP_B)", 1),
            ("one missing", unit, "CAP_A", 1),
            ("one too many", unit, "CAP_A, CAP_B, CAP_C", 1),
            ("in another section", unit, "CAP_A\n## Other\nCAP_B", 1),
            ("another bounding set", "AmbientCapabilities=CAP_A CAP_B\n", "CAP_A CAP_B", 1),
        ];
        for (name, unit, text, expected) in rows {
            let operations = format!("## systemd\n{text}\n");
            let security = "## Threat model\nCAP_A CAP_B\n";
            let files = [(UNIT, unit), ("docs/operations.md", &operations), ("SECURITY.md", security)];
            assert_eq!(check(&Tree::of(&files)).len(), expected, "{name}");
        }
    }
}
