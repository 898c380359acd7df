//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Layer-4 reverse proxy and protocol multiplexer for TCP and UDP.
#[derive(Debug, Parser)]
#[command(name = "rpxy-l4", version)]
pub struct Cli {
    /// Configuration file path like ./config.toml
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Directory for log files. If not specified, logs are printed to stdout.
    #[arg(short, long, value_name = "LOG_DIR")]
    pub log_dir: Option<PathBuf>,

    /// Check the configuration file and exit
    #[arg(long)]
    pub check: bool,

    /// Wait for a valid configuration file instead of ending when it is missing or invalid
    #[arg(long, conflicts_with = "check")]
    pub wait_for_config: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_0_2_are_accepted() {
        for (case, arguments) in [
            ("long", &["--config", "c.toml", "--log-dir", "l"] as &[&str]),
            ("short", &["-c", "c.toml", "-l", "l"]),
            ("with equals", &["--config=c.toml", "--log-dir=l"]),
        ] {
            let cli = Cli::try_parse_from([&["rpxy-l4"], arguments].concat()).unwrap();
            assert_eq!((cli.config, cli.log_dir), ("c.toml".into(), Some("l".into())), "{case}");
        }
    }

    #[test]
    fn usage_errors_exit_with_2() {
        for (case, arguments) in [("no config", &[] as &[&str]), ("unknown", &["-c", "f", "--nonsense"])] {
            let error = Cli::try_parse_from([&["rpxy-l4"], arguments].concat()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{case}");
        }
    }
}
