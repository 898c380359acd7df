//! Arguments of `explain`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;

use super::listed;
use crate::explain;

/// Examples of `explain --help`.
pub(super) const EXAMPLES: &str = "\
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
