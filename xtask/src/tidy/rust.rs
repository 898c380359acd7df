//! Rules for Rust files.

use super::Finding;
use super::code::code_only;

/// A file of this many lines should be looked at: it often holds two topics.
const LONG: usize = 400;
/// A file of more lines than this is not accepted.
const TOO_LONG: usize = 800;
/// Files over [`LONG`] that are better whole, each with the reason.
const LONG_FOR_A_REASON: &[(&str, &str)] = &[];

/// Macros that mark unfinished work.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// How many lines above an unsafe block its note may stand.
const SAFETY_DISTANCE: usize = 3;

/// All rules for one Rust file.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let code = code_only(text);
    let mut findings = length(path, text, LONG_FOR_A_REASON);
    findings.extend(module_docs(path, text));
    findings.extend(safety_notes(path, text, &code));
    findings.extend(lint_reasons(path, &code));
    findings.extend(unfinished(path, &code));
    findings.extend(ignored_tests(path, &code));
    findings
}

fn length(path: &str, text: &str, listed: &[(&str, &str)]) -> Vec<Finding> {
    const RULE: &str = "file-length";
    let lines = text.lines().count();
    let listed = listed.iter().any(|(name, _)| *name == path);
    match lines {
        _ if lines > TOO_LONG => {
            vec![Finding::broken(path, lines, RULE, format!("split by topic: {lines} lines, {TOO_LONG} is the end"))]
        }
        _ if lines > LONG && !listed => {
            let advice = format!("{lines} lines: split by topic, or list it with a reason in xtask/src/tidy/rust.rs");
            vec![Finding::note(path, lines, RULE, advice)]
        }
        _ if lines <= LONG && listed => {
            vec![Finding::broken(path, 1, RULE, "no longer long: take it off the list in xtask/src/tidy/rust.rs")]
        }
        _ => Vec::new(),
    }
}

fn module_docs(path: &str, text: &str) -> Vec<Finding> {
    let first = text.lines().find(|line| !line.trim().is_empty());
    if first.is_some_and(|line| line.starts_with("//!")) {
        return Vec::new();
    }
    vec![Finding::broken(path, 1, "module-docs", "start with `//!`: what the file decides, and for whom")]
}

fn safety_notes(path: &str, text: &str, code: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let has_note = |index: usize| {
        let nearby = lines.get(index.saturating_sub(SAFETY_DISTANCE)..=index).unwrap_or_default();
        nearby.iter().any(|line| line.contains("SAFETY:"))
    };
    code.lines()
        .enumerate()
        .filter(|(index, line)| opens_unsafe_block(line) && !has_note(*index))
        .map(|(index, _)| {
            let advice = "say in a `// SAFETY:` comment right above why this is sound";
            Finding::broken(path, index + 1, "safety-note", advice)
        })
        .collect()
}

fn opens_unsafe_block(line: &str) -> bool {
    words(line, "unsafe").any(|(_, after)| after.trim_start().starts_with('{'))
}

/// Also caught by clippy where a crate is linted for this target; the eBPF and fuzz crates are not.
fn lint_reasons(path: &str, code: &str) -> Vec<Finding> {
    let attributes = ["expect", "allow"].into_iter().flat_map(|name| {
        words(code, name).filter(move |(at, after)| {
            let before = code.get(..*at).unwrap_or_default().trim_end();
            // `#[expect(`, `#![expect(`, and inside `cfg_attr(.., expect(`; not the method `expect(`.
            let in_attribute = before.ends_with("#[")
                || before.ends_with("#![")
                || (before.ends_with(',') && before.rsplit("#[").next().is_some_and(is_open_cfg_attr));
            in_attribute && after.starts_with('(') && !argument(after).contains("reason")
        })
    });
    let mut findings: Vec<Finding> = attributes
        .map(|(at, _)| {
            Finding::broken(path, line_of(code, at), "lint-reason", "add `reason = \"..\"`: why the lint is wrong here")
        })
        .collect();
    findings.sort();
    findings
}

fn unfinished(path: &str, code: &str) -> Vec<Finding> {
    UNFINISHED
        .iter()
        .flat_map(|name| words(code, name))
        .filter(|(_, after)| after.trim_start().starts_with("!(") || after.trim_start().starts_with("! ("))
        .map(|(at, _)| Finding::broken(path, line_of(code, at), "unfinished", "finish it, or take it out"))
        .collect()
}

fn ignored_tests(path: &str, code: &str) -> Vec<Finding> {
    words(code, "ignore")
        .filter(|(at, _)| code.get(..*at).is_some_and(|before| before.trim_end().ends_with("#[")))
        .map(|(at, _)| {
            let advice = "a test runs or does not exist: mend it, or make what it needs a condition that it reports";
            Finding::broken(path, line_of(code, at), "ignored-test", advice)
        })
        .collect()
}

/// Every occurrence of the identifier `word`: its place, and what follows it.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).filter_map(move |(at, _)| {
        let (before, rest) = code.split_at(at);
        let after = rest.get(word.len()..)?;
        (!before.ends_with(of_a_name) && !after.starts_with(of_a_name)).then_some((at, after))
    })
}

/// What stands between the parenthesis at the start of `text` and its partner.
fn argument(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth <= 1 => return text.get(..at).unwrap_or_default(),
            ')' => depth -= 1,
            _ => {}
        }
    }
    text
}

fn is_open_cfg_attr(text: &str) -> bool {
    text.starts_with("cfg_attr(") && !text.contains(']')
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::super::Weight;
    use super::super::tests::lines;
    use super::*;

    #[test]
    fn long_files_are_noted_and_very_long_ones_refused() {
        let listed: &[(&str, &str)] = &[("listed.rs", "one table")];
        let rows = [
            ("short", "a.rs", 400, None),
            ("long", "a.rs", 401, Some(Weight::Note)),
            ("too long", "a.rs", 801, Some(Weight::Broken)),
            ("long and listed", "listed.rs", 401, None),
            ("too long even when listed", "listed.rs", 801, Some(Weight::Broken)),
            ("listed for nothing", "listed.rs", 400, Some(Weight::Broken)),
        ];
        for (name, path, count, expected) in rows {
            let findings = length(path, &"x\n".repeat(count), listed);
            assert_eq!(findings.first().map(|finding| finding.weight), expected, "{name}");
        }
    }

    #[test]
    fn a_file_starts_with_its_docs() {
        let rows = [
            ("docs", "//! D.\nfn a() {}\n", true),
            ("docs after a blank line", "\n//! D.\n", true),
            ("no docs", "fn a() {}\n", false),
            ("docs after an attribute", "#![no_std]\n//! D.\n", false),
            ("a plain comment", "// D.\n", false),
            ("empty", "", false),
        ];
        for (name, text, good) in rows {
            assert_eq!(module_docs("a.rs", text).is_empty(), good, "{name}");
        }
    }

    #[test]
    fn an_unsafe_block_has_a_note_close_above() {
        let rows: [(&str, &str, &[usize]); 8] = [
            ("note above", "// SAFETY: s\nunsafe { f() }", &[]),
            ("note three lines above", "// SAFETY: s\n// t\n// u\nunsafe { f() }", &[]),
            ("note four lines above", "// SAFETY: s\n// t\n// u\n// v\nunsafe { f() }", &[5]),
            ("no note", "a();\nunsafe { f() }", &[2]),
            ("no blank", "unsafe{ f() }", &[1]),
            ("unsafe function", "unsafe fn f() {}", &[]),
            ("in a comment", "// unsafe { f() }", &[]),
            ("part of a name", "let not_unsafe = S {};", &[]),
        ];
        for (name, text, expected) in rows {
            assert_eq!(lines(&safety_notes("a.rs", text, &code_only(text)), "safety-note"), expected, "{name}");
        }
    }

    #[test]
    fn a_silenced_lint_has_a_reason() {
        let rows: [(&str, &str, &[usize]); 10] = [
            ("reason", "#[expect(dead_code, reason = \"r\")]", &[]),
            ("no reason", "fn a() {}\n#[expect(dead_code)]", &[2]),
            ("allow", "#[allow(dead_code)]", &[1]),
            ("whole file", "#![allow(dead_code)]", &[1]),
            ("over lines", "#[expect(\n    dead_code,\n    reason = \"r\"\n)]", &[]),
            ("over lines without reason", "#[expect(\n    dead_code,\n)]\nlet reason = 1;", &[1]),
            ("conditional", "#[cfg_attr(test, expect(dead_code))]", &[1]),
            ("conditional with reason", "#[cfg_attr(test, expect(dead_code, reason = \"r\"))]", &[]),
            ("method", "f(a, b.expect(c))", &[]),
            ("function after an attribute", "#[cfg_attr(a, b)]\nfn f() { g(a, expect(c)) }", &[]),
        ];
        for (name, text, expected) in rows {
            assert_eq!(lines(&lint_reasons("a.rs", &code_only(text)), "lint-reason"), expected, "{name}");
        }
    }

    #[test]
    fn nothing_is_left_unfinished() {
        for name in UNFINISHED {
            let rows: [(String, &[usize]); 5] = [
                (format!("a();\n{name}!(b)"), &[2]),
                (format!("// {name}!(b)"), &[]),
                (format!("f(\"{name}!(b)\")"), &[]),
                (format!("my_{name}!(b)"), &[]),
                (format!("{name}(b)"), &[]),
            ];
            for (text, expected) in rows {
                assert_eq!(lines(&unfinished("a.rs", &code_only(&text)), "unfinished"), expected, "{text}");
            }
        }
    }

    #[test]
    fn no_test_is_switched_off() {
        let attribute = "ignore";
        let rows: [(String, &[usize]); 4] = [
            (format!("#[test]\n#[{attribute}]\nfn t() {{}}"), &[2]),
            (format!("#[{attribute} = \"slow\"]"), &[1]),
            (format!("// #[{attribute}]"), &[]),
            (format!("fn {attribute}() {{}}"), &[]),
        ];
        for (text, expected) in rows {
            assert_eq!(lines(&ignored_tests("a.rs", &code_only(&text)), "ignored-test"), expected, "{text}");
        }
    }
}
