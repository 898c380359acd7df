//! Rules for one Rust file, and which of its lines are production code.

use super::Finding;

/// Most lines of production code in a file that owns one thing.
const LONGEST: usize = 400;
/// Longer ones that are better whole, each with its reason.
const LONGER: &[(&str, &str)] = &[];

/// The lines of a file that are neither blank, comment nor test code, each with its number.
#[derive(Debug, Default)]
pub(super) struct Production<'a> {
    pub(super) lines: Vec<(usize, &'a str)>,
    /// Modules in files of their own that only tests have.
    pub(super) test_modules: Vec<&'a str>,
}

impl<'a> Production<'a> {
    /// Relies on what rustfmt does: an item ends with its first line of the same indentation that ends in `;`, `}` or
    /// `,`.
    pub(super) fn of(text: &'a str) -> Self {
        let mut production = Self::default();
        let mut test_item: Option<usize> = None;
        for (index, line) in text.lines().enumerate() {
            let code = line.split(" // ").next().unwrap_or_default().trim();
            let indentation = line.len() - line.trim_start().len();
            if let Some(of_item) = test_item {
                if indentation == of_item && code.ends_with([';', '}', ',']) {
                    let name = code.strip_suffix(';').and_then(|item| item.split_once("mod ")).map(|(_, name)| name);
                    production.test_modules.extend(name);
                    test_item = None;
                }
            } else if code.starts_with("#[cfg(") && code.contains("test") && !code.contains("not(test)") {
                test_item = Some(indentation);
            } else if !code.is_empty() && !code.starts_with("//") {
                production.lines.push((index + 1, code));
            }
        }
        production
    }
}

/// Checks one file.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    [length(path, Production::of(text).lines.len(), LONGER), module_docs(path, text)].into_iter().flatten().collect()
}

fn length(path: &str, lines: usize, longer: &[(&str, &str)]) -> Option<Finding> {
    let listed = longer.iter().any(|(name, _)| *name == path);
    let advice = match lines > LONGEST {
        true if !listed => {
            format!("{lines} lines of production code: split it by what it owns, or list it with a reason")
        }
        false if listed => "no longer long: take it off the list".to_owned(),
        _ => return None,
    };
    Some(Finding::new(path, 1, "file-length", advice))
}

fn module_docs(path: &str, text: &str) -> Option<Finding> {
    let first = text.lines().find(|line| !line.trim().is_empty());
    let missing = !first.is_some_and(|line| line.starts_with("//!"));
    missing.then(|| Finding::new(path, 1, "module-docs", "start with `//!`: what the file owns or decides"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_code_is_what_is_left_without_blanks_comments_and_tests() {
        let rows: [(&str, &str, &[&str]); 9] = [
            ("code", "fn a() {\n    b();\n}\n", &["fn a() {", "b();", "}"]),
            ("blank lines and comments", "//! D.\n\n/// E.\na();\n    // F.\n", &["a();"]),
            ("comment behind code", "a(); // b();\n", &["a();"]),
            ("tests at the end", "a();\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n", &["a();"]),
            ("test function of several lines", "#[cfg(test)]\nfn a(\n    b: u8,\n) {\n    c();\n}\nd();\n", &["d();"]),
            ("test field", "struct A {\n    #[cfg(test)]\n    b: u8,\n    c: u8,\n}\n", &["struct A {", "c: u8,", "}"]),
            ("imports of tests", "#[cfg(test)]\nuse a::{\n    b,\n};\nuse c;\n", &["use c;"]),
            ("further attribute", "#[cfg(test)]\n#[path = \"a.rs\"]\nmod b;\nuse c;\n", &["use c;"]),
            ("tests and fuzz targets", "#[cfg(any(test, feature = \"properties\"))]\npub mod p;\na();\n", &["a();"]),
        ];
        for (name, text, expected) in rows {
            let lines: Vec<&str> = Production::of(text).lines.iter().map(|(_, line)| *line).collect();
            assert_eq!(lines, expected, "{name}");
        }
        assert_eq!(Production::of("#[cfg(test)]\nmod a;\n#[cfg(test)]\npub(crate) mod b;\n").test_modules, ["a", "b"]);
    }

    #[test]
    fn a_file_is_short_or_listed() {
        let rows = [
            ("longest", "a.rs", 400, true),
            ("longer", "a.rs", 401, false),
            ("longer and listed", "listed.rs", 401, true),
            ("listed for nothing", "listed.rs", 400, false),
        ];
        for (name, path, lines, good) in rows {
            assert_eq!(length(path, lines, &[("listed.rs", "one table")]).is_none(), good, "{name}");
        }
    }

    #[test]
    fn a_file_starts_with_its_docs() {
        let rows = [
            ("docs", "\n//! D.\n", true),
            ("none", "fn a() {}\n", false),
            ("after an attribute", "#![no_std]\n//! D.\n", false),
            ("empty", "", false),
        ];
        for (name, text, good) in rows {
            assert_eq!(module_docs("a.rs", text).is_none(), good, "{name}");
        }
    }
}
