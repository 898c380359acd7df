//! Honest clients and their servers.

use std::sync::{LazyLock, Mutex};

use super::{
    super::{
        packets::{HANDSHAKE, SERVER_INITIAL, first, hello, initials, long, short, wireguard},
        *,
    },
    world::{Dice, Meant, Rule, World},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Speech {
    Quic(Rule),
    WireGuard,
    Dns,
    Dtls,
    Stun,
    Rtp,
}

impl Speech {
    fn rule(self) -> Rule {
        match self {
            Self::Quic(rule) => rule,
            Self::WireGuard => Rule::W,
            Self::Dns | Self::Dtls | Self::Stun | Self::Rtp => Rule::Default,
        }
    }
}

/// A client with one conversation, together with its end at the server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) number: u16,
    pub(super) socket: usize,
    pub(super) speech: Speech,
    /// IDs or indices of the server that have reached the client; it uses the last one.
    pub(super) told: Vec<Vec<u8>>,
    /// IDs or indices that the server has given out.
    issued: u64,
    /// The backend that has stated the first one.
    stated_by: Option<SocketAddr>,
    /// The backend that knows it.
    pub(super) home: Option<SocketAddr>,
    /// The session that last brought something of it there.
    pub(super) path: Option<SessionId>,
    /// The last ID that arrived over `path`.
    arrived: Vec<u8>,
    /// The session whose initiation is to be answered.
    asked: Option<SessionId>,
    /// The end of its handshake has arrived: before that, it has no short headers to send.
    pub(super) finished: bool,
    /// When the last index was learned.
    learned: Duration,
    /// It has been followed to another address; those that follow hold no IDs that their clients use.
    pub(super) rebound: bool,
    /// Its backend may have had no budget left when its ID was to be learned.
    unsure: bool,
}

/// Bytes that nobody guesses, never the same for other arguments.
fn random_id(who: u16, number: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(u64::from(who) << 40 | number << 8);
    loop {
        let bytes = [dice.next(), dice.next(), dice.next()].map(u64::to_be_bytes).concat();
        let different: std::collections::BTreeSet<u8> = bytes[..8].iter().copied().collect();
        if different.len() > 5 && !bytes[0].is_ascii() {
            return bytes[..len].to_vec();
        }
    }
}

/// Initials by client and rule.
type Made = HashMap<(u16, Rule), Vec<Vec<u8>>>;

/// Initials of this client for that name, made once.
pub(super) fn hellos(number: u16, rule: Rule) -> Vec<Vec<u8>> {
    static MADE: LazyLock<Mutex<Made>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let make = || {
        let (client, destination) = (client_id(number), random_id(number, 1 << 31, 8));
        let name = format!("{rule:?}.test").to_lowercase();
        if number.is_multiple_of(3) {
            initials(&client, &destination, &hello(&name, "h3", 1900), 900)
        } else {
            vec![first(&client, &destination, &name)]
        }
    };
    made.entry((number, rule)).or_insert_with(make).clone()
}

pub(super) fn client_id(number: u16) -> Vec<u8> {
    random_id(number, 1 << 30, 8)
}

/// Bytes as of that protocol, with room for a tag.
fn beginning(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut datagram = bytes.to_vec();
    datagram.resize(len, 0);
    datagram
}

/// A DNS query with this number.
pub(super) fn query(number: u16) -> Vec<u8> {
    let [a, b] = number.to_be_bytes();
    beginning(&[a, b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'w', b'w', b'w', 1, b'x', 0, 0, 1, 0, 1], 40)
}

/// The second byte of a number of a DNS query that liars go for.
pub(super) const LIKED: u16 = 0x42;
pub(super) const DTLS: &[u8] = &[0x16, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50];
const STUN: &[u8] = &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
const RTP: &[u8] = &[0x80, 0x60, 0x1f, 0x2e, 0x00, 0x01, 0x8c, 0x20, 0x5d];

impl Client {
    pub(super) fn new(number: u16, socket: usize, speech: Speech) -> Self {
        Self {
            number,
            socket,
            speech,
            told: Vec::new(),
            issued: 0,
            stated_by: None,
            home: None,
            path: None,
            arrived: Vec::new(),
            asked: None,
            finished: false,
            learned: Duration::ZERO,
            rebound: false,
            unsure: false,
        }
    }

    fn index(&self) -> u32 {
        0x6000_0000 | u32::from(self.number)
    }

    /// Servers differ in the length of their IDs.
    fn len(&self) -> usize {
        match self.speech {
            Speech::WireGuard => 4,
            Speech::Quic(_) | Speech::Dns | Speech::Dtls | Speech::Stun | Speech::Rtp => {
                [8, 20, 8, 12, 8, 20, 8, 0][usize::from(self.number) % 8]
            }
        }
    }

    /// Its server has no connection IDs.
    fn is_without_id(&self) -> bool {
        matches!(self.speech, Speech::Quic(_)) && self.len() == 0
    }

    /// What the client uses and its server has said in clear.
    pub(super) fn stated(&self) -> Option<Vec<u8>> {
        let in_clear = self.told.len() == 1 || self.speech == Speech::WireGuard;
        self.told.last().filter(|_| in_clear && !self.unsure).cloned()
    }

    pub(super) fn issue(&mut self) -> Vec<u8> {
        self.issued += 1;
        random_id(self.number, self.issued, self.len())
    }
}

impl World {
    pub(super) fn meant_of(&self, client: usize, begins: bool) -> Meant {
        Meant { rule: self.clients[client].speech.rule(), client: Some(client), begins }
    }

    /// Datagrams that begin the conversation, or tell nothing.
    pub(super) fn opening(&mut self, client: usize) -> Vec<Vec<u8>> {
        let (number, index) = (self.clients[client].number, self.clients[client].index());
        let begins = self.meant_of(client, true);
        let datagram = match self.clients[client].speech {
            Speech::Quic(rule) => {
                self.tag_initial(&client_id(number), begins);
                return hellos(number, rule);
            }
            Speech::WireGuard => wireguard(1, index, 0, 148),
            // One half of the number is what a liar would have an ID begin with.
            Speech::Dns => query(u16::try_from(self.dice.roll(256) << 8).unwrap() | self.dice.pick(&[LIKED, 0])),
            Speech::Dtls => beginning(DTLS, 63),
            Speech::Stun => beginning(STUN, 36),
            Speech::Rtp => beginning(RTP, 200),
        };
        vec![self.tag(datagram, begins)]
    }

    /// A datagram from the middle of the conversation; none before it has begun.
    pub(super) fn later(&mut self, client: usize) -> Option<Vec<u8>> {
        let last = self.clients[client].told.last().cloned()?;
        let state = &self.clients[client];
        // The keys behind an index are good for 180 s (REJECT_AFTER_TIME).
        if state.speech == Speech::WireGuard && self.bench.now > state.learned + seconds(180) {
            return None;
        }
        let datagram = match state.speech {
            Speech::Quic(_) if !state.finished => long(HANDSHAKE, &state.told[0], &client_id(state.number)),
            Speech::Quic(_) => short(&last),
            Speech::WireGuard => wireguard(4, u32::from_le_bytes(last.try_into().unwrap()), self.serial, 64),
            Speech::Dns | Speech::Dtls | Speech::Stun | Speech::Rtp => return None,
        };
        let meant = self.meant_of(client, false);
        Some(self.tag(datagram, meant))
    }

    /// A client says something, which is on its way then.
    pub(super) fn speak(&mut self, client: usize) {
        let from = self.sockets[self.clients[client].socket];
        let again = self.clients[client].told.is_empty() || self.clients[client].speech == Speech::WireGuard;
        let datagrams = match self.later(client) {
            Some(later) if !again || self.dice.roll(4) > 0 => vec![later],
            Some(_) | None => self.opening(client),
        };
        self.network.extend(datagrams.into_iter().map(|datagram| (from, datagram)));
    }

    /// A client and its server speak without anything in between.
    pub(super) fn converse(&mut self, client: usize) {
        for _ in 0..3 {
            let from = self.sockets[self.clients[client].socket];
            let datagrams = match self.later(client) {
                Some(later) => vec![later],
                None => self.opening(client),
            };
            datagrams.iter().for_each(|datagram| self.arrive(from, datagram));
            let path = self.clients[client].path.filter(|path| self.bench.sockets.contains_key(path));
            if let Some(path) = path.filter(|path| self.spoken.get(path) == Some(&client)) {
                self.answer_honestly(path, client);
            }
        }
    }

    /// Something of a client has arrived at a backend.
    pub(super) fn heard(&mut self, client: usize, session: SessionId, address: SocketAddr, begins: bool, id: &[u8]) {
        self.spoken.insert(session, client);
        let short_of_budget = self.is_short_of_budget(address);
        let state = &mut self.clients[client];
        if !state.speech.rule().ports().contains(&address.port()) {
            return;
        }
        // A server of WireGuard answers wherever it is asked.
        if begins
            && (state.told.is_empty() || state.speech == Speech::WireGuard)
            && state.home.replace(address) != Some(address)
        {
            // The index that it has is another server's.
            state.learned = Duration::ZERO;
        }
        if state.home == Some(address) {
            if begins {
                state.asked = Some(session);
            }
            if state.path.replace(session) != Some(session) {
                state.arrived.clear();
            }
            state.unsure |= short_of_budget;
            if !begins {
                state.arrived = id.to_vec();
                state.finished = true;
            }
        }
    }

    /// The server of an honest client answers over a session.
    pub(super) fn answer_honestly(&mut self, session: SessionId, client: usize) {
        let address = self.bench.sockets[&session];
        let state = &mut self.clients[client];
        let number = state.number;
        let knows = state.home == Some(address);
        let (datagram, id) = match state.speech {
            Speech::Quic(_) if !knows => return,
            // Lost answers are repeated, by the same backend.
            Speech::Quic(_) if state.told.is_empty() => {
                let again = state.stated_by.replace(address) == Some(address);
                state.issued -= u64::from(again);
                let id = state.issue();
                (long(SERVER_INITIAL, &client_id(number), &id), Some(id))
            }
            Speech::Quic(_) => (short(&client_id(number)), (self.dice.roll(3) == 0).then(|| state.issue())),
            Speech::WireGuard if !knows => return,
            Speech::WireGuard if state.asked == Some(session) => {
                state.asked = None;
                let id = state.issue();
                (wireguard(2, u32::from_le_bytes(id[..4].try_into().unwrap()), state.index(), 92), Some(id))
            }
            Speech::WireGuard => (wireguard(4, state.index(), 0, 64), None),
            Speech::Dns | Speech::Dtls | Speech::Stun | Speech::Rtp => (vec![0, 1], None),
        };
        let in_clear = datagram[0] & 0x80 != 0 || datagram[0] == 2;
        if let Some(id) = id.as_ref().filter(|_| in_clear) {
            self.told.entry(session).or_default().push(id.clone());
        }
        let (learned, short_of_budget) = (self.bench.affinity.len(), self.is_short_of_budget(address));
        let to = self.bench.answer(session, &datagram);
        assert_eq!(to, self.bench.sessions.flow(session).copied(), "to the client's end of this very session");
        let state = &mut self.clients[client];
        state.unsure |= short_of_budget;
        if let Some(id) = id
            && to == Some(self.sockets[state.socket])
        {
            let known = state.speech != Speech::WireGuard || self.bench.affinity.len() > learned;
            state.learned = if known { self.bench.now } else { Duration::ZERO };
            state.told.push(id);
        }
    }

    fn is_short_of_budget(&self, address: SocketAddr) -> bool {
        self.bench.affinity.entries_at(address) + 8 > super::world::BUDGET
    }

    /// The sessions of this socket, none of which anybody else may have touched.
    pub(super) fn untouched(&self, socket: usize) -> bool {
        let own: std::collections::BTreeSet<Rule> = self.on_socket(socket).map(|client| client.speech.rule()).collect();
        self.users.get(&self.sockets[socket]).is_none_or(|users| users.is_subset(&own))
    }

    pub(super) fn on_socket(&self, socket: usize) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(move |client| client.socket == socket)
    }

    /// Returns whether a client of this rule is on the socket of that client.
    pub(super) fn shares_socket_with(&self, client: usize, rule: Rule) -> bool {
        self.on_socket(self.clients[client].socket).any(|other| other.speech.rule() == rule)
    }

    pub(super) fn lives(&self, client: &Client) -> bool {
        let session = client.path.filter(|path| self.bench.sockets.get(path) == client.home.as_ref());
        session.is_some_and(|path| self.bench.sessions.flow(path) == Some(&self.sockets[client.socket]))
    }

    /// A connection whose sessions all live is served, whatever ID its client goes on with.
    pub(super) fn probe(&mut self, client: usize) {
        let socket = self.clients[client].socket;
        let all_live = self.on_socket(socket).all(|client| self.lives(client));
        let several = self.on_socket(socket).count() > 1;
        // Nobody can tell connections of one socket apart whose servers have no IDs.
        let unclear = self.misled.contains(&socket) || self.on_socket(socket).any(Client::is_without_id);
        if !all_live || !self.untouched(socket) || several && unclear {
            return;
        }
        let Some(datagram) = self.later(client) else { return };
        let home = self.clients[client].home.unwrap();
        let from = self.sockets[socket];
        let before = self.bench.sent.len();
        self.arrive(from, &datagram);
        let arrived = self.bench.sent[before..].iter().any(|(_, to, _)| *to == home);
        assert!(arrived, "{:?} goes on with {:x?}", self.clients[client], &datagram[..12]);
        self.counts.alive += 1;
    }

    /// A NAT in between, or a client that moves: after that, a connection whose ID is known is followed.
    pub(super) fn rebind(&mut self, client: usize) {
        let state = self.clients[client].clone();
        let same = self.dice.roll(2) == 0;
        let alone = self.on_socket(state.socket).count() == 1;
        let lives = self.lives(&state) && self.untouched(state.socket) && alone;
        let network = if same { 1 } else { 2 + u8::try_from(self.dice.roll(50)).unwrap() };
        self.sockets[state.socket] = self.address(network);
        self.misled.insert(state.socket);
        let was_in = state.path.and_then(|path| self.bench.sessions.flow(path)).map(|flow| flow.client.ip());
        let near = was_in.is_some_and(|ip| matches!(ip, std::net::IpAddr::V4(ip) if ip.octets()[2] == network));
        let known = match state.speech {
            // The server stated the first one; the others count from where they were used.
            Speech::Quic(_) => {
                let used =
                    near && !state.rebound && state.path == state.asked && Some(&state.arrived) == state.told.last();
                !state.unsure && !state.is_without_id() && (state.told.len() == 1 && !state.arrived.is_empty() || used)
            }
            Speech::WireGuard => state.learned > Duration::ZERO && self.bench.now < state.learned + seconds(199),
            Speech::Dns | Speech::Dtls | Speech::Stun | Speech::Rtp => false,
        };
        let Some(datagram) = self.later(client) else { return };
        self.bench.faults.clear();
        let sure = state.home.is_some_and(|home| !self.is_short_of_budget(home));
        self.clients[client].rebound = true;
        let full = self.bench.drops(DatagramDrop::TooMany);
        let (before, from) = (self.bench.sent.len(), self.sockets[state.socket]);
        self.arrive(from, &datagram);
        if lives && known && sure && self.has(state.home.unwrap().port()) {
            let arrived = self.bench.sent[before..].iter().any(|(_, to, _)| Some(*to) == state.home);
            assert!(arrived || self.bench.drops(DatagramDrop::TooMany) > full, "{state:?} is followed to {from:?}");
            self.counts.followed += usize::from(arrived);
        }
    }
}
