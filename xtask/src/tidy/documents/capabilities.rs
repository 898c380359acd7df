//! The capabilities that the documents name are those that the systemd unit gives.

use std::collections::BTreeSet;

use super::super::Finding;
use super::super::files::Tree;
use super::section;

const UNIT: &str = "packaging/rpxy-l4.service";
/// Where they are listed: a document and a section of it.
const LISTS: [(&str, &str); 2] = [("docs/operations.md", "## systemd"), ("SECURITY.md", "## Threat model")];
const NUMBERS: [&str; 7] = ["no", "one", "two", "three", "four", "five", "six"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let unit = tree.text(UNIT);
    let given = |key: &str| names(unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default());
    let capabilities = given("AmbientCapabilities=");
    let mut findings = Vec::new();
    if given("CapabilityBoundingSet=") != capabilities {
        findings.push(Finding::new(UNIT, 1, "capabilities", "the bounding set is not the ambient set"));
    }
    for (path, heading) in LISTS {
        let lines: Vec<(usize, &str)> = section(tree.text(path), heading).collect();
        let text = lines.iter().map(|(_, line)| *line).collect::<Vec<_>>().join(" ");
        let line = lines.iter().find(|(_, line)| line.contains("capabilities")).map_or(1, |(line, _)| *line);
        if names(&text) != capabilities {
            let listed: Vec<&str> = capabilities.iter().copied().collect();
            let advice = format!("list the capabilities of {UNIT} under `{heading}`: {}", listed.join(", "));
            findings.push(Finding::new(path, line, "capabilities", advice));
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let counted = words.windows(2).filter(|pair| pair[1].starts_with("capabilities"));
        let wrong = |word: &str| NUMBERS.iter().position(|n| *n == word).is_some_and(|n| n != capabilities.len());
        if let Some(pair) = counted.into_iter().find(|pair| wrong(pair[0])) {
            let advice = format!("{} has {} capabilities, not {}", UNIT, capabilities.len(), pair[0]);
            findings.push(Finding::new(path, line, "capabilities", advice));
        }
    }
    findings
}

/// The names of capabilities in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("CAP_")).collect()
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
