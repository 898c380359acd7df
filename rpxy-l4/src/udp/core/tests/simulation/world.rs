//! The world around a worker: sockets, datagrams on their way, a kernel that steers, and what was said to whom.

use std::collections::{BTreeSet, HashSet};

use super::{
    super::{packets::short, *},
    clients::{Client, Speech},
};
use crate::{metrics::SessionEnd, resolve::Lookup, udp::core::evidence::Rank};

/// `udp_max_connections` in all configurations.
pub(super) const MOST: usize = 48;
/// Affinity entries of one backend at most.
pub(super) const BUDGET: u32 = 24;
/// What ends a datagram whose sender is recorded.
const TAG: [u8; 4] = [b'#', 0xa5, b'%', 0x5a];

/// splitmix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.next() % sides as u64).unwrap()
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}

/// The rules of the configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Rule {
    /// QUIC to `a.test`, two targets.
    A,
    /// QUIC to `b.test`, whose target is a name.
    B,
    /// QUIC to `x.test`: a tenant whose backend and clients lie.
    X,
    /// WireGuard.
    W,
    /// WireGuard of a tenant whose backend lies.
    V,
    /// Everything else.
    Default,
}

impl Rule {
    pub(super) fn ports(self) -> &'static [u16] {
        match self {
            Self::A => &[1, 11],
            Self::B => &[2],
            Self::W => &[3, 13],
            Self::X => &[4],
            Self::V => &[5],
            Self::Default => &[8, 9],
        }
    }

    pub(super) fn of_port(port: u16) -> Self {
        let all = [Self::A, Self::B, Self::X, Self::W, Self::V];
        all.into_iter().find(|rule| rule.ports().contains(&port)).unwrap_or(Self::Default)
    }
}

/// What a datagram is, as its sender knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meant {
    pub(super) rule: Rule,
    pub(super) client: Option<usize>,
    /// It says itself which rule it is for.
    pub(super) begins: bool,
}

pub(super) struct World {
    pub(super) bench: Bench,
    pub(super) dice: Dice,
    pub(super) clients: Vec<Client>,
    /// The client sockets, as the daemon sees them now.
    pub(super) sockets: Vec<Flow>,
    /// Datagrams on their way, and from where.
    pub(super) network: Vec<(Flow, Vec<u8>)>,
    /// What was sent, by the number at its end, or the connection ID of who sent its Initial.
    meant: HashMap<Vec<u8>, Meant>,
    pub(super) serial: u32,
    /// Rules that somebody at this address has spoken to.
    pub(super) users: HashMap<Flow, BTreeSet<Rule>>,
    /// What backends stated on a session.
    pub(super) told: HashMap<SessionId, Vec<Vec<u8>>>,
    /// Sessions whose client has repeated it.
    pub(super) proved: HashSet<SessionId>,
    /// Which client's words arrived last over a session's socket.
    pub(super) spoken: HashMap<SessionId, usize>,
    /// Sockets that have lost a session, so that IDs may have been taken for another connection's.
    pub(super) misled: HashSet<usize>,
    pub(super) judged: usize,
    /// The datagram that has just reached the machine.
    pub(super) latest: Vec<u8>,
    pub(super) config: usize,
    /// The last byte of the address that the target of B has.
    host: u8,
    /// Addresses that were given out.
    pub(super) addresses: u16,
    /// Initiations that reached the lying WireGuard server.
    pub(super) initiations: usize,
    pub(super) counts: Counts,
}

/// How often what is worth a simulation has happened.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) started: usize,
    pub(super) alive: usize,
    pub(super) followed: usize,
    pub(super) got_in: usize,
    pub(super) confirmed: usize,
    pub(super) steered: usize,
    pub(super) over_budget: usize,
    pub(super) moved: usize,
    pub(super) migrated: usize,
    pub(super) balanced: usize,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.started += other.started;
        self.alive += other.alive;
        self.followed += other.followed;
        self.got_in += other.got_in;
        self.confirmed += other.confirmed;
        self.steered += other.steered;
        self.over_budget += other.over_budget;
        self.moved += other.moved;
        self.migrated += other.migrated;
        self.balanced += other.balanced;
    }
}

/// Configurations, with the ports of their targets.
pub(super) const CONFIGS: [&[u16]; 6] = [
    &[1, 11, 2, 3, 13, 4, 5, 8, 9],
    &[1, 2, 3, 4, 5, 9],
    &[1, 11, 3, 4, 5],
    &[11, 1, 2, 4, 5, 8, 9],
    &[1, 3],
    &[1, 11, 3, 13, 8, 9],
];
/// The configuration in which strays have one place to go to, for each protocol.
pub(super) const ONE_PLACE: usize = 4;
/// The one in which the client's address says to which target of A they go.
pub(super) const BALANCED: usize = 5;

pub(super) fn config(number: usize) -> String {
    let ports = CONFIGS[number];
    let targets = |rule: Rule| {
        let mine = ports.iter().filter(|port| rule.ports().contains(port));
        let host = if rule == Rule::B { "backend.test" } else { "198.51.100.1" };
        mine.map(|port| format!("\"{host}:{port}\"")).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("{TOP}udp_max_connections = {MOST}\n");
    if number == 1 {
        text += "orphan = \"drop\"\nudp_idle_lifetime = 3\n";
    }
    if number == BALANCED {
        text += "orphan = \"balance\"\n";
    }
    if !targets(Rule::Default).is_empty() {
        text += &format!("udp_load_balance = \"round_robin\"\nudp_target = [{}]\n", targets(Rule::Default));
    }
    for (rule, protocol, keys) in [
        (Rule::A, "quic", "load_balance = \"round_robin\"\nserver_names = [\"a.test\"]"),
        (Rule::B, "quic", "server_names = [\"b.test\"]"),
        (Rule::X, "quic", "server_names = [\"x.test\"]"),
        (Rule::W, "wireguard", ""),
        (Rule::V, "wireguard", "public_key = \"i6MmfpY2tEzA2ntGSGiN+D9Cg8AItdNaYNuo1W5EWRw=\""),
    ] {
        let targets = targets(rule);
        if !targets.is_empty() {
            text += &format!("[protocols.\"{rule:?}\"]\nprotocol = \"{protocol}\"\ntarget = [{targets}]\n{keys}\n");
        }
    }
    text
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        // Sockets with one conversation, with several QUIC connections, with anything.
        let on_socket = [0, 1, 2, 3, 4, 4, 5, 6, 6, 6];
        let clients = (0_u16..).zip(on_socket).map(|(number, socket)| {
            let rule = dice.pick(&[Rule::A, Rule::B]);
            let quic = Speech::Quic(rule);
            let any = [quic, Speech::WireGuard, Speech::Dns, Speech::Dtls, Speech::Stun, Speech::Rtp];
            let speech = if matches!(socket, 0 | 1 | 4) { quic } else { dice.pick(&any) };
            Client::new(number, socket, speech)
        });
        let clients: Vec<Client> = clients.collect();
        let mut bench = Bench::seeded(&config(0), seed);
        bench.share(Affinity::with_capacity(seconds(300), Metrics::new(), 1 << 12, BUDGET));
        let mut world = Self {
            bench,
            dice,
            clients,
            sockets: Vec::new(),
            network: Vec::new(),
            meant: HashMap::new(),
            serial: 0,
            users: HashMap::new(),
            told: HashMap::new(),
            proved: HashSet::new(),
            spoken: HashMap::new(),
            misled: HashSet::new(),
            judged: 0,
            latest: Vec::new(),
            config: 0,
            host: 1,
            addresses: 0,
            initiations: 0,
            counts: Counts::default(),
        };
        world.sockets = (0..7).map(|_| world.address(1)).collect();
        world.name(1);
        world
    }

    /// The name of B's target leads to another address from now on.
    pub(super) fn name(&mut self, host: u8) {
        self.host = host;
        let route = self.bench.sessions.at(&listener_flow()).routes.named(Some("B"));
        if let Some(Lookup::Name(name, _)) = route.and_then(|route| route.group.endpoint(0)?.lookup()) {
            name.set(vec![self.backend(2).ip()]);
        }
    }

    /// The backend with this port.
    pub(super) fn backend(&self, port: u16) -> SocketAddr {
        let host = if Rule::of_port(port) == Rule::B { self.host } else { 1 };
        SocketAddr::from(([198, 51, 100, host], port))
    }

    /// Returns whether a stray goes to this rule, whatever its sender meant.
    pub(super) fn strays_to(&self, rule: Rule, datagram: &[u8]) -> bool {
        match (self.config, rule) {
            // The fixed bit may be missing (RFC 9287), which tells nothing where nobody else could be meant.
            (ONE_PLACE | BALANCED, Rule::A) => datagram[0] & 0xc0 != 0 || !self.has_default(),
            (ONE_PLACE, Rule::W) => matches!(datagram, [2..=4, 0, 0, 0, ..]),
            _ => false,
        }
    }

    /// An address and port that nobody has had, in this network.
    pub(super) fn address(&mut self, network: u8) -> Flow {
        self.addresses += 1;
        let [_, host] = self.addresses.to_be_bytes();
        Flow { listener: 0, client: SocketAddr::from(([192, 0, network, host], 1000 + self.addresses)), local: None }
    }

    pub(super) fn has(&self, port: u16) -> bool {
        CONFIGS[self.config].contains(&port)
    }

    pub(super) fn has_default(&self) -> bool {
        Rule::Default.ports().iter().any(|port| self.has(*port))
    }

    /// Marks a datagram, so that it can be judged wherever it arrives.
    pub(super) fn tag(&mut self, mut datagram: Vec<u8>, meant: Meant) -> Vec<u8> {
        self.serial += 1;
        let tag = [TAG, self.serial.to_be_bytes()].concat();
        let end = datagram.len() - tag.len();
        datagram[end..].copy_from_slice(&tag);
        self.meant.insert(tag, meant);
        datagram
    }

    /// Records who sends Initials with this connection ID.
    pub(super) fn tag_initial(&mut self, client: &[u8], meant: Meant) {
        self.meant.insert(client.to_vec(), meant);
    }

    pub(super) fn meant(&self, datagram: &[u8]) -> Option<Meant> {
        let tail = datagram.last_chunk::<8>()?;
        let source = || {
            let destination = usize::from(*datagram.get(5)?);
            let source = datagram.get(6 + destination..)?;
            self.meant.get(source.get(1..=usize::from(*source.first()?))?)
        };
        self.meant.get(&tail[..]).or_else(source).copied()
    }

    /// A datagram reaches the machine.
    pub(super) fn arrive(&mut self, from: Flow, datagram: &[u8]) {
        if let Some(meant) = self.meant(datagram) {
            self.users.entry(from).or_default().insert(meant.rule);
        }
        let holds = |id: &Vec<u8>| datagram.windows(id.len().max(1)).any(|window| window == id);
        let sessions = &self.bench.sessions;
        let repeats =
            |session: &SessionId, ids: &[Vec<u8>]| sessions.flow(*session) == Some(&from) && ids.iter().any(holds);
        let proved = self.told.iter().filter(|(session, ids)| repeats(session, ids)).map(|(session, _)| *session);
        self.proved.extend(proved);
        self.latest = datagram.to_vec();
        let before = self.standing();
        match self.bench.steered_by_kernel(&from, datagram) {
            Some(session) if self.dice.roll(2) == 0 => {
                self.counts.steered += 1;
                let seen =
                    self.bench.kernel_seen.entry(session).or_insert(Forwarded { last: Duration::ZERO, turns: 0 });
                *seen = Forwarded { last: self.bench.now, turns: seen.turns + 1 };
                self.bench.arrive(session, datagram);
            }
            Some(_) | None => self.bench.client(from, datagram),
        }
        self.judge();
        self.judge_evicted(&before);
    }

    /// Rules with ranks of their sessions, as far as it could matter.
    pub(super) fn standing(&self) -> HashMap<SessionId, (Rule, Rank)> {
        if self.bench.sockets.len() + 1 < MOST {
            return HashMap::new();
        }
        let rank = |session: &SessionId| self.bench.sessions.table.get(*session).map(Session::rank);
        let all = self.bench.sockets.iter();
        all.filter_map(|(session, to)| Some((*session, (Rule::of_port(to.port()), rank(session)?)))).collect()
    }

    /// One of the datagrams on their way arrives, not always the first.
    pub(super) fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = if self.dice.roll(3) == 0 { self.dice.roll(self.network.len()) } else { 0 };
        let (from, datagram) = self.network.remove(at);
        self.arrive(from, &datagram);
    }

    pub(super) fn wait(&mut self, time: Duration) {
        if time >= Duration::from_millis(20) {
            self.deliver_all();
        }
        self.bench.wait(time);
    }

    /// Nothing is under way for long.
    pub(super) fn deliver_all(&mut self) {
        while !self.network.is_empty() {
            self.deliver();
        }
    }

    /// Sessions whose rule and target stay go on, all others end.
    pub(super) fn reload(&mut self) {
        let number = self.dice.roll(CONFIGS.len());
        self.reload_to(number);
    }

    pub(super) fn reload_to(&mut self, number: usize) {
        self.config = number;
        let before = self.bench.sockets.clone();
        self.bench.reload(&config(self.config));
        self.name(self.host);
        for (session, to) in before {
            let lives = self.bench.sockets.contains_key(&session);
            assert_eq!(lives, self.has(to.port()), "after a reload: {session:?} to {to}");
        }
    }

    pub(super) fn trouble(&mut self) {
        let port = self.dice.pick(CONFIGS[0]);
        let address = self.backend(port);
        match self.dice.roll(6) {
            0 => drop(self.bench.faults.insert(address, Fault::Unreachable)),
            1 => drop(self.bench.faults.insert(address, Fault::NoPort)),
            2 => drop(self.bench.faults.insert(address, Fault::Shortage)),
            3 => self.bench.faults.clear(),
            _ => {
                let session = self.bench.sockets.iter().find(|(_, to)| **to == address).map(|(session, _)| *session);
                if let Some(session) = session {
                    self.bench.refuse(session);
                }
            }
        }
    }

    /// In the end all sessions are over, each was told of twice, and nothing is held or remembered.
    pub(super) fn finish(mut self) -> Counts {
        self.bench.act(|sessions, now, out| sessions.handle_closed(None, SessionEnd::Drained, now, out));
        let count = |what: &str| self.bench.log.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("start"), count("finish"));
        assert!(self.bench.sockets.is_empty() && self.bench.installed.is_empty());
        assert_eq!((self.bench.sessions.len(), self.bench.sessions.held_bytes()), (0, 0));
        assert_eq!(self.bench.active.count(), 0);
        assert!(self.bench.sessions.table.flows() == 0 && self.bench.sessions.undecided.len() == 0);
        self.bench.now += seconds(3600);
        for id in self.clients.iter().flat_map(|client| &client.told) {
            let found = match <[u8; 4]>::try_from(&id[..]) {
                Ok(index) => {
                    let key = crate::udp::affinity::Key::Index(u32::from_le_bytes(index));
                    self.bench.affinity.find(key, self.bench.now)
                }
                Err(_) => self
                    .bench
                    .affinity
                    .find_short(&short(id), None, self.bench.now)
                    .and_then(|(_, owners)| owners.into_iter().next()),
            };
            assert_eq!(found, None, "{id:x?} has expired");
        }
        self.counts.started = count("start");
        self.counts
    }
}

/// A flow of the one listener.
pub(super) fn listener_flow() -> Flow {
    Flow { listener: 0, client: SocketAddr::from(([192, 0, 2, 1], 1000)), local: None }
}
