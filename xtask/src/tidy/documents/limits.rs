//! The limits in docs/limits.md are those of the code and the defaults of the configuration.
//!
//! In its tables, each quantity in the column `limit` belongs to the name at the same position in the
//! column `key or constant`: a key of config.example.toml, or a constant by its path in the daemon (`udp::core::FLOWS`) or
//! in another crate (`rpxy_l4_proto::quic::HELLO`).

use super::super::Finding;
use super::super::files::Tree;
use super::{cells, code};

const PATH: &str = "docs/limits.md";
const RULE: &str = "limits";
const EXAMPLE: &str = "config.example.toml";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut columns: Option<(usize, usize)> = None;
    let mut rows = 0;
    for (line, text) in tree.text(PATH).lines().enumerate().map(|(index, text)| (index + 1, text)) {
        let Some(cells) = cells(text) else {
            columns = None;
            continue;
        };
        let column = |name: &str| cells.iter().position(|cell| *cell == name);
        let Some((limit, name)) = columns else {
            columns = column("limit").zip(column("key or constant"));
            continue;
        };
        let (limits, names) = (cells.get(limit).unwrap_or(&""), cells.get(name).unwrap_or(&""));
        let (said, names): (Vec<Value>, Vec<&str>) = (quantities(limits), code(names).collect());
        if names.is_empty() {
            continue;
        }
        rows += 1;
        if said.len() != names.len() {
            let advice = format!("{} quantities for {} names", said.len(), names.len());
            findings.push(Finding::new(PATH, line, RULE, advice));
        }
        for (said, name) in said.iter().zip(names) {
            let advice = match value(tree, name) {
                Some(is) if is == *said => continue,
                Some(is) => format!("`{name}` is {is:?}, not {said:?}"),
                None => format!("`{name}` is neither a key of {EXAMPLE} nor a constant with a plain value"),
            };
            findings.push(Finding::new(PATH, line, RULE, advice));
        }
    }
    if rows == 0 {
        findings.push(Finding::new(PATH, 1, RULE, "no table with the columns `limit` and `key or constant`"));
    }
    findings
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    /// A count, or bytes.
    Number(u64),
    Milliseconds(u64),
}

impl Value {
    fn of(number: u64, unit: &str) -> Self {
        match unit {
            "KiB" => Self::Number(number << 10),
            "MiB" => Self::Number(number << 20),
            "ms" => Self::Milliseconds(number),
            "s" | "seconds" => Self::Milliseconds(number * 1000),
            "min" | "minutes" | "m" => Self::Milliseconds(number * 60_000),
            "h" | "hours" => Self::Milliseconds(number * 3_600_000),
            _ => Self::Number(number),
        }
    }
}

/// The quantities of a text: numbers with the word behind them. `none` is 0, as in the configuration.
fn quantities(text: &str) -> Vec<Value> {
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches([',', ';', '.', '(', ')'])).collect();
    let number = |word: &str| if word == "none" { Some(0) } else { word.replace(',', "").parse().ok() };
    let unit = |index: usize| words.get(index + 1).copied().unwrap_or_default();
    words.iter().enumerate().filter_map(|(index, word)| Some(Value::of(number(word)?, unit(index)))).collect()
}

fn value(tree: &Tree, name: &str) -> Option<Value> {
    match name.rsplit_once("::") {
        Some((module, name)) => constant(source(tree, module)?, name),
        None => default(tree.text(EXAMPLE), name),
    }
}

/// The default of a key: a number, or a string with a duration (`"3s"`).
fn default(example: &str, key: &str) -> Option<Value> {
    let assignment = format!("# {key} = ");
    let text = example.lines().find_map(|line| line.strip_prefix(&assignment))?;
    let text = text.split(" # ").next()?.trim().trim_matches('"');
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some(Value::of(text[..digits].parse().ok()?, &text[digits..]))
}

/// The text of a module's file.
fn source<'a>(tree: &'a Tree, module: &str) -> Option<&'a str> {
    let (folder, module) = match module.split_once("::") {
        Some((name, module)) if name.starts_with("rpxy_l4_") => (name.replace('_', "-"), module),
        _ => ("rpxy-l4".to_owned(), module),
    };
    let path = format!("{folder}/src/{}", module.replace("::", "/"));
    let candidates = [format!("{path}.rs"), format!("{path}/mod.rs")];
    candidates.iter().map(|path| tree.text(path)).find(|text| !text.is_empty())
}

/// The value of `const name: .. = ..;`, where that is a product of numbers, or a `Duration` of one.
fn constant(source: &str, name: &str) -> Option<Value> {
    let declaration = format!("const {name}:");
    let text = source.split_once(&declaration)?.1.split_once('=')?.1.split_once(';')?.0.trim();
    let (text, unit) = match text.strip_prefix("Duration::from_").and_then(|text| text.strip_suffix(')')) {
        Some(text) => {
            let (unit, text) = text.split_once('(')?;
            (text, if unit == "millis" { "ms" } else { "s" })
        }
        None => (text, ""),
    };
    let number = |factor: &str| factor.trim().replace('_', "").parse::<u64>().ok();
    let product =
        |text: &str| text.split('*').map(number).try_fold(1_u64, |product, factor| product.checked_mul(factor?));
    match text.split_once("<<") {
        Some((number, bits)) => Some(Value::of(product(number)? << product(bits)?, unit)),
        None => Some(Value::of(product(text)?, unit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_code_and_the_example() {
        let rows = [
            ("key", "1024; over all", "`connections`", 0),
            ("key with a comment", "7", "`commented`", 0),
            ("duration of a key", "3 s", "`timeout`", 0),
            ("none", "none", "`never`", 0),
            ("constant", "131,072", "`udp::ids::MOST`", 0),
            ("of a folder", "64 KiB a flow", "`udp::BYTES`", 0),
            ("duration", "2 s each", "`udp::ids::WAIT`", 0),
            ("of another crate", "16 KiB", "`rpxy_l4_proto::quic::HELLO`", 0),
            ("several", "131,072; 2 s each", "`udp::ids::MOST`, `udp::ids::WAIT`", 0),
            ("another value", "1000", "`connections`", 1),
            ("another unit", "3 ms", "`timeout`", 1),
            ("one name for two", "1024, 2 s each", "`connections`", 1),
            ("no such key", "1", "`nothing`", 1),
            ("no such constant", "1", "`udp::ids::NONE`", 1),
            ("no table", "", "", 1),
        ];
        let ids = "const MOST: usize = 128 * 1024;\nconst WAIT: Duration = Duration::from_secs(2);\n";
        for (name, limit, names, expected) in rows {
            let limits = format!(
                "# Limits\n\n| what | limit | key or constant | then |\n|---|---|---|---|\n| x | {limit} | {names} | y |\n"
            );
            let tree = Tree::of(&[
                (PATH, &limits),
                (EXAMPLE, "# connections = 1024\n# commented = 7   # default: 8\n# timeout = \"3s\"\n# never = 0\n"),
                ("rpxy-l4/src/udp/ids.rs", ids),
                ("rpxy-l4/src/udp/mod.rs", "pub(crate) const BYTES: usize = 64 << 10;\n"),
                ("rpxy-l4-proto/src/quic/mod.rs", "pub const HELLO: usize = 16 * 1024;\n"),
            ]);
            let findings = check(&tree);
            assert_eq!(findings.len(), expected, "{name}: {findings:?}");
        }
    }
}
