//! What holds at every moment.

use std::collections::HashMap;

use super::{
    super::{SessionId, UndecidedQueue},
    world::{BUDGET, MOST, Rule, World},
};
use crate::{metrics::SessionEnd, udp::core::evidence::Rank};

impl World {
    /// Everything that arrived since the last call arrived where it may.
    pub(super) fn judge(&mut self) {
        while let Some((session, address, datagram)) = self.bench.sent.get(self.judged).cloned() {
            self.judged += 1;
            let port = address.port();
            self.initiations += usize::from(port == 5 && datagram.starts_with(&[1, 0, 0, 0]));
            let Some(meant) = self.meant(&datagram) else { continue };
            let (rule, there) = (meant.rule, Rule::of_port(port));
            let flow = self.bench.sessions.flow(session).copied();
            // Who shares a socket, or has its address forged, shares what cannot be told apart.
            let forged = flow.and_then(|flow| self.users.get(&flow)).is_some_and(|users| users.contains(&there));
            let shared = forged || meant.client.is_some_and(|client| self.shares_socket_with(client, there));
            let certain = datagram.starts_with(&[0x16, 0xfe]) || datagram[4..8] == [0x21, 0x12, 0xa4, 0x42];
            // What was held has been decided about under an earlier configuration.
            let certain = certain && self.has_default() && datagram == self.latest;
            let stray = there != rule && !certain && self.strays_to(there, &datagram);
            let allowed = match (rule, meant.begins) {
                (Rule::Default, false) => true,
                (Rule::Default, true) => there == rule || shared && !certain || stray,
                (_, true) => there == rule,
                // A stray where nothing is known of it.
                (_, false) => there == rule || there == Rule::Default || shared || stray,
            };
            if let Some(flow) = flow.filter(|_| stray) {
                // From now on it has a session there.
                self.users.entry(flow).or_default().insert(there);
            }
            assert!(allowed, "{meant:?} reached {there:?} at {port} from {flow:?}: {:x?}", &datagram[..20]);
            let is_own = |client: &usize| flow == Some(self.sockets[self.clients[*client].socket]);
            if let Some(client) = meant.client.filter(is_own) {
                let id = self.clients[client].told.last().cloned().unwrap_or_default();
                let id = if datagram.windows(id.len().max(1)).any(|window| window == id) { id } else { Vec::new() };
                self.heard(client, session, address, meant.begins, &id);
            }
        }
    }

    /// Whoever has proved that it receives gives way only where its rule has more than its share.
    pub(super) fn judge_evicted(&mut self, before: &HashMap<SessionId, (Rule, Rank)>) {
        let is_new = |session: &&SessionId| !before.is_empty() && !before.contains_key(session);
        let newcomers = self.bench.sockets.keys().filter(is_new).map(|session| self.bench.sockets[session].port());
        let newcomers: Vec<Rule> = newcomers.map(Rule::of_port).collect();
        for (session, end) in std::mem::take(&mut self.bench.ended) {
            self.told.remove(&session);
            self.proved.remove(&session);
            let of_it = self.clients.iter().filter(|client| client.path == Some(session));
            self.misled.extend(of_it.map(|client| client.socket));
            let Some((rule, Rank::Secret)) = before.get(&session).filter(|_| end == SessionEnd::Evicted) else {
                continue;
            };
            let mut sessions: HashMap<Rule, usize> = HashMap::new();
            before.values().for_each(|(rule, _)| *sessions.entry(*rule).or_default() += 1);
            let share = MOST / (sessions.len() + 1);
            let needed = sessions[rule] > share && newcomers.iter().all(|newcomer| newcomer != rule);
            assert!(needed, "evicted from {rule:?} for {newcomers:?}: {sessions:?}");
        }
    }

    /// What is kept is bounded, and nobody is believed without evidence.
    pub(super) fn check(&mut self) {
        self.judge();
        self.judge_evicted(&HashMap::new());
        let bench = &self.bench;
        assert!(bench.sockets.len() <= MOST, "{}", bench.sockets.len());
        assert!(usize::try_from(bench.active.count()).unwrap() <= MOST);
        // Those of sessions that are over go when there are too many.
        assert!(bench.sessions.deadlines.len() <= 4 * (MOST + 64) + 66);
        assert!(bench.sessions.held_bytes() <= 8 * UndecidedQueue::MOST * 1300);
        let only_one = |session: &SessionId| {
            let flow = bench.sessions.flow(*session);
            bench.installed.iter().filter(|other| bench.sessions.flow(**other) == flow).count() == 1
        };
        assert!(bench.installed.iter().all(only_one), "the kernel has one entry for the datagrams of a socket");
        for (session, state) in bench.sessions.table.iter() {
            let confirmed = state.rank() == Rank::Secret;
            assert!(!confirmed || self.proved.contains(&session), "confirmed without a secret: {state:?}");
            self.counts.confirmed += usize::from(confirmed);
        }
        // That costs more than all of the rest.
        if self.dice.roll(8) > 0 {
            return;
        }
        let mut lying = 0;
        for (backend, entries, claims) in bench.affinity.budgets() {
            assert!(entries <= BUDGET, "{backend:?} has {entries}");
            assert_eq!(usize::try_from(entries).unwrap(), claims, "given back: {backend:?}");
            lying += if backend.address.port() == 5 { claims } else { 0 };
            self.counts.over_budget += usize::from(entries == BUDGET);
        }
        assert!(lying <= self.initiations, "an index for each initiation: {lying} of {}", self.initiations);
    }
}
