//! `cargo xtask dist`: builds everything that is given to users, into `target/packages`.
//!
//! Programs of Debian do the packing (dpkg-deb, rpmbuild, tar, zstd): each knows its format, and how to leave out the time,
//! the machine and the user. Nothing here depends on the order of a directory or on where the clone is; `--verify` builds a
//! second time elsewhere and compares.

mod archive;
mod deb;
mod epoch;
mod graph;
mod image;
mod licences;
mod program;
mod rpm;
mod sbom;
mod tree;
mod unit;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace::Workspace;
use epoch::Epoch;
use tree::Tree;

/// The only target whose programs can be tried here.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Nobody: only those who publish packages can be reached about them, and say who they are.
const MAINTAINER: &str = "rpxy-l4 maintainers <nobody@rpxy-l4.invalid>";

/// Arguments of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Target triple of the program
    #[arg(long, value_name = "TRIPLE", default_value = TARGET)]
    target: String,

    /// Pack this program instead of building one
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    program: Option<PathBuf>,

    /// Version of the packages [default: that of the workspace]
    #[arg(long, value_name = "VERSION")]
    package_version: Option<String>,

    /// Where to write them [default: target/packages]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,

    /// Who answers for the packages: name and address, as Debian wants it
    #[arg(long, value_name = "NAME <ADDRESS>", default_value = MAINTAINER)]
    maintainer: String,

    /// Build a second time, elsewhere, and fail unless every file is the same
    #[arg(long)]
    verify: bool,
}

/// What all packages of one run share.
#[derive(Debug)]
pub(crate) struct Release {
    /// The version, as in 0.3.0.
    version: String,
    /// Target triple.
    target: String,
    /// Who answers for the packages.
    maintainer: String,
    /// The time that all files have.
    epoch: Epoch,
    /// Where products go.
    out: PathBuf,
}

impl Release {
    /// The architecture as the kernel and rpm call it, like x86_64.
    fn machine(&self) -> &str {
        self.target.split('-').next().unwrap_or_default()
    }

    /// Whether this machine can run the program.
    fn is_native(&self) -> bool {
        self.machine() == std::env::consts::ARCH
    }

    /// The architecture as Debian calls it.
    fn debian_architecture(&self) -> &str {
        match self.machine() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    /// A directory for what a package is made of, empty.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let directory = self.out.join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("cannot empty {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(directory)
    }

    /// `program` with what keeps its product the same.
    fn packer(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string()).env("LC_ALL", "C").env("TZ", "UTC");
        command
    }
}

/// Builds the packages, and with `--verify` a second time.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let release = Release {
        version: arguments.package_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        target: arguments.target.clone(),
        maintainer: arguments.maintainer.clone(),
        epoch: Epoch::of(workspace)?,
        out: arguments.out.clone().unwrap_or_else(|| workspace.scratch("packages")),
    };
    fs::create_dir_all(&release.out).with_context(|| format!("cannot create {}", release.out.display()))?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => program::build(workspace, &release)?,
    };
    let products = pack(workspace, &release, &program)?;
    sum(&release, &products)?;
    if arguments.verify {
        verify::again(workspace, &release, &products)?;
    }
    Ok(())
}

/// Packs `program` as `version` into `out`.
pub(crate) fn of_version(workspace: &Workspace, program: &Path, version: &str, out: &Path) -> Result<()> {
    let (target, maintainer) = (TARGET.to_owned(), MAINTAINER.to_owned());
    let (program, out) = (Some(program.to_owned()), Some(out.to_owned()));
    let package_version = Some(version.to_owned());
    command(workspace, &Arguments { target, program, package_version, out, maintainer, verify: false })
}

/// Makes every product; the names of the files.
fn pack(workspace: &Workspace, release: &Release, program: &Path) -> Result<Vec<String>> {
    let graph = graph::Graph::of(workspace, &release.target)?;
    let papers = [
        ("third-party.txt", licences::text(&graph)?),
        ("sbom.cdx.json", sbom::text(&graph, &release.version, &release.epoch)?),
    ];
    for (name, text) in &papers {
        fs::write(release.out.join(name), text)?;
    }
    let pages = release.fresh("pages")?;
    crate::pages::write(workspace, &pages, &release.epoch.day()?)?;

    let tree = Tree::lay(workspace, release, program, &pages)?;
    let mut products: Vec<String> = papers.iter().map(|(name, _)| (*name).to_owned()).collect();
    products.push(archive::pack(release, &tree)?);
    products.push(deb::pack(workspace, release, &tree)?);
    if release.is_native() {
        products.push(rpm::pack(workspace, release, &tree)?);
        products.push(image::pack(workspace, release, &tree)?);
    } else {
        println!("dist: neither rpm nor image, which are made of what this machine runs");
    }
    Ok(products)
}

/// Writes and shows the checksums and sizes of `products`.
fn sum(release: &Release, products: &[String]) -> Result<()> {
    let mut command = Command::new("sha256sum");
    let sums = process::read(command.current_dir(&release.out).args(products))?;
    fs::write(release.out.join("SHA256SUMS"), &sums)?;
    for line in sums.lines() {
        let name = line.split("  ").nth(1).unwrap_or_default();
        println!("{line}  {} KiB", fs::metadata(release.out.join(name))?.len() / 1024);
    }
    println!("dist: in {}", release.out.display());
    Ok(())
}
