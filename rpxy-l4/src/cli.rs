//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use rpxy_l4_proto::ech::{CipherSuite, Kem};

use crate::{admin, config::model::PIN_PATH, limit};

/// Layer-4 reverse proxy and protocol multiplexer for TCP and UDP. Without a command, runs it.
#[derive(Debug, Parser)]
#[command(name = "rpxy-l4", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to do instead of running the proxy.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How to run the proxy; always there without a command.
    #[command(flatten)]
    pub run: Option<Run>,
}

/// Arguments of the daemon.
#[derive(Debug, Args)]
pub struct Run {
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

/// What can be asked of a running daemon, or of this machine.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a running daemon does, and how full it is
    Status {
        /// Which daemon.
        #[command(flatten)]
        daemon: Daemon,
    },
    /// List the UDP sessions of a running daemon
    Flows {
        /// Which daemon.
        #[command(flatten)]
        daemon: Daemon,
        /// Show so many sessions at most
        #[arg(long, value_name = "COUNT", default_value_t = admin::FLOWS, value_parser = flows)]
        limit: usize,
    },
    /// Refuse a network, until it is unbanned or the daemon ends
    Ban {
        /// Which daemon.
        #[command(flatten)]
        daemon: Daemon,
        /// An address, or a network like 192.0.2.0/24
        #[arg(value_parser = network)]
        network: IpNet,
    },
    /// Let a network in again that was banned by command
    Unban {
        /// Which daemon.
        #[command(flatten)]
        daemon: Daemon,
        /// The network as it was banned
        #[arg(value_parser = network)]
        network: IpNet,
    },
    /// List the networks that a running daemon refuses
    Bans {
        /// Which daemon.
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Make, show and change keys for Encrypted Client Hello
    #[command(subcommand)]
    Ech(Ech),
    /// Remove programs and flows that a daemon with ebpf.pin has left in the kernel
    Unpin {
        /// Directory where they are pinned
        #[arg(short, long, value_name = "PATH", conflicts_with = "config", default_value = PIN_PATH)]
        path: PathBuf,
        /// Configuration file whose ebpf.pin_path is used
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Tell what this machine can do for forwarding in the kernel, and what to change
    Doctor {
        /// Configuration file whose settings are looked at as well
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Keys for Encrypted Client Hello, in files after RFC 9934.
#[derive(Debug, Subcommand)]
pub enum Ech {
    /// Make a key and its configuration
    Generate(Generate),
    /// Show a key file: its configurations, and what to publish of it
    Show {
        /// The key file
        file: PathBuf,
        /// Print the private keys as well, as keys of the configuration file
        #[arg(long)]
        private: bool,
    },
    /// Put a new key in front of a key file, like its first one; the old ones stay
    Rotate {
        /// The key file
        file: PathBuf,
    },
}

/// Arguments of `ech generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// The name that is sent in the clear, like public.example
    #[arg(long, value_name = "NAME")]
    pub public_name: String,

    /// How keys are exchanged: x25519 or p256
    #[arg(long, value_name = "KEM", default_value = "x25519")]
    pub kem: Kem,

    /// Pairs of KDF and AEAD that clients may choose from
    #[arg(
        long,
        value_name = "KDF/AEAD",
        value_delimiter = ',',
        default_value = "hkdf-sha256/aes-128-gcm,hkdf-sha256/chacha20-poly1305"
    )]
    pub suites: Vec<CipherSuite>,

    /// The number that clients name the configuration by, from 0 to 255; at random if not given
    #[arg(long, value_name = "NUMBER")]
    pub config_id: Option<u8>,

    /// The longest private name in bytes, so that padding hides how long they are
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub max_name_length: u8,

    /// The file to make, readable by its owner only; standard output if not given
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Where the daemon is asked.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Daemon {
    /// The daemon's admin socket
    #[arg(short, long, value_name = "PATH", required_unless_present = "config", conflicts_with = "config")]
    pub socket: Option<PathBuf>,

    /// The daemon's configuration file, whose admin_socket is used
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the daemon's JSON lines instead of a table
    #[arg(long)]
    pub json: bool,
}

fn network(text: &str) -> Result<IpNet, String> {
    limit::network(text).ok_or_else(|| "no address and no network such as 192.0.2.0/24".to_owned())
}

fn flows(text: &str) -> Result<usize, String> {
    let wanted = text.parse().ok().filter(|count| (1..=admin::MOST_FLOWS).contains(count));
    wanted.ok_or_else(|| format!("from 1 to {}", admin::MOST_FLOWS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["rpxy-l4"], arguments].concat())
    }

    #[test]
    fn arguments_of_0_2_are_accepted() {
        for (case, arguments) in [
            ("long", &["--config", "c.toml", "--log-dir", "l"] as &[&str]),
            ("short", &["-c", "c.toml", "-l", "l"]),
            ("with equals", &["--config=c.toml", "--log-dir=l"]),
        ] {
            let cli = parse(arguments).unwrap();
            let run = cli.run.unwrap();
            assert_eq!((run.config, run.log_dir), ("c.toml".into(), Some("l".into())), "{case}");
            assert!(cli.command.is_none(), "{case}");
        }
    }

    #[test]
    fn commands_are_told_from_the_arguments_of_the_daemon() {
        for arguments in [
            &["status", "--socket", "s"] as &[&str],
            &["status", "-c", "c.toml", "--json"],
            &["flows", "-s", "s", "--limit", "10000"],
            &["flows", "-s", "s", "--limit", "1"],
            &["ban", "192.0.2.0/24", "--socket", "s"],
            &["unban", "--socket", "s", "2001:db8::1"],
            &["bans", "--socket=s"],
            &["unpin"],
            &["unpin", "--path", "/sys/fs/bpf/other"],
            &["unpin", "-c", "c.toml"],
            &["doctor"],
            &["doctor", "--config", "c.toml"],
            &["ech", "generate", "--public-name", "p.example"],
            &["ech", "generate", "--public-name", "p.example", "--kem", "p256", "--suites", "hkdf-sha512/aes-256-gcm"],
            &["ech", "show", "ech.pem"],
            &["ech", "rotate", "ech.pem"],
        ] {
            let cli = parse(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
            assert!(cli.run.is_none() && cli.command.is_some(), "{arguments:?}: {cli:?}");
        }
    }

    #[test]
    fn usage_errors_exit_with_2() {
        for (case, arguments) in [
            ("no config", &[] as &[&str]),
            ("unknown", &["-c", "f", "--nonsense"]),
            ("unknown command", &["stop"]),
            ("no socket", &["status"]),
            ("socket and file", &["status", "--socket", "s", "--config", "f"]),
            ("arguments of both", &["-c", "f", "status", "--socket", "s"]),
            ("no network", &["ban", "--socket", "s"]),
            ("path and file", &["unpin", "--path", "/p", "--config", "f"]),
            ("not a network", &["ban", "--socket", "s", "everybody"]),
            ("no flows", &["flows", "--socket", "s", "--limit", "0"]),
            ("no public name", &["ech", "generate"]),
            ("unknown mechanism", &["ech", "generate", "--public-name", "p.example", "--kem", "x448"]),
            ("unknown suite", &["ech", "generate", "--public-name", "p.example", "--suites", "hkdf-sha256/des"]),
            ("number out of range", &["ech", "generate", "--public-name", "p.example", "--config-id", "256"]),
            ("too many flows", &["flows", "--socket", "s", "--limit", "10001"]),
        ] {
            let error = parse(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{case}");
        }
    }
}
