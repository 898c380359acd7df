//! No import cycles: at every level of a crate's module tree, the modules beside each other use one another one way.
//!
//! Whatever stands below a module counts as part of it there. What a module uses of those that it stands in, and they of
//! it, is not asked: a folder may share out its work among its files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Finding;
use super::modules::{Crate, Module};

/// For each module those beside it that it uses, and one place where it does.
type Graph<'a> = BTreeMap<Module, BTreeMap<Module, &'a (String, usize)>>;

/// Returns a finding for each shortest cycle of one crate.
pub(super) fn check(krate: &Crate) -> Vec<Finding> {
    let mut graph = Graph::new();
    for (from, to, place) in krate.uses() {
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        if common < from.len() && common < to.len() {
            let beside = graph.entry(from[..=common].to_vec()).or_default();
            beside.entry(to[..=common].to_vec()).or_insert(place);
        }
    }
    let mut seen: BTreeSet<BTreeSet<&Module>> = BTreeSet::new();
    let mut findings = Vec::new();
    for (from, uses) in &graph {
        for to in uses.keys() {
            let Some(cycle) = way(&graph, to, from) else { continue };
            if seen.insert(cycle.iter().copied().collect()) {
                findings.push(finding(&graph, &cycle));
            }
        }
    }
    findings
}

/// The shortest way, both ends included.
fn way<'a>(graph: &'a Graph<'_>, from: &'a Module, to: &Module) -> Option<Vec<&'a Module>> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut reached = BTreeSet::from([from]);
    while let Some(way) = ways.pop_front() {
        let end = way.last()?;
        if *end == to {
            return Some(way);
        }
        let next = graph.get(*end).into_iter().flat_map(BTreeMap::keys).filter(|next| reached.insert(next));
        ways.extend(next.map(|next| [&way[..], &[next]].concat()));
    }
    None
}

fn finding(graph: &Graph<'_>, cycle: &[&Module]) -> Finding {
    let place = |index: usize| graph[cycle[index]][cycle[(index + 1) % cycle.len()]];
    let steps: Vec<String> = (0..cycle.len())
        .map(|index| {
            let (path, line) = place(index);
            format!(
                "`{}` uses `{}` ({path}:{line})",
                cycle[index].join("::"),
                cycle[(index + 1) % cycle.len()].join("::")
            )
        })
        .collect();
    let (path, line) = place(0);
    Finding::new(path, *line, "import-cycle", steps.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::files::{Files, Tree};
    use super::*;

    #[test]
    fn modules_beside_each_other_use_one_another_one_way() {
        let rows: [(&str, Files<'_>, &[&str]); 14] = [
            ("one way", &[("a.rs", "use crate::b::B;\n"), ("b.rs", "")], &[]),
            ("both ways", &[("a.rs", "use crate::b::B;\n"), ("b.rs", "use super::a;\n")], &["a b"]),
            ("not imported", &[("a.rs", "crate::b::f();\n"), ("b.rs", "x(super::a::C)\n")], &["a b"]),
            ("in a group", &[("a.rs", "use crate::{c, b::{self, B}};\n"), ("b.rs", "use crate::{a::A};\n")], &["a b"]),
            (
                "three",
                &[("a.rs", "use crate::b;\n"), ("b.rs", "use crate::c;\n"), ("c.rs", "use crate::a as x;\n")],
                &["a b c"],
            ),
            ("from below", &[("a/x.rs", "use crate::b::B;\n"), ("b/y.rs", "use crate::a::x::X;\n")], &["a b"]),
            ("further down", &[("a/x.rs", "use super::y::Y;\n"), ("a/y.rs", "use super::x::X;\n")], &["a::x a::y"]),
            ("a folder and its file", &[("a/mod.rs", "use x::X;\nstruct A;\n"), ("a/x.rs", "use super::A;\n")], &[]),
            (
                "through a name that the folder passes on",
                &[("a/mod.rs", "pub use y::Y;\n"), ("a/x.rs", "use super::Y;\n"), ("a/y.rs", "use super::x::X;\n")],
                &["a::x a::y"],
            ),
            (
                "through an imported module",
                &[("a.rs", "use crate::c;\nc::d::f();\n"), ("c/mod.rs", ""), ("c/d.rs", "use crate::a::A;\n")],
                &["a c"],
            ),
            (
                "in tests",
                &[("a.rs", "use crate::b;\n"), ("b.rs", "#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n")],
                &[],
            ),
            ("in a file of tests", &[("a.rs", "use crate::b;\n"), ("b/tests.rs", "use crate::a;\n")], &[]),
            ("in a comment", &[("a.rs", "use crate::b;\n"), ("b.rs", "/// [`crate::a`]\n")], &[]),
            ("a type of another crate", &[("a.rs", "use crate::b;\n"), ("b.rs", "use other::a::A;\n")], &[]),
        ];
        for (name, files, expected) in rows {
            let paths: Vec<(String, &str)> =
                files.iter().map(|(path, text)| (format!("c/src/{path}"), *text)).collect();
            let mut files: Vec<(&str, &str)> = paths.iter().map(|(path, text)| (path.as_str(), *text)).collect();
            files.push(("c/src/lib.rs", "mod a;\nmod b;\n"));
            let findings: Vec<Finding> = Crate::all(&Tree::of(&files)).iter().flat_map(check).collect();
            let cycles: Vec<String> = findings.iter().map(|finding| modules_of(&finding.advice)).collect();
            assert_eq!(cycles, expected, "{name}: {findings:?}");
        }
    }

    /// The modules that an advice names, sorted.
    fn modules_of(advice: &str) -> String {
        let names: BTreeSet<&str> = advice.split('`').skip(1).step_by(2).collect();
        names.into_iter().collect::<Vec<_>>().join(" ")
    }
}
