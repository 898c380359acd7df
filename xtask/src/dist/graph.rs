//! The crates that a release contains: what the daemon and the eBPF programs are linked with, for one target.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// The programs: the daemon, and what is embedded in it, which has a target of its own.
const ROOTS: [(&str, Option<&str>); 2] = [("rpxy-l4", None), ("rpxy-l4-ebpf", Some("bpfel-unknown-none"))];

/// A crate of the release.
#[derive(Debug, Clone)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) licence: String,
    pub(super) repository: Option<String>,
    pub(super) authors: Vec<String>,
    /// Where its sources are.
    pub(super) directory: PathBuf,
    /// SHA-256 of the package that the registry has; none for those of this repository.
    pub(super) checksum: Option<String>,
    /// Identifiers of those that it depends on.
    pub(super) needs: BTreeSet<String>,
}

impl Crate {
    /// Its identifier, and its address in the registry (<https://github.com/package-url/purl-spec>).
    pub(super) fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// All of them, by identifier.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    pub(super) crates: BTreeMap<String, Crate>,
}

impl Graph {
    /// Asks cargo.
    pub(super) fn of(workspace: &Workspace, target: &str) -> Result<Self> {
        let mut cargo = workspace.cargo();
        cargo.args(["metadata", "--locked", "--format-version", "1"]);
        let metadata =
            serde_json::from_str(&process::read(&mut cargo)?).context("cargo metadata did not print JSON")?;
        let lock = std::fs::read_to_string(workspace.path("Cargo.lock")).context("cannot read Cargo.lock")?;
        let mut graph = Self::read(&metadata, &checksums(&lock)).context("cargo metadata is not as expected")?;
        // The metadata has features that only tests turn on, and all targets.
        let mut linked = BTreeSet::new();
        for (root, its_target) in ROOTS {
            let mut cargo = workspace.cargo();
            cargo.args(["tree", "--locked", "--package", root, "--edges", "normal"]);
            cargo.args(["--target", its_target.unwrap_or(target)]);
            let said = process::read(cargo.args(["--prefix", "none", "--format", "{p}"]))?;
            linked.extend(said.lines().filter_map(purl_of));
        }
        graph.crates.retain(|purl, _| linked.contains(purl));
        for krate in graph.crates.values_mut() {
            krate.needs.retain(|purl| linked.contains(purl));
        }
        Ok(graph)
    }

    fn read(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Option<Self> {
        let packages: BTreeMap<&str, &Value> = metadata["packages"]
            .as_array()?
            .iter()
            .filter_map(|package| Some((package["id"].as_str()?, package)))
            .collect();
        let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
            .as_array()?
            .iter()
            .filter_map(|node| Some((node["id"].as_str()?, node)))
            .collect();
        let is_root =
            |id: &&&str| packages.get(**id).is_some_and(|of| ROOTS.iter().any(|(root, _)| of["name"] == *root));
        let mut left: Vec<&str> = packages.keys().filter(is_root).copied().collect();
        let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        while let Some(id) = left.pop() {
            if found.contains_key(id) {
                continue;
            }
            let needs = linked(nodes.get(id)?);
            left.extend(&needs);
            found.insert(id, needs);
        }
        let described: BTreeMap<&str, Crate> =
            found.keys().filter_map(|id| Some((*id, describe(packages.get(id)?, checksums)?))).collect();
        let crates = described.iter().map(|(id, krate)| {
            let needs =
                found.get(id).into_iter().flatten().filter_map(|id| described.get(id)).map(Crate::purl).collect();
            (krate.purl(), Crate { needs, ..krate.clone() })
        });
        Some(Self { crates: crates.collect() })
    }
}

/// The identifier of the crate in a line of `cargo tree`, like `a v1.0.0 (*)`.
fn purl_of(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    Some(format!("pkg:cargo/{}@{}", words.next()?, words.next()?.strip_prefix('v')?))
}

/// Identifiers of what a node is linked with: neither build scripts nor tests.
fn linked(node: &Value) -> Vec<&str> {
    let is_linked = |dependency: &&Value| {
        dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    let dependencies = node["deps"].as_array().into_iter().flatten();
    dependencies.filter(is_linked).filter_map(|dependency| dependency["pkg"].as_str()).collect()
}

fn describe(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Option<Crate> {
    let text = |key: &str| package[key].as_str().map(str::to_owned);
    let (name, version) = (text("name")?, text("version")?);
    let checksum = checksums.get(&(name.clone(), version.clone())).cloned();
    let authors = package["authors"].as_array().into_iter().flatten();
    Some(Crate {
        checksum,
        licence: text("license").unwrap_or_default().replace('/', " OR "),
        repository: text("repository"),
        authors: authors.filter_map(|author| author.as_str().map(str::to_owned)).collect(),
        directory: PathBuf::from(text("manifest_path")?).parent()?.to_owned(),
        needs: BTreeSet::new(),
        name,
        version,
    })
}

/// Name and version of each package in a lock file, to its checksum.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let packages = lock.split("[[package]]").skip(1);
    let value = |package: &str, key: &str| {
        let start = format!("{key} = \"");
        package.lines().find_map(|line| Some(line.strip_prefix(&start)?.strip_suffix('"')?.to_owned()))
    };
    let sums = packages.filter_map(|package| {
        Some(((value(package, "name")?, value(package, "version")?), value(package, "checksum")?))
    });
    sums.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_linked_is_in_the_graph_and_nothing_else() {
        let package = |id: &str, name: &str| json!({ "id": id, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "manifest_path": "/a/Cargo.toml" });
        let needs = |id: &str, kind: Value| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("d", "rpxy-l4"), package("e", "rpxy-l4-ebpf"), package("a", "a"), package("b", "b"),
                         package("t", "t"), package("o", "o"), package("s", "s")],
            "resolve": { "nodes": [
                { "id": "d", "deps": [needs("a", json!(null)), needs("t", json!("dev")), needs("s", json!("build"))] },
                { "id": "e", "deps": [needs("b", json!(null))] },
                { "id": "a", "deps": [needs("b", json!(null))] },
                { "id": "b", "deps": [] }, { "id": "t", "deps": [] }, { "id": "o", "deps": [] }, { "id": "s", "deps": [] },
            ] },
        });
        let lock = "[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n";
        let graph = Graph::read(&metadata, &checksums(lock)).unwrap();
        let names: Vec<_> = graph.crates.values().map(|krate| krate.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "rpxy-l4-ebpf", "rpxy-l4"]);
        let (a, b) = (&graph.crates["pkg:cargo/a@1.0.0"], &graph.crates["pkg:cargo/b@1.0.0"]);
        assert_eq!((a.licence.as_str(), a.needs.len(), &a.checksum), ("MIT OR Apache-2.0", 1, &None));
        assert_eq!(b.checksum.as_deref(), Some("abc"));
        assert_eq!(purl_of("b v1.0.0 (*)").as_deref(), Some("pkg:cargo/b@1.0.0"));
        assert_eq!(purl_of(""), None);
    }
}
