//! Spoofers, a tenant's clients and a tenant's backends that lie, floods.

use std::sync::LazyLock;

use super::{
    super::{
        packets::{SERVER_INITIAL, Sender, long, short, wireguard},
        *,
    },
    clients::{Client, DTLS, LIKED, client_id, hellos, query},
    world::{MOST, Meant, Rule, World},
};
use crate::udp::core::evidence::Rank;

/// Numbers of hostile clients begin here, those of newcomers there.
const HOSTILE: u16 = 1000;
const NEWCOMERS: u16 = 2000;

/// QUIC for certain, without a hello.
static MALFORMED: LazyLock<Vec<u8>> =
    LazyLock::new(|| Sender::new(&client_id(HOSTILE + 9), &[0xf7; 8]).initial(vec![8]));

fn initiation() -> Vec<u8> {
    include_bytes!("../../../../../../rpxy-l4-proto/src/wireguard/testdata/initiation.bin").to_vec()
}

impl World {
    /// An ID in use that its server has stated, or chosen as an index: anybody on the path has seen it. One that a server
    /// gave in secret would be believed of a backend that states it, and who is on the path can have it all anyway.
    fn seen_id(&mut self) -> Option<Vec<u8>> {
        let in_use = self.clients.iter().filter(|client| self.lives(client));
        let told: Vec<Vec<u8>> = in_use.filter_map(Client::stated).collect();
        if told.is_empty() { None } else { Some(told[self.dice.roll(told.len())].clone()) }
    }

    /// An ID that a client has used, maybe one that nobody knows any more.
    fn used_id(&mut self) -> Option<Vec<u8>> {
        let told: Vec<Vec<u8>> = self.clients.iter().flat_map(|client| client.told.iter().cloned()).collect();
        if told.is_empty() { None } else { Some(told[self.dice.roll(told.len())].clone()) }
    }

    /// An ID that would be worth something to who is believed that it is its own.
    fn made_up(&mut self) -> Vec<u8> {
        let dns = query(LIKED)[1..21].to_vec();
        let mut dtls = DTLS[1..].to_vec();
        dtls.resize(20, 0);
        let random: Vec<u8> = (0..3).flat_map(|_| self.dice.next().to_be_bytes()).collect();
        let id = match self.dice.roll(5) {
            0 => dns,
            1 => dtls,
            2 => b"NVITE sip:bob@exampl".to_vec(),
            3 => return self.seen_id().unwrap_or_default(),
            _ => random,
        };
        let len = self.dice.pick(&[8, 8, 20, 9, 12, 5, 0, 1]);
        id[..id.len().min(if self.dice.roll(3) == 0 { len } else { 20 })].to_vec()
    }

    fn stranger(rule: Rule, begins: bool) -> Meant {
        Meant { rule, client: None, begins }
    }

    fn hello_of(&mut self, number: u16, rule: Rule) -> Vec<Vec<u8>> {
        self.tag_initial(&client_id(number), Self::stranger(rule, true));
        hellos(number, rule)
    }

    /// Forged sources: of nobody, or of an honest client.
    pub(super) fn spoof(&mut self) {
        let from = if self.dice.roll(4) == 0 {
            let victim = self.dice.roll(self.sockets.len());
            self.sockets[victim]
        } else {
            self.address(200)
        };
        let kind = self.dice.roll(7);
        // An ID that is replayed from the network of its client, beside a connection there, counts as used by that one.
        let from = if kind == 2 { self.address(200) } else { from };
        let datagrams = match kind {
            0 => {
                let rule = self.dice.pick(&[Rule::A, Rule::B, Rule::X]);
                self.hello_of(HOSTILE + 1 + rule as u16, rule)
            }
            1 => {
                let id = self.made_up();
                let datagram = self.tag(short(&id), Self::stranger(Rule::Default, false));
                vec![datagram; 3]
            }
            2 => {
                // A replay.
                let Some((_, _, datagram)) = self.bench.sent.last() else { return };
                vec![datagram.clone()]
            }
            3 => {
                let index = u32::try_from(self.dice.roll(1 << 30)).unwrap();
                vec![self.tag(wireguard(4, index, 0, 64), Self::stranger(Rule::W, false))]
            }
            4 => {
                let mut datagram: Vec<u8> = (0..8).flat_map(|_| self.dice.next().to_be_bytes()).collect();
                datagram[0] |= 0x80;
                vec![datagram]
            }
            5 => {
                // Nobody's, since there is no rule without names.
                self.tag_initial(&client_id(HOSTILE + 9), Self::stranger(Rule::A, true));
                vec![MALFORMED.clone()]
            }
            _ => vec![self.tag(query(7), Self::stranger(Rule::Default, false))],
        };
        // It stands for every rule that it could be for.
        self.users.entry(from).or_default().extend([Rule::A, Rule::B, Rule::X, Rule::W, Rule::V, Rule::Default]);
        datagrams.iter().for_each(|datagram| self.arrive(from, datagram));
    }

    /// A tenant's client with a connection of its own, which it says much else of.
    pub(super) fn lie_as_client(&mut self) {
        let from = self.address(210);
        if self.dice.roll(3) == 0 {
            return self.arrive(from, &initiation());
        }
        let hello = self.hello_of(HOSTILE, Rule::X);
        hello.iter().for_each(|datagram| self.arrive(from, datagram));
        let Some((session, 4)) = self.bench.last() else { return };
        let id = [&[0xf1, 0x32][..], &self.dice.next().to_be_bytes()].concat()[..8].to_vec();
        self.state(session, &id);
        let used = self.used_id().unwrap_or_default();
        for id in [id, self.made_up(), self.made_up(), used] {
            // It may lead anywhere that knows the ID.
            let datagram = self.tag(short(&id), Self::stranger(Rule::Default, false));
            self.arrive(from, &datagram);
            self.arrive(from, &datagram);
        }
    }

    fn state(&mut self, session: SessionId, id: &[u8]) {
        if id.len() <= 20 {
            self.told.entry(session).or_default().push(id.to_vec());
            self.bench.answer(session, &long(SERVER_INITIAL, &client_id(HOSTILE), id));
        }
    }

    /// A backend answers over a session: its own tenant's as it likes.
    pub(super) fn answer(&mut self) {
        let sockets: Vec<SessionId> = self.bench.sockets.keys().copied().collect();
        if sockets.is_empty() {
            return;
        }
        let session = self.dice.pick(&sockets);
        match Rule::of_port(self.bench.sockets[&session].port()) {
            Rule::X => {
                for _ in 0..self.dice.roll(6) {
                    let id = self.made_up();
                    self.state(session, &id);
                }
            }
            Rule::V => {
                for count in 0..20 {
                    let seen = self.seen_id().filter(|id| id.len() == 4);
                    let index = seen.map_or(count, |id| u32::from_le_bytes(id.try_into().unwrap()));
                    let theirs = u32::from_le_bytes(initiation()[4..8].try_into().unwrap());
                    self.told.entry(session).or_default().push(index.to_le_bytes().to_vec());
                    self.bench.answer(session, &wireguard(2, index, theirs, 92));
                }
            }
            Rule::A | Rule::B | Rule::W | Rule::Default => match self.spoken.get(&session) {
                Some(client) => self.answer_honestly(session, *client),
                // What a server says to what it does not know: a stateless reset, an error.
                None => drop(self.bench.answer(session, &[0x41; 40])),
            },
        }
    }

    /// An answer over a socket that is closed.
    pub(super) fn answer_late(&mut self) {
        let closed = self.spoken.keys().find(|session| !self.bench.sockets.contains_key(session)).copied();
        if let Some(session) = closed {
            assert_eq!(self.bench.answer(session, &[0; 30]), None, "its place may belong to somebody else by now");
        }
    }

    /// One datagram of a flood, whose target answers it.
    fn flood_with(&mut self, kind: usize) {
        let from = self.address(220);
        let junk = Self::stranger(Rule::Default, false);
        let datagrams = match kind {
            0 => vec![self.tag(query(3), junk)],
            1 => self.hello_of(HOSTILE + 1 + Rule::A as u16, Rule::A),
            2 => self.hello_of(HOSTILE + 1 + Rule::X as u16, Rule::X),
            3 => vec![self.tag(wireguard(1, 5, 0, 148), Self::stranger(Rule::W, true))],
            _ => {
                let id: Vec<u8> = self.dice.next().to_be_bytes().to_vec();
                vec![self.tag(short(&id), junk); 2]
            }
        };
        for datagram in datagrams {
            let before = self.bench.sent.len();
            self.arrive(from, &datagram);
            if let Some((session, _, _)) = self.bench.sent.get(before) {
                self.bench.answer(*session, &[0x41; 40]);
            }
        }
        self.bench.now += Duration::from_millis(1);
    }

    /// A flood fills the table, which real clients of the same rule may have a part of already; an honest newcomer gets in,
    /// and through its handshake.
    pub(super) fn flood(&mut self) {
        self.bench.faults.clear();
        self.deliver_all();
        let (kind, crowd) = (self.dice.roll(5), self.dice.pick(&[0, 0, 10, MOST / 2, MOST]));
        let rule = if self.has(2) { self.dice.pick(&[Rule::A, Rule::B]) } else { Rule::A };
        for _ in 0..crowd {
            self.newcomer(rule, None);
        }
        (0..2 * MOST).for_each(|_| self.flood_with(kind));
        let ranks = self.standing();
        let of = |rule, most| ranks.values().filter(|(of, rank)| *of == rule && *rank <= most).count();
        let rules: std::collections::BTreeSet<Rule> = ranks.values().map(|(rule, _)| *rule).collect();
        let share = MOST / rules.len().max(1);
        // Of a rule that has more than its share, nobody gives way to it who is within the part that is left to others.
        let has_room = rules.iter().any(|rule| of(*rule, Rank::Unproven) > share / 4 + 2);
        let expected = has_room || of(rule, Rank::Secret) < share;
        let missing = self.newcomer(rule, Some(kind));
        if expected {
            let mut standing: Vec<_> = ranks.values().collect();
            standing.sort();
            assert_eq!(missing, None, "{rule:?}, during a flood of kind {kind}, among {standing:?}");
            self.counts.got_in += 1;
        }
    }

    /// A handshake, beside a flood; returns what failed.
    fn newcomer(&mut self, rule: Rule, flood: Option<usize>) -> Option<&'static str> {
        let number = NEWCOMERS + u16::try_from(self.dice.roll(8)).unwrap() * 8 + rule as u16;
        let (from, server) = (self.address(230), [&[0xf3, 9, 7][..], &self.dice.next().to_be_bytes()].concat());
        let before = self.bench.sent.len();
        let hello = self.hello_of(number, rule);
        hello.iter().for_each(|datagram| self.arrive(from, datagram));
        let Some((session, ..)) = self.bench.sent.get(before).cloned() else { return Some("its hello arrives") };
        flood.into_iter().for_each(|kind| self.flood_with(kind));
        self.told.entry(session).or_default().push(server.clone());
        if self.bench.answer(session, &long(SERVER_INITIAL, &client_id(number), &server)) != Some(from) {
            return Some("its server answers it");
        }
        flood.into_iter().for_each(|kind| self.flood_with(kind));
        let finish = self.tag(short(&server), Self::stranger(rule, false));
        let before = self.bench.sent.len();
        self.arrive(from, &finish);
        let arrived = self.bench.sent[before..].iter().any(|(by, ..)| *by == session);
        if arrived { None } else { Some("its handshake is finished") }
    }
}
