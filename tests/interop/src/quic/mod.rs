//! QUIC clients of several libraries, each with several connections on one UDP socket, and clients and servers of ngtcp2.
//!
//! The connections all follow one script. In each step, all servers are asked in turns who they are:
//!
//! 1. [`Step::Connected`]: as the handshakes left them.
//! 2. [`Step::NewIds`]: each connection has gone on to an ID that its server gave it encrypted.
//! 3. [`Step::Moved`]: the socket has another port, as behind a NAT that forgot it. The library does not notice.
//! 4. [`Step::Fewer`]: one connection was closed and the port has changed again. Repeated until one is left.
//!
//! Servers are those of the kit, by quinn.

mod ngtcp2;
mod quiche;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use rpxy_l4_tests::{OrFail as _, daemon, peers::programs, topology::Host};

pub use self::ngtcp2::Ngtcp2Server;

/// Rounds of questions in each step.
pub const ROUNDS: usize = 5;

/// The request "who are you?" of the kit's servers.
const WHO: [u8; 17] = [b'?', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A library, as client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// aioquic, which `cargo xtask setup` installs.
    Aioquic,
    /// quic-go as Debian packages it; compiled when it is first asked for.
    QuicGo,
    /// quiche.
    Quiche,
}

/// A part of the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The handshakes are complete.
    Connected,
    /// All have gone on to other IDs.
    NewIds,
    /// The port has changed.
    Moved,
    /// The first of those that were left is closed, and the port has changed.
    Fewer,
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When it was asked.
    pub step: Step,
    /// Name that the client asked for.
    pub name: String,
    /// Tag of the server.
    pub tag: String,
    /// Address of the client as the server saw it.
    pub client: SocketAddr,
}

impl Client {
    /// Follows the script on `host`, with one connection to `to` for each of `names`.
    ///
    /// # Panics
    ///
    /// When a connection fails.
    #[track_caller]
    pub fn run(self, host: &Host, to: SocketAddr, names: &[&str]) -> Vec<Answer> {
        let mut command = match self {
            Self::Aioquic => {
                let mut command = host.command("python3");
                command.env("PYTHONPATH", tools().join("aioquic")).arg(clients().join("aioquic_client.py"));
                command.args([to.ip().to_string(), to.port().to_string()]);
                command
            }
            Self::QuicGo => {
                let mut command = host.command(quic_go());
                command.arg(to.to_string());
                command
            }
            Self::Quiche => return quiche::run(host, to, names),
        };
        programs::text(command.args(names)).lines().map(Answer::parse).collect()
    }
}

impl Answer {
    /// Reads a line of a client program.
    #[track_caller]
    fn parse(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let [step, name, tag, client] = words[..] else { panic!("not an answer: {line:?}") };
        let step = match step {
            "connected" => Step::Connected,
            "new-ids" => Step::NewIds,
            "moved" => Step::Moved,
            "fewer" => Step::Fewer,
            _ => panic!("no step of the script: {line:?}"),
        };
        Self { step, name: name.to_owned(), tag: tag.to_owned(), client: client.parse().or_fail(line) }
    }

    /// Reads what a server wrote.
    #[track_caller]
    fn read(step: Step, name: &str, answer: &[u8]) -> Self {
        let text = String::from_utf8_lossy(answer);
        let mut lines = text.split('\n');
        let (tag, client) = (lines.next().or_fail("tag"), lines.next().or_fail("address"));
        Self { step, name: name.to_owned(), tag: tag.to_owned(), client: client.parse().or_fail(client) }
    }
}

/// The directory of what `cargo xtask setup` installs, and of what is compiled for these tests.
fn tools() -> PathBuf {
    daemon::binary().ancestors().nth(2).or_fail("target directory").join("tools")
}

/// The directory of the client programs' sources.
fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Compiles the client with Debian's quic-go and returns its path.
#[track_caller]
fn quic_go() -> PathBuf {
    let program = tools().join("quic-go/client");
    let mut command = Command::new("go");
    command.arg("build").arg("-o").arg(&program).arg(".").current_dir(clients().join("quic-go"));
    // Libraries are packages of the system: nothing is fetched.
    command.env("GOPATH", "/usr/share/gocode").env("GO111MODULE", "off").env("GOCACHE", tools().join("quic-go/cache"));
    programs::output(&mut command);
    program
}
