//! third-party.txt: who wrote what the program contains, and the licences under which it may be given away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::graph::{Crate, Graph};

/// How names of files with licences and notices begin.
const FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// The text about all crates of `graph` that come from elsewhere. Each licence is there once, behind the crates that have it
/// to the letter.
pub(super) fn text(graph: &Graph) -> Result<String> {
    let foreign: Vec<&Crate> = graph.crates.values().filter(|krate| krate.checksum.is_some()).collect();
    let mut out = String::from(
        "rpxy-l4 contains the libraries below, and Rust's standard library (MIT OR Apache-2.0; the Rust Project Developers).\n\
         Of several licences joined by OR, rpxy-l4 is given away under MIT where that is one of them.\n\n",
    );
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for krate in &foreign {
        let origin = krate.repository.as_deref().unwrap_or("https://crates.io");
        writeln!(out, "{} {}: {} ({origin})", krate.name, krate.version, krate.licence)?;
        let mut found = licences(&krate.directory)?;
        if found.is_empty() {
            // Some leave the files of their repository out of a package.
            let sibling =
                foreign.iter().filter(|other| other.repository.is_some() && other.repository == krate.repository);
            found = sibling
                .map(|other| licences(&other.directory))
                .find(|found| !matches!(found, Ok(none) if none.is_empty()))
                .unwrap_or_else(|| Ok(vec![by_name(krate)?]))?;
        }
        for text in found {
            texts.entry(text).or_default().insert(format!("{} {}", krate.name, krate.version));
        }
    }
    for (text, crates) in texts {
        let crates: Vec<String> = crates.into_iter().collect();
        write!(out, "\n{}\n{}\n\n{text}\n", "=".repeat(72), crates.join(", "))?;
    }
    Ok(out)
}

/// The texts of the files with licences in `directory`, in order of their names.
fn licences(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && FILES.iter().any(|start| name.starts_with(start)) {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        Ok(text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect::<String>().trim_matches('\n').to_owned()
            + "\n")
    };
    paths.iter().map(read).collect()
}

/// The licence of a crate without a file, where its text needs none but names.
fn by_name(krate: &Crate) -> Result<String> {
    let is_mit = krate.licence.split(" OR ").any(|licence| licence.trim_matches(['(', ')']) == "MIT");
    if !is_mit {
        bail!("{} {} has no file with its licence ({})", krate.name, krate.version, krate.licence);
    }
    let authors =
        if krate.authors.is_empty() { format!("the authors of {}", krate.name) } else { krate.authors.join(", ") };
    let ours = include_str!("../../../LICENSE");
    let (_, grant) = ours.split_once("Permission is hereby").context("LICENSE is not that of MIT")?;
    Ok(format!("MIT License\n\nCopyright (c) {authors}\n\nPermission is hereby{grant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn krate(name: &str, licence: &str, directory: &Path) -> (String, Crate) {
        let krate = Crate {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: licence.to_owned(),
            repository: None,
            authors: vec!["Ann".to_owned()],
            directory: directory.to_owned(),
            checksum: Some("abc".to_owned()),
            needs: BTreeSet::new(),
        };
        (krate.purl(), krate)
    }

    #[test]
    fn a_licence_is_there_once_and_every_crate_has_one() {
        let [one, two, none] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        for directory in [&one, &two] {
            fs::write(directory.path().join("LICENSE-MIT"), "Take it.\r\n").unwrap();
        }
        fs::write(one.path().join("NOTICE"), "By Bob.").unwrap();
        let crates = [
            krate("a", "MIT", one.path()),
            krate("b", "MIT", two.path()),
            krate("c", "Apache-2.0 OR MIT", none.path()),
        ];
        let told = text(&Graph { crates: crates.into() }).unwrap();
        assert_eq!(told.matches("Take it.").count(), 1, "{told}");
        for expected in
            ["a 1.0.0, b 1.0.0\n\nTake it.\n", "By Bob.", "Copyright (c) Ann\n", "c 1.0.0: Apache-2.0 OR MIT"]
        {
            assert!(told.contains(expected), "{expected}: {told}");
        }
        let unknown = Graph { crates: [krate("d", "ISC", none.path())].into() };
        assert!(text(&unknown).unwrap_err().to_string().contains("d 1.0.0 has no file"));
    }
}
