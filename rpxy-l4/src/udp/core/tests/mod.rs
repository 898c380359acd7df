//! The session core against made-up sockets and time.

mod backends;
mod bans;
mod certain;
mod ech;
mod ech_detours;
mod ech_handshake;
mod ech_kit;
mod evidence;
mod handed;
mod health;
mod inherit;
mod moves;
mod operator;
mod others_ids;
mod overload;
mod packets;
mod paths;
mod quic;
mod refused;
mod server_ids;
mod simulation;
mod steering;
mod targets;
mod wireguard;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rpxy_l4_common::{bytes::Span, map, verdict::gate};
use rpxy_l4_proto::quic::ConnectionId;

use super::{
    admission::MAX_OF_FLOW,
    state::{HELLO_TIMEOUT, RESOLVE_TIMEOUT},
    *,
};
use crate::{
    config,
    limit::ByListener,
    metrics::{EchState, Metrics, SessionEnd},
    resolve::Resolver,
    route::{Datagrams, Targets},
};

/// What a backend's address does to sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Unreachable,
    NoPort,
    Shortage,
}

/// A worker without sockets: it records what the core wants.
struct Bench {
    sessions: Sessions,
    affinity: Arc<Affinity>,
    limits: ByListener<ConnLimit>,
    /// Sessions of all listeners without a limit of their own.
    active: Arc<ConnLimit>,
    bans: Arc<Bans>,
    now: Duration,
    /// Open sockets and where they lead.
    sockets: BTreeMap<SessionId, SocketAddr>,
    /// What backends got, in order.
    sent: Vec<(SessionId, SocketAddr, Vec<u8>)>,
    /// What clients got from the daemon itself.
    replies: Vec<(Flow, Box<[u8]>)>,
    dropped: HashMap<DatagramDrop, u32>,
    refused: Vec<RefusedFlow>,
    hellos: Vec<EchState>,
    /// `[start]` and `[finish]` in short.
    log: Vec<String>,
    said: Vec<String>,
    installed: Vec<SessionId>,
    /// The kernel takes what it is given.
    has_kernel: bool,
    /// Times that something was taken back from the kernel.
    revoked: u32,
    /// What the kernel compares short headers with.
    steered_ids: HashMap<SessionId, Option<ConnectionId>>,
    resolving: Vec<SessionId>,
    faults: HashMap<SocketAddr, Fault>,
    /// Sessions that have ended.
    ended: Vec<(SessionId, SessionEnd)>,
    /// What the kernel has forwarded.
    kernel_seen: HashMap<SessionId, Forwarded>,
    targets: Targets,
    resolver: Resolver,
    /// Names resolve here.
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(config: &str) -> Self {
        Self::seeded(config, 1)
    }

    fn seeded(config: &str, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = parse(config);
        let metrics = Metrics::new();
        let resolver = Resolver::new(runtime.handle().clone(), config.dns, Arc::clone(&metrics));
        let targets = Targets::default();
        let limits = ByListener::default();
        let active = limits.of(&None, ConnLimit::default);
        let snapshot = made_up::snapshot(&config, &limits, &targets, &resolver);
        let affinity = Arc::new(Affinity::new(config.quic_affinity_lifetime, metrics));
        let bans = Arc::<Bans>::default();
        let mut sessions = Sessions::new(Arc::clone(&snapshot), Arc::clone(&affinity), Arc::clone(&bans), seed);
        made_up::listen(&mut sessions, &snapshot);
        Self {
            sessions,
            affinity,
            limits,
            active,
            bans,
            now: Duration::from_secs(1000),
            sockets: BTreeMap::new(),
            sent: Vec::new(),
            replies: Vec::new(),
            dropped: HashMap::new(),
            refused: Vec::new(),
            hellos: Vec::new(),
            log: Vec::new(),
            said: Vec::new(),
            installed: Vec::new(),
            has_kernel: true,
            revoked: 0,
            steered_ids: HashMap::new(),
            resolving: Vec::new(),
            faults: HashMap::new(),
            ended: Vec::new(),
            kernel_seen: HashMap::new(),
            targets,
            resolver,
            _runtime: runtime,
        }
    }

    /// Another worker of the same daemon.
    fn sibling(&self, config: &str) -> Self {
        let mut other = Self::seeded(config, 2);
        other.share(Arc::clone(&self.affinity));
        other.now = self.now;
        other
    }

    /// Takes another affinity table.
    fn share(&mut self, affinity: impl Into<Arc<Affinity>>) {
        self.affinity = affinity.into();
        self.sessions.identity = Identity::new(Arc::clone(&self.affinity));
    }

    fn reload(&mut self, config: &str) {
        let snapshot = made_up::snapshot(&parse(config), &self.limits, &self.targets, &self.resolver);
        let listeners = made_up::listeners(&snapshot);
        self.act(|sessions, now, out| sessions.handle_snapshot(snapshot, listeners, now, out));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let seen = std::mem::take(&mut self.kernel_seen);
        self.act(|sessions, now, out| sessions.handle_timeout(now, |session| seen.get(&session).copied(), out));
        self.kernel_seen = seen;
    }

    /// A datagram of a client, alone in its buffer.
    fn client(&mut self, flow: Flow, datagram: &[u8]) {
        let Some(steered) = self.steered_by_kernel(&flow, datagram) else {
            return self.buffer(flow, datagram, datagram.len().max(1));
        };
        // Where no ID is compared, it may be of a connection or tunnel of which nothing is known yet.
        let compared = self.steered_ids.get(&steered).copied().flatten().is_some();
        let sessions = self.sessions.table.iter().filter(|(_, state)| state.rank() > super::evidence::Rank::Unproven);
        let proven: Vec<SessionId> = sessions.map(|(session, _)| session).collect();
        let sent = self.sent.len();
        self.buffer(flow, datagram, datagram.len().max(1));
        let reached: Vec<SessionId> = self.sent[sent..].iter().map(|(session, ..)| *session).collect();
        let elsewhere = compared || reached.iter().any(|session| proven.contains(session));
        assert!(
            reached.contains(&steered) || !elsewhere,
            "the kernel sends it to {steered:?}, the daemon to {reached:?}: {datagram:02x?}"
        );
    }

    /// The session that the kernel forwards a datagram on, without asking.
    fn steered_by_kernel(&self, flow: &Flow, datagram: &[u8]) -> Option<SessionId> {
        let session = *self.installed.iter().find(|session| self.sessions.flow(**session) == Some(flow))?;
        let id = self.steered_ids.get(&session).copied().flatten();
        let id = id.as_ref().map(ConnectionId::as_bytes).unwrap_or_default();
        let mut cid = [0; 20];
        cid[..id.len()].copy_from_slice(id);
        let (kind, cid_len) = (self.sessions.steerable(session).unwrap(), u8::try_from(id.len()).unwrap());
        let entry = map::Flow { kind, cid, cid_len, ..map::Flow::default() };
        let all = Span { offset: 0, len: datagram.len() };
        gate(&entry, &datagram, all).is_ok().then_some(session)
    }

    /// A buffer of datagrams of a client.
    fn buffer(&mut self, flow: Flow, bytes: &[u8], segment: usize) {
        let mut out = Output::default();
        self.sessions.handle_datagrams(&flow, bytes, segment, 0, self.now, &mut out);
        self.carry_out(&mut out);
        for (session, range) in out.forward {
            for datagram in datagrams(&bytes[range], segment) {
                self.arrive(session, datagram);
            }
        }
    }

    /// A datagram of the backend at the other end of a session's socket.
    fn answer(&mut self, session: SessionId, datagram: &[u8]) -> Option<Flow> {
        let mut out = Output::default();
        let flow = self.sessions.handle_answers(session, datagram, datagram.len().max(1), self.now, &mut out);
        self.carry_out(&mut out);
        flow
    }

    fn refuse(&mut self, session: SessionId) {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        self.act(|sessions, now, out| sessions.handle_refused(session, &error, now, out));
    }

    fn act(&mut self, action: impl FnOnce(&mut Sessions, Duration, &mut Output)) {
        let mut out = Output::default();
        action(&mut self.sessions, self.now, &mut out);
        self.carry_out(&mut out);
        assert!(out.forward.is_empty());
    }

    fn carry_out(&mut self, out: &mut Output) {
        while let Some(command) = out.commands.pop_front() {
            match command {
                Command::Open { session, address } => {
                    let error = |kind| io::Error::from(kind);
                    let failed = match self.faults.get(&address) {
                        None => None,
                        Some(Fault::Unreachable) => {
                            Some(OpenError::Unreachable(error(io::ErrorKind::NetworkUnreachable)))
                        }
                        Some(Fault::NoPort) => Some(OpenError::NoPort(error(io::ErrorKind::AddrNotAvailable))),
                        Some(Fault::Shortage) => Some(OpenError::Shortage(error(io::ErrorKind::OutOfMemory))),
                    };
                    match failed {
                        Some(error) => self.sessions.handle_open_failed(session, error, self.now, out),
                        None => {
                            assert!(self.sockets.insert(session, address).is_none(), "opened twice");
                            self.sessions.handle_opened(session, self.now, out);
                        }
                    }
                }
                Command::Resolve { session, .. } => self.resolving.push(session),
                Command::Send { session, datagram, .. } => self.arrive(session, &datagram),
                Command::Reply { flow, datagram } => self.replies.push((flow, datagram)),
                Command::Started(started) => {
                    assert_eq!(self.sockets.get(&started.session), Some(&started.destination));
                    let Started { flow, carries, destination, .. } = *started;
                    self.log.push(format!("start {} {} {destination}", carries.name(), flow.client));
                }
                Command::Ended { session, end, .. } => {
                    let address = self.sockets.remove(&session).expect("only open sessions end");
                    self.installed.retain(|installed| *installed != session);
                    self.ended.push((session, end));
                    self.log.push(format!("finish {} {address}", end.name()));
                }
                Command::InstallFlow { session, cid } => {
                    assert!(self.sockets.contains_key(&session));
                    let flow = self.sessions.flow(session);
                    let of_it = |other: &SessionId| flow.is_some() && self.sessions.flow(*other) == flow;
                    assert!(!self.installed.iter().any(of_it), "the kernel has one entry for a client socket");
                    self.installed.push(session);
                    self.steered_ids.insert(session, cid);
                    self.sessions.handle_installed(session, self.has_kernel);
                }
                Command::UpdateFlow { session, cid } => {
                    assert!(self.installed.contains(&session), "updated without being installed");
                    self.steered_ids.insert(session, Some(cid));
                }
                Command::RevokeFlow { session } => {
                    assert!(self.installed.contains(&session), "revoked without being installed");
                    self.installed.retain(|installed| *installed != session);
                    self.revoked += 1;
                }
                Command::Log(notice) => self.said.push(format!("{notice:?}")),
            }
        }
        self.hellos.append(&mut out.hellos);
        for (reason, count) in out.dropped.drain(..) {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.refused.append(&mut out.refused);
    }

    fn arrive(&mut self, session: SessionId, datagram: &[u8]) {
        let address = *self.sockets.get(&session).expect("sent on an open socket");
        self.sent.push((session, address, datagram.to_vec()));
    }

    /// Where the last datagram went.
    fn last(&self) -> Option<(SessionId, u16)> {
        self.sent.last().map(|(session, address, _)| (*session, address.port()))
    }

    /// Ports of the backends that got something since the last call, in order.
    fn ports(&mut self) -> Vec<u16> {
        self.sent.drain(..).map(|(_, address, _)| address.port()).collect()
    }

    fn drops(&self, reason: DatagramDrop) -> u32 {
        self.dropped.get(&reason).copied().unwrap_or(0)
    }
}

fn parse(config: &str) -> config::model::Config {
    match config::parse(config) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{config}\n{problems}"),
    }
}

/// The client socket number `n`.
fn flow(n: u16) -> Flow {
    let [high, low] = n.to_be_bytes();
    Flow { listener: 0, client: SocketAddr::from(([192, 0, high, low], 1000 + n)), local: None }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A rule in TOML whose target is this port of a backend.
fn rule(name: &str, protocol: &str, port: u16, keys: &str) -> String {
    format!("[protocols.\"{name}\"]\nprotocol = \"{protocol}\"\ntarget = [\"198.51.100.1:{port}\"]\n{keys}\n")
}

const TOP: &str = "listen_port = 443\n";
