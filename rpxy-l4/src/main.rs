//! The rpxy-l4 daemon: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::{io::Write, process::ExitCode};

use clap::Parser;
use rpxy_l4::{cli::Cli, config, supervise};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = if cli.check { check(&cli) } else { supervise::run(&cli) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// `--check`: the verdict on stdout, everything there is to say about the file on stderr.
fn check(cli: &Cli) -> anyhow::Result<()> {
    let loaded = config::load(&cli.config)?;
    for warning in &loaded.warnings {
        say(&mut std::io::stderr(), &format!("warning: {}", warning.in_file(&cli.config)));
    }
    say(&mut std::io::stdout(), &format!("{} is valid", cli.config.display()));
    Ok(())
}

/// Nobody is left to tell when the terminal is gone.
fn say(to: &mut impl Write, line: &str) {
    drop(writeln!(to, "{line}"));
}
