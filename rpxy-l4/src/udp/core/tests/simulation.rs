//! Thousands of random interleavings, each from a seed that a failure names.
//!
//! Clients speak QUIC, WireGuard or neither, lose, repeat and reorder datagrams, change their address, reuse their
//! socket for another name; backends answer or refuse; sockets cannot be had; configurations come and go; time passes.
//! Datagrams carry who sent them, so that whatever arrives anywhere can be judged.

use std::collections::BTreeSet;

use super::{
    packets::{HANDSHAKE, SERVER_INITIAL, first, hello, initials, long, short, wireguard},
    *,
};

/// Interleavings of one run.
const SEEDS: u64 = 2000;
/// Steps of each.
const STEPS: usize = 120;
/// `udp_max_connections` in all configurations.
const MOST: usize = 6;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }
}

/// What a client speaks, and to which backend that has to lead (by port).
#[derive(Debug, Clone, Copy, PartialEq)]
enum Speech {
    /// QUIC to `a.test` (port 1) or `b.test` (port 2).
    Quic(u16),
    /// WireGuard (port 3).
    WireGuard,
    /// Anything else (ports 8 and 9).
    Other,
}

/// A client with one conversation.
#[derive(Debug, Clone)]
struct Client {
    number: u16,
    flow: Flow,
    speech: Speech,
    /// Its own connection ID, or index, made of its number.
    sent: u32,
}

impl Client {
    fn id(&self) -> [u8; 8] {
        let [a, b] = self.number.to_be_bytes();
        [b'c', b'l', b'i', b'e', b'n', b't', a, b]
    }

    fn server_id(&self) -> [u8; 8] {
        let [a, b] = self.number.to_be_bytes();
        [0xfe, b'e', b'r', b'v', b'E', b'R', a, b]
    }

    fn index(&self) -> u32 {
        0x5000_0000 | u32::from(self.number)
    }

    /// Datagrams that begin the conversation, each recognisable as this client's.
    fn opening(&self) -> Vec<Vec<u8>> {
        let [a, b] = self.number.to_be_bytes();
        let destination = [b'f', b'i', b'r', b's', b't', b'!', a, b];
        match self.speech {
            Speech::Quic(port) => {
                let name = if port == 1 { "a.test" } else { "b.test" };
                if self.number.is_multiple_of(3) {
                    initials(&self.id(), &destination, &hello(name, "h3", 1900), 900)
                } else {
                    vec![first(&self.id(), &destination, name)]
                }
            }
            Speech::WireGuard => vec![wireguard(1, u32::from(self.number), 0, 148)],
            Speech::Other => vec![[&[0, a, b][..], &self.sent.to_be_bytes()].concat()],
        }
    }

    /// A datagram from the middle of the conversation.
    fn later(&mut self) -> Vec<u8> {
        self.sent += 1;
        match self.speech {
            Speech::Quic(_) if self.sent.is_multiple_of(4) => long(HANDSHAKE, &self.server_id(), &self.id()),
            Speech::Quic(_) => short(&self.server_id()),
            Speech::WireGuard => wireguard(4, self.index(), self.sent, 64),
            Speech::Other => self.opening().remove(0),
        }
    }

    /// What its backend says, given that the conversation has reached it.
    fn answer(&self) -> Vec<u8> {
        match self.speech {
            Speech::Quic(_) => long(SERVER_INITIAL, &self.id(), &self.server_id()),
            Speech::WireGuard => wireguard(2, self.index(), u32::from(self.number), 92),
            Speech::Other => vec![0, 1],
        }
    }
}

fn configs() -> [String; 3] {
    let top = format!("{TOP}udp_max_connections = {MOST}\norphan = \"drop\"\n");
    let a = rule("a", "quic", 1, "server_names = [\"a.test\"]");
    let b = rule("b", "quic", 2, "server_names = [\"b.test\"]");
    let wireguard = rule("w", "wireguard", 3, "");
    let two = "udp_load_balance = \"round_robin\"\nudp_target = [\"198.51.100.1:9\", \"198.51.100.1:8\"]\n";
    [
        format!("{top}{two}{a}{b}{wireguard}"),
        format!("{top}udp_idle_lifetime = 3\nudp_target = [\"198.51.100.1:9\"]\n{b}{wireguard}"),
        format!("{top}{two}{a}"),
    ]
}

struct World {
    bench: Bench,
    dice: Dice,
    clients: Vec<Client>,
    /// Datagrams on their way, and from where.
    network: Vec<(Flow, Vec<u8>)>,
    /// Which client's words arrived last over a session's socket.
    spoken: HashMap<SessionId, u16>,
    /// Which clients have used an address and port.
    users: HashMap<Flow, BTreeSet<u16>>,
    /// The last number of those arrivals that are numbered, by session.
    order: HashMap<SessionId, u32>,
    arrived: u32,
    judged: usize,
    config: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let clients = (1..=8).map(|number| Client {
            number,
            // Two clients behind one address and port: a socket with several conversations.
            flow: flow(if number == 8 { 7 } else { number }),
            speech: match dice.roll(4) {
                0 => Speech::Quic(1),
                1 => Speech::Quic(2),
                2 => Speech::WireGuard,
                _ => Speech::Other,
            },
            sent: 0,
        });
        let clients = clients.collect();
        Self {
            bench: Bench::seeded(&configs()[0], seed),
            dice,
            clients,
            network: Vec::new(),
            spoken: HashMap::new(),
            users: HashMap::new(),
            order: HashMap::new(),
            arrived: 0,
            judged: 0,
            config: 0,
        }
    }

    fn send(&mut self, client: usize, datagrams: Vec<Vec<u8>>) {
        let Client { flow, number, .. } = self.clients[client];
        self.users.entry(flow).or_default().insert(number);
        self.network.extend(datagrams.into_iter().map(|datagram| (flow, datagram)));
    }

    fn step(&mut self) {
        let chosen = self.dice.roll(self.clients.len());
        match self.dice.roll(24) {
            0..=4 => self.send(chosen, self.clients[chosen].opening()),
            5..=8 => {
                let datagram = self.clients[chosen].later();
                self.send(chosen, vec![datagram]);
            }
            9..=14 => self.deliver(),
            15 => self.network.extend(self.network.last().cloned()),
            16 => drop(self.network.pop()),
            17 => self.answer(),
            18 => self.answer(),
            19 => self.answer_late(),
            20 => {
                // A NAT in between, or a client that moves.
                let client = &mut self.clients[chosen];
                client.flow = flow(100 + u16::try_from(self.dice.roll(500)).unwrap());
            }
            21 => {
                let time = [1, 20, 700, 2100, 5000, 61_000][self.dice.roll(6)];
                self.bench.wait(Duration::from_millis(time));
            }
            22 => {
                self.config = self.dice.roll(3);
                self.bench.reload(&configs()[self.config]);
            }
            _ => self.trouble(),
        }
        self.judge();
    }

    /// One of the datagrams on their way arrives, not always the first.
    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = if self.dice.roll(3) == 0 { self.dice.roll(self.network.len()) } else { 0 };
        let (from, mut datagram) = self.network.remove(at);
        if datagram[0] == 0 {
            // Numbered in the order in which the daemon gets them.
            self.arrived += 1;
            datagram.extend(self.arrived.to_be_bytes());
        }
        self.bench.client(from, &datagram);
    }

    fn answer(&mut self) {
        let sockets: Vec<SessionId> = self.bench.sockets.keys().copied().collect();
        if sockets.is_empty() {
            return;
        }
        let session = sockets[self.dice.roll(sockets.len())];
        let Some(client) = self.spoken.get(&session) else { return };
        let words = self.clients[usize::from(*client) - 1].answer();
        let to = self.bench.answer(session, &words);
        assert_eq!(to, self.bench.sessions.flow(session).copied(), "to the client's end of this very session");
        assert!(to.is_some());
    }

    /// An answer over a socket that is closed.
    fn answer_late(&mut self) {
        let closed = self.spoken.keys().find(|session| !self.bench.sockets.contains_key(session)).copied();
        if let Some(session) = closed {
            assert_eq!(self.bench.answer(session, &[0; 30]), None, "its place may belong to somebody else by now");
        }
    }

    fn trouble(&mut self) {
        let port = [1, 2, 3, 8, 9][self.dice.roll(5)];
        let address = SocketAddr::from(([198, 51, 100, 1], port));
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

    /// Everything that arrived since the last call arrived where it may, and what is held is bounded.
    fn judge(&mut self) {
        for (session, address, datagram) in &self.bench.sent[self.judged..] {
            if let Some(client) = self.clients.iter().find(|client| is_of(&datagram[..], client)) {
                let port = address.port();
                // What is under way and unknown goes with the connection that its address has, as does what follows.
                let shared = self.users.values().any(|users| users.len() > 1 && users.contains(&client.number));
                match client.speech {
                    Speech::Quic(_) if shared && datagram[0] & 0xb0 != 0x80 => {}
                    Speech::Quic(expected) => assert_eq!(port, expected, "{client:?}"),
                    Speech::WireGuard if self.config != 2 && datagram[0] == 1 => assert_eq!(port, 3, "{client:?}"),
                    // Without a rule it is like anything else: it goes with what its address has, and stays there.
                    Speech::WireGuard if self.config == 2 || shared => {}
                    Speech::WireGuard => assert!([3, 8, 9].contains(&port), "{client:?}"),
                    Speech::Other => {
                        let number = u32::from_be_bytes(*datagram.last_chunk().unwrap());
                        let before = self.order.insert(*session, number);
                        assert!(before.is_none_or(|before| before < number), "out of order or twice: {client:?}");
                    }
                }
                self.spoken.insert(*session, client.number);
            }
        }
        self.judged = self.bench.sent.len();
        assert!(self.bench.sockets.len() <= MOST, "{}", self.bench.sockets.len());
        assert!(usize::try_from(self.bench.active.count()).unwrap() <= MOST);
        assert!(self.bench.sessions.deadlines.len() <= 4 * self.bench.sessions.len() + 66);
        assert!(self.bench.sessions.held_bytes() <= 8 * UndecidedQueue::MOST * 1300);
    }

    /// In the end all sessions are over, each was told of twice, and nothing is held.
    fn finish(mut self) {
        self.bench.act(|sessions, now, out| sessions.handle_closed(None, SessionEnd::Drained, now, out));
        let count = |what: &str| self.bench.log.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("start"), count("finish"));
        assert!(self.bench.sockets.is_empty() && self.bench.installed.is_empty());
        assert_eq!((self.bench.sessions.len(), self.bench.sessions.held_bytes()), (0, 0));
        assert_eq!(self.bench.active.count(), 0);
        assert!(self.bench.sessions.table.flows() == 0 && self.bench.sessions.undecided.len() == 0);
        self.bench.now += Duration::from_secs(3600);
        // What IDs are left have expired.
        for client in &self.clients {
            let key = crate::udp::affinity::Key::Index(client.index());
            assert_eq!(self.bench.affinity.find(key, self.bench.now), None);
            assert_eq!(self.bench.affinity.find_short(&short(&client.server_id()), None, self.bench.now), None);
        }
    }
}

/// Whether a datagram tells that `client` sent it.
fn is_of(datagram: &[u8], client: &Client) -> bool {
    let holds = |id: &[u8]| datagram.windows(id.len()).take(40).any(|window| window == id);
    match client.speech {
        Speech::Quic(_) => holds(&client.id()) || holds(&client.server_id()),
        Speech::WireGuard => {
            datagram.starts_with(&wireguard(1, u32::from(client.number), 0, 8))
                || datagram.starts_with(&[&[4, 0, 0, 0][..], &client.index().to_le_bytes()].concat())
        }
        Speech::Other => datagram.starts_with(&[&[0][..], &client.number.to_be_bytes()].concat()),
    }
}

#[test]
fn invariants_hold_in_every_interleaving() {
    let mut started = 0;
    let mut followed = 0;
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
            }
            let started = world.bench.log.iter().filter(|line| line.starts_with("start")).count();
            let quic = world.bench.log.iter().filter(|line| line.starts_with("start udp:quic 192.0.")).count();
            world.finish();
            (started, quic)
        });
        match outcome {
            Ok((all, quic)) => {
                started += all;
                followed += quic;
            }
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(started > 14_000 && followed > 700, "the interleavings reach something: {started}, {followed}");
}
