//! The code map of ARCHITECTURE.md names every module, and no other.
//!
//! A heading names a crate's folder, the first column of the tables under it modules: `udp/` or `udp/core`. All modules at
//! the top of a crate must be there; a module whose parts are there must have all of its parts there.

use std::collections::BTreeMap;

use super::super::Finding;
use super::super::files::Tree;
use super::super::modules::{Crate, Module};
use super::{cells, code, section};

const PATH: &str = "ARCHITECTURE.md";
const RULE: &str = "code-map";
/// Crates whose folder starts like this must have a heading.
const PRODUCT: &str = "rpxy-l4";

pub(super) fn check(tree: &Tree, crates: &[Crate]) -> Vec<Finding> {
    let mut maps: BTreeMap<&str, (usize, Vec<Module>)> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut current: Option<&Crate> = None;
    for (line, text) in section(tree.text(PATH), "## Code map") {
        if let Some(heading) = text.strip_prefix("### ") {
            current = code(heading).next().and_then(|name| crates.iter().find(|krate| is_folder(name, &krate.folder)));
            current.inspect(|krate| _ = maps.insert(&krate.folder, (line, Vec::new())));
            continue;
        }
        let (Some(krate), Some(cells)) = (current, cells(text)) else { continue };
        for name in cells.first().into_iter().flat_map(|cell| code(cell)) {
            let module: Module = name.trim_end_matches('/').split('/').map(str::to_owned).collect();
            if krate.modules.contains(&module) || name == "main" || name == "lib" {
                maps.entry(&krate.folder).or_default().1.push(module);
            } else {
                findings.push(Finding::new(PATH, line, RULE, format!("`{name}` is not in {}", krate.folder)));
            }
        }
    }
    for krate in crates {
        match maps.get(krate.folder.as_str()) {
            Some((line, named)) => {
                let missing = krate.modules.iter().filter(|module| is_wanted(module, named) && !named.contains(module));
                findings.extend(
                    missing.map(|m| Finding::new(PATH, *line, RULE, format!("`{}` is not in the map", m.join("/")))),
                );
            }
            None if krate.folder.starts_with(PRODUCT) => {
                findings.push(Finding::new(PATH, 1, RULE, format!("no heading with `{}`", krate.folder)));
            }
            None => {}
        }
    }
    findings
}

fn is_folder(name: &str, folder: &str) -> bool {
    let name = name.trim_end_matches('/');
    name == folder || folder.strip_suffix("/src") == Some(name)
}

/// At the top, or beside one that is named.
fn is_wanted(module: &Module, named: &[Module]) -> bool {
    let parent = module.split_last().map(|(_, parent)| parent);
    parent.is_some_and(|parent| {
        parent.is_empty() || named.iter().any(|other| other.len() == module.len() && other.starts_with(parent))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_names_every_module_and_no_other() {
        let rows = [
            ("whole", "| `a`, `b/` | x |", 0),
            ("with the parts of one", "| `a`, `b` | x |\n| `b/c`, `b/d/` | x |", 0),
            ("one part of two", "| `a`, `b` | x |\n| `b/c` | x |", 1),
            ("one missing", "| `a` | x |", 1),
            ("one that is not there", "| `a`, `b`, `e` | x |", 1),
            ("in another column", "| `a` | `b` |", 1),
            ("under another heading", "| `a` | x |\n### Other\n| `b` | x |", 1),
            ("in another section", "| `a` | x |\n## Other\n| `b` | x |", 1),
            ("no heading", "### Other\n", 2),
        ];
        for (name, table, expected) in rows {
            let map = format!("## Code map\n### `rpxy-l4`: it\n| module | holds |\n|---|---|\n{table}\n");
            let sources = ["lib.rs", "a.rs", "b/mod.rs", "b/c.rs", "b/d.rs", "b/tests.rs"];
            let sources = sources.map(|file| format!("rpxy-l4/src/{file}"));
            let mut files: Vec<(&str, &str)> = sources.iter().map(|path| (path.as_str(), "")).collect();
            files.push((PATH, &map));
            let tree = Tree::of(&files);
            assert_eq!(check(&tree, &Crate::all(&tree)).len(), expected, "{name}");
        }
        let tree = Tree::of(&[("rpxy-l4/src/lib.rs", "")]);
        assert_eq!(check(&tree, &Crate::all(&tree)).len(), 1, "no map");
    }
}
