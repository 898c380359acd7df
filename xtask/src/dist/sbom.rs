//! The software bill of materials, in CycloneDX 1.5 (<https://cyclonedx.org/docs/1.5/json/>).

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::epoch::Epoch;
use super::graph::{Crate, Graph};

/// The document about what `graph` has, in the `version` of the packages.
pub(super) fn text(graph: &Graph, version: &str, epoch: &Epoch) -> Result<String> {
    let root = graph.crates.values().find(|krate| krate.name == "rpxy-l4").context("the daemon is not in its graph")?;
    let components = graph.crates.values().filter(|krate| krate.name != root.name).map(component);
    let dependencies = graph.crates.values().map(|krate| json!({ "ref": krate.purl(), "dependsOn": krate.needs }));
    let mut daemon = component(root);
    daemon["type"] = json!("application");
    daemon["version"] = json!(version);
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "timestamp": epoch.format("%Y-%m-%dT%H:%M:%SZ")?, "component": daemon },
        "components": components.collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    });
    Ok(format!("{document:#}\n"))
}

fn component(krate: &Crate) -> Value {
    let purl = krate.purl();
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": krate.name,
        "version": krate.version,
        "purl": purl,
        "licenses": [{ "expression": krate.licence }],
    });
    if let Some(checksum) = &krate.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(repository) = &krate.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn every_crate_has_a_licence_and_every_dependency_is_a_component() {
        let workspace = Workspace::locate().unwrap();
        let graph = Graph::of(&workspace, super::super::TARGET).unwrap();
        let text = text(&graph, "1.2.3", &Epoch::of(&workspace).unwrap()).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["metadata"]["component"]["version"], "1.2.3");
        let mut known: Vec<&Value> = vec![&document["metadata"]["component"]["bom-ref"]];
        for component in document["components"].as_array().unwrap() {
            known.push(&component["bom-ref"]);
            assert!(
                component["licenses"][0]["expression"].as_str().is_some_and(|text| !text.is_empty()),
                "{component}"
            );
        }
        assert!(known.len() > 100, "{}", known.len());
        for dependency in document["dependencies"].as_array().unwrap() {
            for reference in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(&reference), "{reference}");
            }
        }
        let has = |name: &str| text.contains(&format!("\"pkg:cargo/{name}@"));
        for (name, contained) in [("tokio", true), ("aya-ebpf", true), ("quinn", false), ("proptest", false)] {
            assert_eq!(has(name), contained, "{name}");
        }
    }
}
