//! WireGuard in userspace: wireguard-go and boringtun, with keys, tunnels and what `wg show` tells.
//!
//! Interface names are unique on the machine, because the programs keep their sockets in one directory for all
//! network namespaces. Program, interface and socket go away on drop.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use super::programs;
use crate::{OrFail as _, owned, process::Process, topology::Host, wait};

/// A key pair of one peer, both base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// Given to nobody but the owner.
    pub private: String,
    /// The value of `public_key` in a rule.
    pub public: String,
}

impl KeyPair {
    /// Makes one by `wg genkey`.
    ///
    /// # Panics
    ///
    /// When `wg` fails.
    #[track_caller]
    pub fn new() -> Self {
        let directory = owned::directory();
        let private = programs::text(Command::new("wg").arg("genkey"));
        let file = key_file(&directory, &private);
        let output = Command::new("wg").arg("pubkey").stdin(fs::File::open(file).or_fail("key")).output();
        let public = String::from_utf8(output.or_fail("wg pubkey").stdout).or_fail("public key");
        Self { private, public: public.trim().to_owned() }
    }
}

impl Default for KeyPair {
    fn default() -> Self {
        Self::new()
    }
}

/// The program that makes the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// `wireguard-go`.
    Go,
    /// `boringtun-cli`.
    Boringtun,
}

/// The other end of a tunnel.
#[derive(Debug, Clone)]
pub struct Peer<'a> {
    /// Its public key.
    pub public: &'a str,
    /// Its address inside the tunnel.
    pub inside: Ipv4Addr,
    /// Address where it listens; `None` for a peer that waits to be called.
    pub endpoint: Option<SocketAddr>,
}

/// A running tunnel interface.
#[derive(Debug)]
pub struct Tunnel {
    host: Host,
    name: String,
    process: Process,
    _keys: TempDir,
}

impl Tunnel {
    /// Makes an interface on `host` with the address `inside` that listens on `port`; 0 stands for any.
    ///
    /// # Panics
    ///
    /// When a program fails.
    #[track_caller]
    pub fn start(
        implementation: Implementation,
        host: &Host,
        port: u16,
        keys: &KeyPair,
        inside: Ipv4Addr,
        peers: &[Peer<'_>],
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = owned::tunnel(NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut command = match implementation {
            Implementation::Go => {
                let mut command = host.command("wireguard-go");
                command.args(["-f", &name]);
                command
            }
            Implementation::Boringtun => {
                let mut command = host.command("boringtun-cli");
                command.args(["-f", "--disable-drop-privileges", &name]).env("WG_SUDO", "1");
                command
            }
        };
        let process = Process::spawn(&format!("{implementation:?} {name}"), &mut command).or_fail("WireGuard");
        let directory = owned::directory();
        let file = key_file(&directory, &keys.private);
        // From here on a failure cleans up through Drop.
        let mut tunnel = Self { host: host.clone(), name, process, _keys: directory };
        wait::until(&format!("{} takes orders", tunnel.name), || {
            assert!(tunnel.process.is_running(), "ended:\n{}", tunnel.process.transcript());
            // `wg` is not asked before: it removes a socket that nobody listens on yet.
            if tunnel.listens() { tunnel.show("private-key").map(drop) } else { None }
        });
        let mut words = vec!["private-key".to_owned(), file.display().to_string()];
        words.extend(["listen-port".to_owned(), port.to_string()]);
        for peer in peers {
            words.extend(["peer", peer.public, "allowed-ips"].map(str::to_owned));
            words.push(format!("{}/32", peer.inside));
            words.extend(peer.endpoint.iter().flat_map(|to| ["endpoint".to_owned(), to.to_string()]));
        }
        tunnel.set(&words);
        tunnel.host.ip(&format!("addr add {inside}/32 dev {}", tunnel.name)).or_fail("address of the tunnel");
        tunnel.host.ip(&format!("link set {} up", tunnel.name)).or_fail("tunnel up");
        for peer in peers {
            let route = format!("route add {}/32 dev {} src {inside}", peer.inside, tunnel.name);
            tunnel.host.ip(&route).or_fail("route into the tunnel");
        }
        tunnel
    }

    /// Changes settings by `wg set`.
    ///
    /// # Panics
    ///
    /// When `wg` fails.
    #[track_caller]
    pub fn set<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) {
        programs::output(Command::new("wg").args(["set", &self.name]).args(words));
    }

    /// Moves to another port, as a client does whose system gives it one.
    #[track_caller]
    pub fn set_port(&self, port: u16) {
        self.set(&["listen-port", &port.to_string()]);
    }

    /// Sends one ping to `inside` of the other end and returns true when an answer comes within `seconds`.
    ///
    /// # Panics
    ///
    /// When `ping` cannot be run.
    #[track_caller]
    pub fn pings(&self, inside: Ipv4Addr, seconds: u32) -> bool {
        let mut command = self.host.command("ping");
        command.args(["-n", "-q", "-c", "1", "-W", &seconds.to_string(), &inside.to_string()]);
        command.stdin(Stdio::null()).output().or_fail("ping").status.success()
    }

    /// Pings until an answer comes.
    ///
    /// # Panics
    ///
    /// When none does.
    #[track_caller]
    pub fn wait_for_ping(&self, inside: Ipv4Addr) {
        wait::until(&format!("{inside} answers through {}", self.name), || self.pings(inside, 1).then_some(()));
    }

    /// Returns the time of the latest handshake with `public`, in seconds since the epoch; 0 for never.
    ///
    /// # Panics
    ///
    /// When the peer is unknown.
    #[track_caller]
    pub fn latest_handshake(&self, public: &str) -> u64 {
        self.of_peer("latest-handshakes", public).parse().or_fail("time of the handshake")
    }

    /// Returns the address where `public` was last seen.
    ///
    /// # Panics
    ///
    /// When it has not been seen.
    #[track_caller]
    pub fn endpoint(&self, public: &str) -> SocketAddr {
        self.of_peer("endpoints", public).parse().or_fail("endpoint")
    }

    #[track_caller]
    fn of_peer(&self, what: &str, public: &str) -> String {
        let table = self.show(what).or_fail(what);
        let row = table.lines().find_map(|line| line.strip_prefix(public)).or_fail(public);
        row.trim().to_owned()
    }

    fn socket(&self) -> PathBuf {
        Path::new(owned::TUNNEL_SOCKETS).join(format!("{}.sock", self.name))
    }

    /// Returns true when the program takes commands. Connecting to find out would confuse boringtun.
    fn listens(&self) -> bool {
        // Flag __SO_ACCEPTCON, the fourth column.
        let is_it = |line: &str| {
            line.split_ascii_whitespace().nth(3) == Some("00010000")
                && Path::new(line.rsplit(' ').next().unwrap_or_default()) == self.socket()
        };
        let table = self.host.run(|| fs::read_to_string("/proc/thread-self/net/unix"));
        table.is_ok_and(|table| table.lines().any(is_it))
    }

    fn show(&self, what: &str) -> Option<String> {
        let output = Command::new("wg").args(["show", &self.name, what]).output().or_fail("wg");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // The interface ends with the program that holds it open, which is killed after this; a socket file stays.
        let _gone = self.host.ip(&format!("link del {}", self.name));
        let _gone = fs::remove_file(self.socket());
    }
}

fn key_file(directory: &TempDir, private: &str) -> PathBuf {
    let file = directory.path().join("private");
    fs::write(&file, private).or_fail("key");
    file
}
