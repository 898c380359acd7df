//! `cargo xtask fuzz`: runs the fuzz targets on whatever toolchain is there.
//!
//! Coverage instrumentation needs unstable compiler flags. `RUSTC_BOOTSTRAP` lets the pinned stable compiler take them,
//! so that what is fuzzed is what is shipped and no second toolchain has to be installed. The parsers forbid unsafe
//! code, so a sanitizer has little to find and is off unless asked for; those offered do not need the standard
//! library rebuilt from its sources.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The target to run; all of them if absent
    target: Option<String>,
    /// Seconds that each target runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Sanitizer to build with
    #[arg(long, default_value = "none", value_parser = ["none", "address", "leak"])]
    sanitizer: String,
}

/// Runs one or all targets, all of them also after a finding. Fails in the end, with the names of those that failed.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::require(workspace, &[Purpose::Build, Purpose::Fuzz])?;
    let known = targets(workspace)?;
    let chosen = choose(&known, arguments.target.as_deref())?;
    let mut failures = Vec::new();
    for target in chosen {
        println!("\n==> fuzz {target}, {} s", arguments.seconds);
        if let Err(error) = fuzz(workspace, target, arguments) {
            println!("{error:#}");
            failures.push(target);
        }
    }
    if !failures.is_empty() {
        bail!(
            "failed: {}; the input is in fuzz/artifacts/<target>: shrink it with `cargo fuzz tmin`, fix the parser, and \
             add the file to fuzz/corpus/<target>, which `cargo test` replays",
            failures.join(", ")
        );
    }
    Ok(())
}

fn fuzz(workspace: &Workspace, target: &str, arguments: &Arguments) -> Result<()> {
    // libFuzzer writes what it finds to its first directory. The committed corpus comes second, so that it stays small.
    let found = workspace.scratch("fuzz-corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    let mut command = cargo_fuzz(workspace, "run");
    command.arg("--sanitizer").arg(&arguments.sanitizer).arg("--target-dir").arg(workspace.scratch("fuzz"));
    command.arg(target).arg(found);
    let seeds = workspace.path("fuzz/corpus").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    // A single input that takes 10 s, or 2 GiB, is a finding: strangers choose the bytes.
    command.args(["--", "-timeout=10", "-rss_limit_mb=2048"]).arg(format!("-max_total_time={}", arguments.seconds));
    process::run(&mut command)
}

fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let text = process::read(&mut cargo_fuzz(workspace, "list"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn cargo_fuzz(workspace: &Workspace, subcommand: &str) -> std::process::Command {
    let mut command = workspace.cargo();
    command.env("RUSTC_BOOTSTRAP", "1").args(["fuzz", subcommand, "--fuzz-dir"]).arg(Path::new("fuzz"));
    command
}

fn choose<'a>(known: &'a [String], wanted: Option<&str>) -> Result<Vec<&'a str>> {
    let chosen: Vec<&str> =
        known.iter().map(String::as_str).filter(|name| wanted.is_none_or(|wanted| wanted == *name)).collect();
    if chosen.is_empty() {
        bail!("there is no fuzz target `{}`; there are: {}", wanted.unwrap_or_default(), known.join(", "));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_chosen_by_its_whole_name() {
        let known = ["http".to_owned(), "http2".to_owned()];
        let rows: [(Option<&str>, &[&str]); 3] =
            [(None, &["http", "http2"]), (Some("http"), &["http"]), (Some("h"), &[])];
        for (wanted, expected) in rows {
            assert_eq!(choose(&known, wanted).unwrap_or_default(), expected, "{wanted:?}");
        }
    }
}
