//! Arguments of the command line. Their doc comments are the help text.

mod url;

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use rpxy_l4_proto::ech::{CipherSuite, Kem};

pub(crate) use url::Url;

use crate::{
    admin,
    config::model::{MAX_SOCKET_PATH, PIN_PATH, Transport},
    explain,
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
    #[command(after_help = EXPLAIN_EXAMPLES)]
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

/// Examples of `explain --help`.
const EXPLAIN_EXAMPLES: &str = "\
Examples:
  Which backend would this client get from the running daemon?
    rpxy-l4 explain --from 203.0.113.7 --sni www.example.com --alpn h2
  And from a file that is not in effect yet? Nothing is looked up and no daemon is asked.
    rpxy-l4 explain --config new.toml --udp --sni www.example.com --alpn h3
  Why does this host not reach rule `web`?
    rpxy-l4 explain --host www.example.com --rule web
  What is the tunnel of this server?
    rpxy-l4 explain --public-key \"$(wg show wg0 public-key)\"
  What are these captured bytes taken for?
    xxd first-bytes.bin | rpxy-l4 explain --hex -";

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A TCP connection [default, unless the protocol is one of UDP]
    #[arg(long, conflicts_with = "udp")]
    pub tcp: bool,

    /// A UDP datagram
    #[arg(long)]
    pub udp: bool,

    /// The listener that it comes to [default: the first that serves the transport]
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,

    /// The client, as an address with or without port
    #[arg(long, value_name = "ADDRESS", default_value = "203.0.113.1", value_parser = client)]
    pub from: SocketAddr,

    /// Server name of a TLS or QUIC client
    #[arg(long, value_name = "NAME", conflicts_with_all = ["host", "public_key", "hex"])]
    pub sni: Option<String>,

    /// ALPN protocol of a TLS or QUIC client; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with_all = ["host", "public_key", "hex"])]
    pub alpn: Vec<String>,

    /// Host of an HTTP request
    #[arg(long, value_name = "NAME", conflicts_with_all = ["public_key", "hex", "udp"])]
    pub host: Option<String>,

    /// Public key of the server of a WireGuard client, in base64
    #[arg(long, value_name = "KEY", conflicts_with_all = ["hex", "tcp"], value_parser = public_key)]
    pub public_key: Option<PublicKey>,

    /// File with the first bytes in hex, as xxd, `xxd -p` or `hexdump -C` print them; - is the standard input. Over UDP
    /// an empty line begins another datagram
    #[arg(long, value_name = "FILE")]
    pub hex: Option<PathBuf>,

    /// Protocol of the client, where nothing else tells it
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "hex")]
    pub protocol: Option<Spoken>,

    /// Of the rules that are not chosen, tell only of this one
    #[arg(long, value_name = "NAME")]
    pub rule: Option<String>,

    /// Of the rules that are not chosen, tell of so many
    #[arg(long, value_name = "COUNT", default_value_t = explain::LISTED, value_parser = listed)]
    pub limit: usize,

    /// Admin socket of the daemon to ask [default: /run/rpxy-l4/admin.sock]
    #[arg(short, long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,

    /// Configuration file to ask instead of a daemon
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// A protocol that first bytes can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Spoken {
    /// HTTP/1.1 over TCP
    Http,
    /// TLS over TCP
    Tls,
    /// SSH over TCP
    Ssh,
    /// SOCKS5 over TCP
    Socks5,
    /// QUIC over UDP
    Quic,
    /// WireGuard over UDP
    #[value(name = "wireguard")]
    WireGuard,
}

/// A public key of WireGuard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublicKey(pub [u8; 32]);

/// Commands about key files for Encrypted Client Hello (RFC 9934).
#[derive(Debug, Subcommand)]
pub(crate) enum EchCommand {
    /// Generate a key and its configuration
    Generate(GenerateArgs),
    /// Show the configurations of a key file and the DNS record to publish
    Show {
        /// The key file
        file: PathBuf,
        /// Print the private keys too, in the form of the configuration file
        #[arg(long)]
        private: bool,
    },
    /// Add a key with the parameters of the first one in front of a key file; older keys stay
    Rotate {
        /// The key file
        file: PathBuf,
    },
}

/// Arguments of `ech generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Public name, sent in the clear, like public.example
    #[arg(long, value_name = "NAME")]
    pub public_name: String,

    /// Key encapsulation mechanism: x25519 or p256
    #[arg(long, value_name = "KEM", default_value = "x25519")]
    pub kem: Kem,

    /// Cipher suites offered to clients
    #[arg(
        long,
        value_name = "KDF/AEAD",
        value_delimiter = ',',
        default_value = "hkdf-sha256/aes-128-gcm,hkdf-sha256/chacha20-poly1305"
    )]
    pub suites: Vec<CipherSuite>,

    /// Identifier of the configuration, 0 to 255 [default: random]
    #[arg(long, value_name = "NUMBER")]
    pub config_id: Option<u8>,

    /// Length of the longest private name in bytes; padding hides that others are shorter
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub max_name_length: u8,

    /// File to create, readable by its owner only [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
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

fn client(text: &str) -> Result<SocketAddr, String> {
    let address = || text.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| SocketAddr::new(address, 0));
    let client = text.parse().or_else(|_| address());
    client.map_err(|_neither| {
        "expected an address such as 203.0.113.7, 203.0.113.7:50000 or [2001:db8::7]:50000".to_owned()
    })
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    let key = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    key.map(PublicKey)
        .ok_or_else(|| "expected 32 bytes in base64, as `wg show <interface> public-key` prints".to_owned())
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
            &["status"],
            &["top"],
            &["top", "-s", "s", "--interval", "200ms"],
            &["top", "-c", "c.toml", "--once", "--json", "--interval", "60s"],
            &["connections", "--client", "192.0.2.0/24", "--rule", "web", "--target", "a.example:443"],
            &["close", "t0-1-2", "--socket", "s"],
            &["targets", "--json"],
            &["drain", "a.example:443"],
            &["drain", "--listeners", "-s", "s"],
            &["up", "a.example:443", "--transport", "udp"],
            &["up", "--listeners"],
            &["drain", "--listener", "wg", "-s", "s"],
            &["up", "--listener", "default"],
            &["ban", "192.0.2.0/24", "--socket", "s"],
            &["unban", "--socket", "s", "2001:db8::1"],
            &["bans", "--socket=s"],
            &["upgrade", "-c", "c.toml"],
            &["upgrade", "--config", "c.toml", "--log-dir", "l", "--json", "--if-changed"],
            &["unpin"],
            &["unpin", "--path", "/sys/fs/bpf/other"],
            &["unpin", "-c", "c.toml"],
            &["schema"],
            &["doctor"],
            &["doctor", "--config", "c.toml"],
            &["container"],
            &["healthcheck"],
            &["healthcheck", "--ready", "-s", "s"],
            &["healthcheck", "-c", "c.toml"],
            &["healthcheck", "--url", "http://[::1]:9901/readyz"],
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
            ("strict without a check", &["-c", "f", "--strict"]),
            ("unknown", &["-c", "f", "--nonsense"]),
            ("unknown command", &["stop"]),
            ("too often", &["top", "--interval", "199ms"]),
            ("too seldom", &["top", "--interval", "61s"]),
            ("not a time", &["top", "--interval", "1"]),
            ("no ID", &["close", "-s", "s"]),
            ("not an ID", &["close", "-s", "s", "17"]),
            ("no file", &["upgrade"]),
            ("take over and check", &["-c", "f", "--take-over", "--check"]),
            ("nothing to drain", &["drain"]),
            ("a target and all listeners", &["drain", "a.example:443", "--listeners"]),
            ("a target and a listener", &["up", "a.example:443", "--listener", "wg"]),
            ("one listener and all", &["up", "--listeners", "--listener", "wg"]),
            ("a listener of one transport", &["drain", "--listener", "wg", "--transport", "tcp"]),
            ("listeners of one transport", &["up", "--listeners", "--transport", "tcp"]),
            ("unknown transport", &["up", "a.example:443", "--transport", "sctp"]),
            ("not a client", &["connections", "--client", "everybody"]),
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
            ("relative socket", &["-c", "f", "--admin-socket", "s"]),
            ("socket and URL", &["healthcheck", "--socket", "s", "--url", "http://127.0.0.1:1/"]),
            ("not a URL", &["healthcheck", "--url", "https://127.0.0.1:1/"]),
            ("too many flows", &["flows", "--socket", "s", "--limit", "10001"]),
        ] {
            let error = parse(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{case}");
        }
    }
}
