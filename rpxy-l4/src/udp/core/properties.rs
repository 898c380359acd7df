//! The core under an arbitrary sequence of events, for the fuzz target `udp_core`; `cargo test` replays its corpus.
//!
//! The input is a script: each event is a byte that says which, and bytes that choose among a few clients, sessions, IDs
//! and kinds of datagrams, so that events have something to do with each other. A script that ends in the middle goes on
//! with zeros. Whatever it says, commands fit together, answers go to the client of their session, and in the end nothing
//! is left.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure is what it is for")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::{
    Command, Flow, Forwarded, OpenError, Output, SessionId, Sessions, UndecidedQueue, datagrams, made_up, packets,
};
use crate::{
    config::{self, model::Config},
    limit::{Bans, ByListener, ConnLimit},
    metrics::{Metrics, SessionEnd},
    resolve::Resolver,
    route::Targets,
    udp::affinity::Affinity,
};

/// `udp_max_connections` of the configurations.
const MOST: usize = 8;

/// Configurations between which a script changes.
static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    let quic = |name: &str, port: u16| {
        format!(
            "[protocols.{name}]\nprotocol = 'quic'\ntarget = ['198.51.100.1:{port}']\nserver_names = ['{name}.test']\n"
        )
    };
    let wireguard = "[protocols.w]\nprotocol = 'wireguard'\ntarget = ['198.51.100.1:3']\nreserved = 'any'\n";
    let top = format!("listen_port = 443\nudp_max_connections = {MOST}\n");
    let two = "udp_target = ['198.51.100.1:8', '198.51.100.1:9']\nudp_load_balance = 'round_robin'\n";
    let texts = [
        format!("{top}{two}{}{}{wireguard}", quic("a", 1), quic("b", 2)),
        format!("{top}orphan = 'drop'\nudp_idle_lifetime = 3\n{}{wireguard}", quic("a", 1)),
        format!("{top}orphan = 'balance'\n{}", quic("a", 1).replace("server_names = ['a.test']", "")),
        format!("{top}{two}"),
    ];
    texts.iter().map(|text| config::parse(text).expect("a configuration").config).collect()
});

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// IDs of clients and servers alike, the last two as other protocols' bytes.
const IDS: [&[u8]; 8] = [
    b"client-1",
    b"\xfeerver-1",
    b"client-2",
    b"\xfeerver-2",
    b"",
    b"\xf1\x02\xe3\x04\xd5\x06\xc7\x08\xb9\x0a\x9b\x0c",
    b"\x00\x01\x00\x00\x01\x00\x00\x00",
    b"\xfe\xff\x00\x00\x00\x00\x00\x00",
];

/// Initials of two clients for three names, whole and in parts.
static INITIALS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let names = ["a.test", "b.test", "c.test"];
    let of = |name: &str, client: usize| {
        let (from, to) =
            (IDS[2 * client], [&b"first-"[..], &name.as_bytes()[..1], if client == 0 { b"0" } else { b"1" }].concat());
        let parts = packets::initials(from, &to, &packets::hello(name, "h3", 1900), 900);
        [parts, vec![packets::first(from, &to, name)]].concat()
    };
    names.iter().flat_map(|name| [of(name, 0), of(name, 1)].concat()).collect()
});

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, number: usize) -> usize {
        usize::from(self.byte()) % number.max(1)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes.to_vec()
    }

    fn datagram(&mut self) -> Vec<u8> {
        let mut id = || IDS[self.below(IDS.len())];
        let (one, two) = (id(), id());
        match self.below(14) {
            0 => self.bytes(),
            1 => {
                let mut large = self.bytes();
                large.resize(1200, 0);
                large
            }
            2..=4 => INITIALS[self.below(INITIALS.len())].clone(),
            5 => packets::long(self.byte() % 4, one, two),
            6 | 7 => packets::short(one),
            8 => packets::greased(one),
            9 => packets::wireguard(1, u32::from(self.byte() % 4), 0, 148),
            10 => packets::wireguard(2, u32::from(self.byte() % 4), u32::from(self.byte() % 4), 92),
            11 => packets::wireguard(3 + self.byte() % 2, u32::from(self.byte() % 4), 0, 64),
            12 => [&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[7; 20]].concat(),
            _ => [&[22, 0xfe, 0xfd, 0][..], &[0; 40]].concat(),
        }
    }
}

struct World {
    sessions: Sessions,
    affinity: Arc<Affinity>,
    limits: ByListener<ConnLimit>,
    active: Arc<ConnLimit>,
    targets: Targets,
    resolver: Resolver,
    now: Duration,
    sockets: BTreeMap<SessionId, SocketAddr>,
    installed: BTreeSet<SessionId>,
    /// What opening a socket fails with, by the last bits of the port.
    fault: u8,
}

impl World {
    fn new() -> Self {
        let metrics = Metrics::new();
        let config = &CONFIGS[0];
        let resolver = Resolver::new(RUNTIME.handle().clone(), config.dns, Arc::clone(&metrics));
        let targets = Targets::default();
        let limits = ByListener::default();
        let active = limits.of(&None, ConnLimit::default);
        let snapshot = made_up::snapshot(config, &limits, &targets, &resolver);
        let affinity = Arc::new(Affinity::new(config.quic_affinity_lifetime, metrics));
        let mut sessions = Sessions::new(Arc::clone(&snapshot), Arc::clone(&affinity), Arc::<Bans>::default(), 1);
        made_up::listen(&mut sessions, &snapshot);
        let (now, fault) = (Duration::from_secs(1000), 0);
        let (sockets, installed) = (BTreeMap::new(), BTreeSet::new());
        Self { sessions, affinity, limits, active, targets, resolver, now, sockets, installed, fault }
    }

    fn event(&mut self, script: &mut Script<'_>) {
        match script.below(16) {
            0..=6 => {
                let flow = client(script.byte());
                let datagram = script.datagram();
                self.arrive(flow, &datagram, datagram.len());
            }
            7 => {
                let (flow, segment) = (client(script.byte()), usize::from(script.byte()));
                let datagrams = [script.datagram(), script.datagram()].concat();
                self.arrive(flow, &datagrams, segment);
            }
            8..=10 => {
                let Some(session) = self.session(script) else { return };
                let datagram = script.datagram();
                let flow = self.sessions.flow(session).copied();
                let mut out = Output::default();
                let to = self.sessions.handle_answers(session, &datagram, datagram.len(), self.now, &mut out);
                assert!(to.is_some() && to == flow, "an answer goes to the client of its session");
                self.carry_out(out, &[], 1);
            }
            11 => {
                self.now += Duration::from_millis([1, 50, 250, 1000, 3000, 10_000, 61_000, 301_000][script.below(8)]);
                let (now, forwards) = (self.now, script.byte().is_multiple_of(2));
                self.act(|sessions, out| {
                    sessions.handle_timeout(now, |_| forwards.then_some(Forwarded { last: now, turns: 1 }), out);
                });
            }
            12 => {
                let config = &CONFIGS[script.below(CONFIGS.len())];
                let snapshot = made_up::snapshot(config, &self.limits, &self.targets, &self.resolver);
                let (listeners, now) = (made_up::listeners(&snapshot), self.now);
                self.act(|sessions, out| sessions.handle_snapshot(snapshot, listeners, now, out));
            }
            13 => {
                let Some(session) = self.session(script) else { return };
                let (now, error) = (self.now, io::Error::from(io::ErrorKind::ConnectionRefused));
                self.act(|sessions, out| sessions.handle_refused(session, &error, now, out));
            }
            14 => self.fault = script.byte(),
            _ => {
                let (listener, now) = (u32::from(script.byte() % 2), self.now);
                self.act(|sessions, out| sessions.handle_closed(Some(listener), SessionEnd::Withdrawn, now, out));
            }
        }
        assert!(self.sockets.len() <= MOST && usize::try_from(self.active.count()).unwrap() <= MOST);
        assert!(self.sessions.held_bytes() <= 8 * UndecidedQueue::MOST * 1300);
    }

    fn session(&self, script: &mut Script<'_>) -> Option<SessionId> {
        self.sockets.keys().nth(script.below(self.sockets.len())).copied()
    }

    fn arrive(&mut self, flow: Flow, bytes: &[u8], segment: usize) {
        let mut out = Output::default();
        self.sessions.handle_datagrams(&flow, bytes, segment, 0, self.now, &mut out);
        self.carry_out(out, bytes, segment);
    }

    fn act(&mut self, action: impl FnOnce(&mut Sessions, &mut Output)) {
        let mut out = Output::default();
        action(&mut self.sessions, &mut out);
        self.carry_out(out, &[], 1);
    }

    fn carry_out(&mut self, mut out: Output, bytes: &[u8], segment: usize) {
        while let Some(command) = out.commands.pop_front() {
            match command {
                Command::Open { session, address } => {
                    let error = io::Error::from(io::ErrorKind::Other);
                    let failed = match self.fault % 8 {
                        1 if address.port() % 2 == 0 => Some(OpenError::Unreachable(error)),
                        2 if address.port() % 2 == 1 => Some(OpenError::Unreachable(error)),
                        3 => Some(OpenError::NoPort(error)),
                        4 => Some(OpenError::Shortage(error)),
                        _ => None,
                    };
                    match failed {
                        Some(error) => self.sessions.handle_open_failed(session, error, self.now, &mut out),
                        None => {
                            assert!(self.sockets.insert(session, address).is_none(), "opened twice");
                            self.sessions.handle_opened(session, self.now, &mut out);
                        }
                    }
                }
                Command::Resolve { .. } => unreachable!("there are no names"),
                Command::Send { session, .. } => assert!(self.sockets.contains_key(&session), "sent on an open socket"),
                Command::Reply { datagram, .. } => assert!(datagram.len() < bytes.len(), "no more than was sent"),
                Command::Started(started) => {
                    assert_eq!(self.sockets.get(&started.session), Some(&started.destination));
                }
                Command::Ended { session, .. } => {
                    assert!(self.sockets.remove(&session).is_some(), "ended once");
                    assert!(!self.installed.contains(&session), "revoked before");
                }
                Command::InstallFlow { session, .. } => {
                    assert!(self.sockets.contains_key(&session) && self.installed.insert(session));
                }
                Command::UpdateFlow { session, .. } => assert!(self.installed.contains(&session)),
                Command::RevokeFlow { session } => assert!(self.installed.remove(&session)),
                Command::Log(_) => {}
            }
        }
        for (session, range) in out.forward {
            assert!(self.sockets.contains_key(&session), "forwarded over an open socket");
            assert!(datagrams(&bytes[range], segment).count() > 0);
        }
    }

    fn finish(mut self) {
        let now = self.now;
        self.act(|sessions, out| sessions.handle_closed(None, SessionEnd::Drained, now, out));
        assert!(self.sockets.is_empty() && self.installed.is_empty() && self.sessions.is_empty());
        assert_eq!((self.sessions.held_bytes(), self.active.count()), (0, 0));
        for id in IDS {
            let found = self.affinity.find_short(&packets::short(id), None, now + Duration::from_secs(3600));
            assert_eq!(found, None, "forgotten in time");
        }
    }
}

/// Four sockets of two networks.
fn client(number: u8) -> Flow {
    let number = number % 4;
    let client = SocketAddr::from(([192, 0, number / 2, 1], 1000 + u16::from(number)));
    Flow { listener: u32::from(number % 2), client, local: None }
}

/// Runs a script; panics where the core does not keep what it promises. Returns the number of sessions that began.
pub fn udp_core(script: &[u8]) -> usize {
    let (mut script, mut world) = (Script(script), World::new());
    let mut most = 0;
    while !script.0.is_empty() {
        world.event(&mut script);
        most = most.max(world.sockets.len());
    }
    world.finish();
    most
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corpus_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/udp_core");
        let mut sessions = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            sessions += udp_core(&fs::read(entry.unwrap().path()).unwrap());
        }
        assert!(sessions > 20, "the scripts reach something: {sessions}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_script_holds(script in proptest::collection::vec(any::<u8>(), 0..600)) {
            udp_core(&script);
        }
    }
}
