//! The module trees of all crates, and which module names which in its code.
//!
//! Read from the text, without a compiler: a crate is a folder with a `lib.rs` or `main.rs`, a module is a file or folder
//! below it, and a path is followed from name to name, through the imports of the modules that it passes. Tests are left
//! out. A path that starts outside of the crate, or is made by a macro, is not seen.

use std::collections::{BTreeMap, BTreeSet};

use super::files::Tree;
use super::rust::Production;

/// Names from the root of a crate to a module; empty for the root.
pub(super) type Module = Vec<String>;

/// One crate.
#[derive(Debug, Default)]
pub(super) struct Crate {
    /// Its folder, with the `lib.rs` or `main.rs`.
    pub(super) folder: String,
    pub(super) modules: BTreeSet<Module>,
    paths: Vec<NamedPath>,
    /// What the names that a module imports stand for.
    imports: BTreeMap<(Module, String), Vec<String>>,
}

/// A path in the code, with the place where it stands.
#[derive(Debug)]
struct NamedPath {
    module: Module,
    place: (String, usize),
    names: Vec<String>,
}

impl Crate {
    /// Reads every crate of the repository.
    pub(super) fn all(tree: &Tree) -> Vec<Self> {
        let roots: BTreeSet<&str> =
            tree.paths.iter().filter_map(|p| p.strip_suffix("/lib.rs").or(p.strip_suffix("/main.rs"))).collect();
        let mut crates: BTreeMap<&str, Self> = BTreeMap::new();
        let mut test_modules = BTreeSet::new();
        for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with(".rs")) {
            let root = roots.iter().filter(|root| path.starts_with(&format!("{root}/"))).max_by_key(|root| root.len());
            let Some(root) = root else { continue };
            let module = module(&path[root.len() + 1..]);
            let production = Production::of(text);
            let declared = production.test_modules.iter().map(|name| [&module[..], &[(*name).to_owned()]].concat());
            test_modules.extend(declared.map(|module| (*root, module)));
            let krate = crates.entry(root).or_insert_with(|| Self { folder: (*root).to_owned(), ..Self::default() });
            // A folder is a module, with or without a file of its name.
            krate.modules.extend((0..=module.len()).map(|end| module[..end].to_vec()));
            krate.read(path, &module, &production);
        }
        for (root, krate) in &mut crates {
            let is_test = |module: &[String]| {
                let by_name = module.iter().any(|name| name == "tests" || name.ends_with("_tests") || name == "bin");
                by_name || (1..=module.len()).any(|end| test_modules.contains(&(*root, module[..end].to_vec())))
            };
            krate.modules.retain(|module| !is_test(module));
            krate.paths.retain(|path| !is_test(&path.module));
        }
        crates.into_values().collect()
    }

    /// Pairs of modules, the first of which names the second or what is in it, and where.
    pub(super) fn uses(&self) -> impl Iterator<Item = (&Module, Module, &(String, usize))> {
        self.paths.iter().filter_map(|path| {
            let target = self.resolve(&path.module, &path.names, 0)?;
            Some((&path.module, target, &path.place))
        })
    }

    /// Returns the innermost module that `names`, written in `module`, leads to; none if that is another crate's.
    fn resolve(&self, module: &Module, names: &[String], steps: usize) -> Option<Module> {
        // Imports may name each other in a circle.
        if steps > 16 {
            return None;
        }
        let mut at = module.clone();
        for (index, name) in names.iter().enumerate() {
            match name.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => _ = at.pop()?,
                _ => {
                    let child = [&at[..], std::slice::from_ref(name)].concat();
                    if self.modules.contains(&child) {
                        at = child;
                    } else if let Some(import) = self.imports.get(&(at.clone(), name.clone()))
                        && import != names
                    {
                        let names = [import, &names[index + 1..]].concat();
                        return self.resolve(&at, &names, steps + 1).or((index > 0).then_some(at));
                    } else {
                        return (index > 0).then_some(at);
                    }
                }
            }
        }
        Some(at)
    }

    fn read(&mut self, path: &str, module: &Module, production: &Production<'_>) {
        let tokens: Vec<(usize, &str)> =
            production.lines.iter().flat_map(|(line, code)| tokens(code).map(|token| (*line, token))).collect();
        let mut at = 0;
        while let Some(&(line, token)) = tokens.get(at) {
            let text = |at: usize| tokens.get(at).map_or("", |(_, token)| token);
            if !is_name(token) || text(at + 1) != "::" {
                at += 1;
                continue;
            }
            let is_import = at > 0 && text(at - 1) == "use";
            let mut leaves = Vec::new();
            at = leaves_of(&tokens, at, &[], &mut leaves);
            for (names, bound) in leaves {
                if is_import {
                    self.imports.insert((module.clone(), bound), names.clone());
                }
                self.paths.push(NamedPath { module: module.clone(), place: (path.to_owned(), line), names });
            }
        }
    }
}

/// The module that a file holds.
fn module(file: &str) -> Module {
    let mut names: Module = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let last = names.last().map_or("", String::as_str);
    if last == "mod" || (names.len() == 1 && (last == "lib" || last == "main")) {
        names.pop();
    }
    names
}

/// Names, `::` and single characters.
fn tokens(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if rest.starts_with("::") { 2 } else { name.max(first.len_utf8()) };
        let (token, tail) = rest.split_at(length);
        rest = tail;
        Some(token)
    })
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Adds every path of the tree at `at` (`a::{b, c as d, e::*}`) to `leaves`, with the name that it binds in a `use`, and
/// returns where the tree ends.
fn leaves_of(
    tokens: &[(usize, &str)],
    mut at: usize,
    prefix: &[String],
    leaves: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |(_, token)| *token);
    let mut names = prefix.to_vec();
    while is_name(text(at)) {
        // A group's `self` is what stands before the group.
        if names.is_empty() || text(at) != "self" {
            names.push(text(at).to_owned());
        }
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    if text(at) == "{" && at > 0 && text(at - 1) == "::" {
        at += 1;
        while at < tokens.len() && text(at) != "}" {
            let end = leaves_of(tokens, at, &names, leaves);
            at = if text(end) == "," { end + 1 } else { end.max(at + usize::from(end == at)) };
        }
        return at + 1;
    }
    let mut bound = names.last().cloned().unwrap_or_default();
    if text(at) == "as" {
        text(at + 1).clone_into(&mut bound);
        at += 2;
    }
    if text(at) == "*" && text(at.saturating_sub(1)) == "::" {
        bound.clear();
        at += 1;
    }
    leaves.push((names, bound));
    at
}
