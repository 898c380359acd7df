//! `cargo xtask bench`: builds the daemon as it is shipped and hands it to a program of the package rpxy-l4-bench.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::{Profile, Workspace};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The suite to run, `tcp` (when absent), `udp`, `offload`, `splice`, `flood`, `scale` or `ech`, then arguments of its
    /// program (`tcp --help` lists them).
    #[arg(value_name = "SUITE|ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Builds and runs one benchmark suite.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let (suite, rest) = split(&arguments.words)?;
    if suite == Suite::Ech {
        // Computes only: no namespaces, no peers, no daemon.
        let bench = workspace.build("rpxy-l4-bench", suite.program(), Profile::Release)?;
        return process::run(Command::new(bench).args(rest));
    }
    setup::require(workspace, &[Purpose::Build, Purpose::Bench])?;
    if !process::is_root() {
        bail!("the benchmarks run in network namespaces: run `sudo -E cargo xtask bench` instead");
    }
    if matches!(suite, Suite::Offload | Suite::Splice | Suite::Flood) && !workspace.ebpf_object().exists() {
        bail!("the daemon has no eBPF programs: run `cargo xtask build-ebpf` first");
    }
    // Two builds, not one: the daemon must not get features that only the benchmarks ask of a shared dependency.
    let daemon = workspace.build("rpxy-l4", "rpxy-l4", Profile::Release)?;
    let bench = workspace.build("rpxy-l4-bench", suite.program(), Profile::Release)?;
    let mut command = Command::new(bench);
    command.current_dir(&workspace.root).arg("--daemon").arg(daemon);
    if suite == Suite::Offload {
        command.arg("--object").arg(workspace.ebpf_object());
    }
    process::run(command.args(rest))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    Tcp,
    Udp,
    Offload,
    Splice,
    Flood,
    Scale,
    Ech,
}

impl Suite {
    fn program(self) -> &'static str {
        match self {
            Self::Tcp => "bench-tcp",
            Self::Udp => "bench-udp",
            Self::Offload => "bench-offload",
            Self::Splice => "bench-splice",
            Self::Flood => "bench-flood",
            Self::Scale => "bench-scale",
            Self::Ech => "bench-ech",
        }
    }
}

/// The suite may be left out, and options may come first.
fn split(words: &[OsString]) -> Result<(Suite, &[OsString])> {
    match words.split_first() {
        Some((first, rest)) if first == "tcp" => Ok((Suite::Tcp, rest)),
        Some((first, rest)) if first == "udp" => Ok((Suite::Udp, rest)),
        Some((first, rest)) if first == "offload" => Ok((Suite::Offload, rest)),
        Some((first, rest)) if first == "splice" => Ok((Suite::Splice, rest)),
        Some((first, rest)) if first == "flood" => Ok((Suite::Flood, rest)),
        Some((first, rest)) if first == "scale" => Ok((Suite::Scale, rest)),
        Some((first, rest)) if first == "ech" => Ok((Suite::Ech, rest)),
        Some((first, _)) if !first.as_encoded_bytes().starts_with(b"-") => {
            bail!(
                "there is no suite `{}`; there are `tcp`, `udp`, `offload`, `splice`, `flood`, `scale` and `ech`",
                first.display()
            )
        }
        Some(_) | None => Ok((Suite::Tcp, words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_comes_first_or_not_at_all() {
        let rows: [(&str, &[&str], Option<Suite>, usize); 11] = [
            ("TCP in the kernel", &["splice", "--rounds", "3"], Some(Suite::Splice), 2),
            ("large files", &["scale", "--connections", "3"], Some(Suite::Scale), 2),
            ("floods", &["flood", "--seconds", "3"], Some(Suite::Flood), 2),
            ("the suite of the kernel plane", &["offload", "--rounds", "3"], Some(Suite::Offload), 2),
            ("nothing", &[], Some(Suite::Tcp), 0),
            ("suite alone", &["tcp"], Some(Suite::Tcp), 0),
            ("suite and options", &["tcp", "--rounds", "3"], Some(Suite::Tcp), 2),
            ("the other suite", &["udp", "--rounds", "3"], Some(Suite::Udp), 2),
            ("without a network", &["ech", "--rounds", "3"], Some(Suite::Ech), 2),
            ("options alone", &["--rounds", "3"], Some(Suite::Tcp), 2),
            ("unknown suite", &["sctp"], None, 0),
        ];
        for (name, words, suite, passed_on) in rows {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let rest = split(&words).ok().map(|(suite, rest)| (suite, rest.to_vec()));
            let expected = suite.map(|suite| (suite, words[words.len() - passed_on..].to_vec()));
            assert_eq!(rest, expected, "{name}");
        }
    }
}
