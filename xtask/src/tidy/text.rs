//! Rules for every text file: no path of one machine, no link that leads nowhere.

use super::Finding;
use super::files::Tree;

/// Starts of paths that exist on one developer's machine only. Put together here, so that this file passes.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/", "home/"), concat!("/", "Users/"), concat!("/", "work/"), concat!("/", "tmp/bash")];

/// Checks one file.
pub(super) fn check(path: &str, text: &str, tree: &Tree) -> Vec<Finding> {
    let lines = text.lines().enumerate();
    let named = lines.filter_map(|(index, line)| Some((index, MACHINE_PATHS.iter().find(|p| names_path(line, p))?)));
    let mut findings: Vec<Finding> = named
        .map(|(index, start)| Finding::new(path, index + 1, "machine-path", format!("`{start}..` is of one machine")))
        .collect();
    if path.ends_with(".md") {
        findings.extend(dead_links(path, text, tree));
    }
    findings
}

/// A path that starts here: in `a/home/b` and `https://host/home/b` it does not.
fn names_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let goes_on = line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-./*}>".contains(c));
        let named = line[at + start.len()..].starts_with(|c: char| c.is_alphanumeric());
        !goes_on && (named || !start.ends_with('/'))
    })
}

fn dead_links(path: &str, text: &str, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for target in link_targets(line) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let resolved = if file.is_empty() { Some(path.to_owned()) } else { resolve(path, file) };
            let lives = resolved.is_some_and(|resolved| {
                let has_anchor = anchor.is_empty() || anchors(tree.text(&resolved)).any(|name| name == anchor);
                tree.paths.contains(&resolved) && (has_anchor || !resolved.ends_with(".md"))
            });
            if !lives {
                findings.push(Finding::new(path, index + 1, "dead-link", format!("nothing is at `{target}`")));
            }
        }
    }
    findings
}

/// The targets of the inline links of a line. Every second piece between backquotes is code.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    links.filter(move |target| {
        let at = target.as_ptr() as usize - line.as_ptr() as usize;
        !target.is_empty() && line[..at].matches('`').count().is_multiple_of(2)
    })
}

/// The anchors of the headings, as GitHub makes them: lower case, blanks to hyphens, punctuation left out.
fn anchors(markdown: &str) -> impl Iterator<Item = String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    })
}

/// The path from the root that `link` means in the file `path`; none when it leaves the repository.
fn resolve(path: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = if link.starts_with('/') { Vec::new() } else { path.split('/').collect() };
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found() {
        for start in MACHINE_PATHS {
            let rows = [
                ("a path", format!("see \"{start}x/y\""), true),
                ("part of a path", format!("target{start}x"), false),
                ("part of an address", format!("https://example.org{start}x"), false),
                ("below a placeholder", format!("<root>{start}x"), false),
            ];
            for (name, line, expected) in rows {
                assert_eq!(!check("a", &line, &Tree::default()).is_empty(), expected, "{name}: {line}");
            }
        }
    }

    #[test]
    fn a_link_leads_to_a_file_of_the_repository_and_to_a_heading_in_it() {
        let tree = Tree::of(&[("README.md", ""), ("docs/a.md", "# One `two`, three\n"), ("docs/b.rs", "")]);
        let rows = [
            ("beside", "[b](b.rs)", true),
            ("missing", "[c](c.md)", false),
            ("above", "[r](../README.md)", true),
            ("from the root", "[r](/README.md)", true),
            ("out of the repository", "[r](../../README.md)", false),
            ("a folder", "[d](../docs/)", true),
            ("with an anchor", "[a](a.md#one-two-three)", true),
            ("with a missing anchor", "[a](a.md#one)", false),
            ("anchor alone", "[a](#one-two-three)", true),
            ("missing anchor alone", "[a](#four)", false),
            ("line of a source file", "[b](b.rs#L7)", true),
            ("web", "[w](https://example.org/x.md)", true),
            ("named by code", "[`c`](c.md)", false),
            ("in code", "`[c](c.md)`", true),
            ("in a code block", "```\n[c](c.md)\n```", true),
            ("behind a code block", "```\n```\n[c](c.md)", false),
        ];
        for (name, text, good) in rows {
            let text = format!("# One `two`, three\n{text}\n");
            assert_eq!(dead_links("docs/a.md", &text, &tree).is_empty(), good, "{name}");
        }
    }
}
