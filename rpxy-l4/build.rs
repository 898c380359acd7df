//! Embeds the eBPF object when `cargo xtask build-ebpf` has built one. Without it the daemon builds all the same.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Names an object to embed instead of the one in the target directory.
const VARIABLE: &str = "RPXY_L4_EBPF_OBJECT";

fn main() -> io::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(ebpf_object)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let object = match env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => match built(&out) {
            Some(path) => path,
            None => return Ok(()),
        },
    };
    // The directory is watched, not the file: cargo takes one that is missing for one that has changed.
    println!("cargo::rerun-if-changed={}", object.parent().unwrap_or(Path::new(".")).display());
    if object.exists() || env::var_os(VARIABLE).is_some() {
        println!("cargo::rerun-if-changed={}", object.display());
        fs::copy(&object, out.join("rpxy-l4.o"))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", object.display())))?;
        println!("cargo::rustc-cfg=ebpf_object");
    }
    Ok(())
}

/// The path at which `build-ebpf` puts it, in a directory that is made here so that it can be watched; `None` when this
/// is no target directory that can be written.
fn built(out: &Path) -> Option<PathBuf> {
    // <target directory>[/<triple>]/<profile>/build/...
    let build = out.ancestors().find(|directory| directory.ends_with("build"))?;
    let above = build.parent()?.parent()?;
    let is_triple = env::var_os("TARGET").is_some_and(|triple| above.ends_with(triple));
    let directory = if is_triple { above.parent()? } else { above }.join("bpf");
    fs::create_dir_all(&directory).ok()?;
    Some(directory.join("rpxy-l4.o"))
}
