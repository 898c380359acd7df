//! Arguments of the command line. Their doc comments are the help text.

mod ech;
mod explain;
mod url;

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

pub(crate) use ech::{EchCommand, GenerateArgs};
pub(crate) use explain::{ExplainArgs, PublicKey, Spoken};
pub(crate) use url::Url;

use crate::{
    admin,
    config::model::{MAX_SOCKET_PATH, PIN_PATH, Transport},
    id::Id,
    limit,
};

/// Times between two looks at a daemon: an overview costs its control thread some milliseconds.
pub(crate) const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(60);

/// Layer-4 reverse proxy and protocol multiplexer for TCP and UDP. Without a command, runs it.
#[derive(Debug, Parser)]
#[command(name = "rpxy-l4", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    /// Command to run instead of the daemon
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Arguments of the daemon; always there without a command
    #[command(flatten)]
    pub run: Option<RunArgs>,
}

/// Arguments of the daemon.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Configuration file path like ./config.toml
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Directory for log files [default: log to standard output]
    #[arg(short, long, value_name = "LOG_DIR")]
    pub log_dir: Option<PathBuf>,

    /// Check the configuration file and exit
    #[arg(long)]
    pub check: bool,

    /// With --check, fail on warnings, too
    #[arg(long, requires = "check")]
    pub strict: bool,

    /// Log in JSON lines from the first line on, whatever access_log_format says; with --check, report in JSON lines
    #[arg(long)]
    pub json: bool,

    /// Take over from the running daemon, which the admin_socket of the file leads to, without losing anybody
    #[arg(long, conflicts_with_all = ["check", "wait_for_config"])]
    pub take_over: bool,

    /// Start the daemon as nobody's child, and end
    #[arg(long, requires = "take_over", hide = true)]
    pub detach: bool,

    /// Wait for a valid configuration file instead of exiting when it is missing or invalid
    #[arg(long, conflicts_with = "check")]
    pub wait_for_config: bool,

    /// Admin socket where the configuration file names none
    #[arg(long, value_name = "PATH", value_parser = socket)]
    pub admin_socket: Option<PathBuf>,
}

/// Commands to a running daemon, and those that need none.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the state and load of a running daemon
    Status {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// Watch a running daemon: rates, rules, targets, connections, sessions and refusals
    Top {
        /// The daemon to watch
        #[command(flatten)]
        daemon: DaemonArgs,
        /// How to watch it
        #[command(flatten)]
        top: TopArgs,
    },
    /// List the TCP connections of a running daemon
    Connections {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
        /// The connections to list
        #[command(flatten)]
        list: ListArgs,
    },
    /// List the UDP sessions of a running daemon
    Flows {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
        /// The sessions to list
        #[command(flatten)]
        list: ListArgs,
    },
    /// Close a TCP connection (both ends are reset) or end a UDP session
    Close {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
        /// As `connections` or `flows` list it, like t0-17-5
        id: Id,
    },
    /// List the targets of a running daemon and their state
    Targets {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// Explain where a connection or datagram would go, and why
    #[command(after_help = explain::EXAMPLES)]
    Explain(Box<ExplainArgs>),
    /// Send nothing new to a target, or let nothing new in, until `up`
    Drain {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
        /// What to drain
        #[command(flatten)]
        what: MaintainedArgs,
    },
    /// Put a drained target, or the listeners, back into service
    Up {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
        /// What to put back
        #[command(flatten)]
        what: MaintainedArgs,
    },
    /// Ban a network until it is unbanned or the daemon stops
    Ban {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
        /// An address, or a network like 192.0.2.0/24
        #[arg(value_parser = network)]
        network: IpNet,
    },
    /// Lift a ban that was made by `ban`
    Unban {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
        /// The network as it was banned
        #[arg(value_parser = network)]
        network: IpNet,
    },
    /// List the banned networks of a running daemon
    Bans {
        /// The daemon to ask
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// Replace a running daemon by this binary without losing a connection or a datagram
    Upgrade(UpgradeArgs),
    /// Tell by the exit status whether a daemon answers and listens, for containers and scripts
    Healthcheck(HealthcheckArgs),
    /// Generate, show and rotate keys for Encrypted Client Hello
    #[command(subcommand)]
    Ech(EchCommand),
    /// Remove programs and flows that a daemon with ebpf.pin left in the kernel
    Unpin {
        /// Directory in which they are pinned
        #[arg(short, long, value_name = "PATH", conflicts_with = "config", default_value = PIN_PATH)]
        path: PathBuf,
        /// Configuration file that names the directory (ebpf.pin_path)
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a JSON Schema of the configuration file
    Schema,
    /// Run the daemon as the container image does, by variables and mounts
    Container,
    /// Check what this machine supports for forwarding in the kernel, and suggest changes
    Doctor {
        /// Configuration file whose settings are checked as well
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// Admin socket of the daemon [default: /run/rpxy-l4/admin.sock]
    #[arg(short, long, value_name = "PATH", conflicts_with_all = ["config", "url"])]
    pub socket: Option<PathBuf>,

    /// Configuration file of the daemon, which names its admin socket, or else where it answers /healthz
    #[arg(short, long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,

    /// Ask this instead, like http://127.0.0.1:9901/readyz
    #[arg(long, value_name = "URL", conflicts_with = "ready")]
    pub url: Option<Url>,

    /// Fail while the listeners are drained, too
    #[arg(long)]
    pub ready: bool,
}

/// The connections or sessions to list.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct ListArgs {
    /// Maximum number of lines to show
    #[arg(long, value_name = "COUNT", default_value_t = admin::LISTED, value_parser = listed)]
    pub limit: usize,

    /// Only those of clients with this address, or in this network
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub client: Option<IpNet>,

    /// Only those of this rule
    #[arg(long, value_name = "NAME")]
    pub rule: Option<String>,

    /// Only those of this target, as `targets` writes it
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
}

/// How to watch a daemon.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct TopArgs {
    /// Time between two looks, 200ms to 60s
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,

    /// Print what there is, with rates over one interval, and exit
    #[arg(long)]
    pub once: bool,
}

/// What to drain, or to put back into service.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct MaintainedArgs {
    /// A target of any rule, as `targets` writes it
    #[arg(required_unless_present_any = ["listener", "listeners"], conflicts_with_all = ["listener", "listeners"])]
    pub target: Option<String>,

    /// Only as a target of TCP or UDP rules [default: both]
    #[arg(long, value_name = "PROTOCOL", conflicts_with_all = ["listener", "listeners"])]
    pub transport: Option<Transport>,

    /// One listener; the top of the file is "default"
    #[arg(long, value_name = "NAME", conflicts_with = "listeners")]
    pub listener: Option<String>,

    /// All listeners: new connections are refused, and no UDP session begins
    #[arg(long)]
    pub listeners: bool,
}

/// Arguments of `upgrade`.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct UpgradeArgs {
    /// Configuration file of the daemon, which names its admin socket; the new one goes by it
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Admin socket where the configuration file names none, of the daemon and of the new one
    #[arg(long, value_name = "PATH", value_parser = socket)]
    pub admin_socket: Option<PathBuf>,

    /// Directory for log files of the new daemon [default: where the daemon logs]
    #[arg(short, long, value_name = "LOG_DIR")]
    pub log_dir: Option<PathBuf>,

    /// Have the new daemon log in JSON lines, as it does if the daemon does
    #[arg(long)]
    pub json: bool,

    /// Do nothing if the daemon runs this very binary
    #[arg(long)]
    pub if_changed: bool,
}

/// The way to a running daemon.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct DaemonArgs {
    /// Admin socket of the daemon [default: /run/rpxy-l4/admin.sock]
    #[arg(short, long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,

    /// Configuration file of the daemon, which names its admin socket
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print JSON lines instead of a table
    #[arg(long)]
    pub json: bool,
}

fn socket(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() && text.len() <= MAX_SOCKET_PATH {
        return Ok(path);
    }
    Err(format!("expected an absolute path of {MAX_SOCKET_PATH} bytes at most"))
}

fn network(text: &str) -> Result<IpNet, String> {
    limit::network(text).ok_or_else(|| "expected an address or a network such as 192.0.2.0/24".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let wanted = humantime::parse_duration(text).ok().filter(|wanted| INTERVALS.contains(wanted));
    wanted.ok_or_else(|| "expected 200ms to 60s".to_owned())
}

fn listed(text: &str) -> Result<usize, String> {
    let wanted = text.parse().ok().filter(|count| (1..=admin::MOST_LISTED).contains(count));
    wanted.ok_or_else(|| format!("expected 1 to {}", admin::MOST_LISTED))
}

#[cfg(test)]
mod tests;
