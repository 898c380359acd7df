//! `rpxy-l4 unpin`: removes what a daemon with `ebpf.pin` left in the kernel.

use std::{io::Write, path::Path};

use anyhow::Result;

use crate::offload::{self, Pinned};

/// Removes the programs pinned in `path`, or in the `ebpf.pin_path` of the configuration in `file`.
pub(super) fn unpin(path: &Path, file: Option<&Path>, out: &mut impl Write) -> Result<()> {
    let configured = super::load(file)?.map(|config| config.ebpf.pin_path);
    let directory = configured.as_deref().unwrap_or(path);
    match offload::unpin(directory)? {
        Some(Pinned { links, .. }) => writeln!(out, "removed the programs from {links} interfaces")?,
        None => writeln!(out, "nothing is pinned in {}", directory.display())?,
    }
    Ok(())
}
