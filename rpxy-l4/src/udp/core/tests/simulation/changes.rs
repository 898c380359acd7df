//! What changes while conversations are under way: backends that go or move, clients that migrate, other gateways.

use super::{
    super::{packets::short, *},
    clients::Speech,
    world::{BALANCED, Meant, ONE_PLACE, Rule, World, config, listener_flow},
};

impl World {
    /// A client alone on its socket, of whom nobody else has spoken, and its backend.
    fn settled(&self, client: usize) -> Option<SocketAddr> {
        let state = &self.clients[client];
        let alone = self.on_socket(state.socket).count() == 1 && self.untouched(state.socket);
        state.home.filter(|_| alone && self.lives(state))
    }

    /// What a client says next, to where it arrives; the sessions that bring something to `home`.
    fn try_again(&mut self, client: usize, begins: bool, home: SocketAddr) -> (Vec<SocketAddr>, Vec<SessionId>) {
        let from = self.sockets[self.clients[client].socket];
        let later = if begins { None } else { self.later(client) };
        let datagrams = later.map_or_else(|| self.opening(client), |later| vec![later]);
        let before = self.bench.sent.len();
        datagrams.iter().for_each(|datagram| self.arrive(from, datagram));
        let sent = &self.bench.sent[before..];
        let at_home = sent.iter().filter(|(_, to, _)| *to == home).map(|(session, ..)| *session).collect();
        (sent.iter().map(|(_, to, _)| *to).collect(), at_home)
    }

    /// The first settled client from this one on whose backend is like that.
    fn find_settled(&self, first: usize, wanted: impl Fn(SocketAddr) -> bool) -> Option<(usize, SocketAddr)> {
        let order = (0..self.clients.len()).map(|number| (first + number) % self.clients.len());
        let settled = order.filter_map(|client| Some((client, self.settled(client)?)));
        settled.into_iter().find(|(_, home)| wanted(*home))
    }

    /// A backend is gone, and another one of its rule is there: its clients go on with that.
    pub(super) fn leave(&mut self, first: usize) {
        let has_others = |home: SocketAddr| {
            let ports = Rule::of_port(home.port()).ports();
            ports.iter().filter(|port| self.has(**port)).count() > 1
        };
        let Some((client, home)) = self.find_settled(first, has_others) else { return };
        let rule = Rule::of_port(home.port());
        self.bench.faults.clear();
        let silent = self.clients[client].speech == Speech::WireGuard && self.dice.roll(4) > 0;
        let full = self.bench.drops(DatagramDrop::TooMany);
        let mut reached = Vec::new();
        let elsewhere = |to: &SocketAddr| *to != home && Rule::of_port(to.port()) == rule;
        // One that was taken back from the kernel just now is so again after 10 s.
        for _ in 0..10 {
            let (to, sessions) = self.try_again(client, silent, home);
            reached = to;
            for session in sessions.into_iter().filter(|_| !silent) {
                self.bench.refuse(session);
            }
            if reached.iter().any(elsewhere) {
                // Nobody answers there: it would be left for the first one in the end.
                break;
            }
            self.bench.wait(seconds(2));
        }
        self.misled.insert(self.clients[client].socket);
        if self.bench.drops(DatagramDrop::TooMany) == full {
            let state = &self.clients[client];
            assert!(reached.iter().any(elsewhere), "{state:?} has left {home}, silent: {silent}, for {reached:?}");
            self.counts.moved += 1;
        }
    }

    /// The name of B's target moves. Its client follows, unless its backend goes on to answer.
    pub(super) fn follow(&mut self, first: usize) {
        let Some((client, home)) = self.find_settled(first, |home| home == self.backend(2)) else { return };
        self.bench.faults.clear();
        let answers = self.dice.roll(2) == 0;
        // Handshakes that were in vain before would have it leave with the next one.
        if let Some(path) = self.clients[client].path.filter(|_| answers) {
            self.answer_honestly(path, client);
        }
        self.name(home.ip().to_string().rsplit('.').next().unwrap().parse::<u8>().unwrap() % 250 + 1);
        let full = self.bench.drops(DatagramDrop::TooMany);
        let mut reached = Vec::new();
        // One that was taken back from the kernel just now is so again after 10 s.
        for _ in 0..5 {
            reached = self.try_again(client, false, home).0;
            let path = self.clients[client].path.filter(|path| self.bench.sockets.contains_key(path));
            if let Some(path) = path.filter(|_| answers) {
                self.answer_honestly(path, client);
            }
            (0..2).for_each(|_| self.bench.wait(seconds(3)));
        }
        let expected = if answers { home } else { self.backend(2) };
        if self.bench.drops(DatagramDrop::TooMany) == full {
            let state = &self.clients[client];
            assert!(reached.contains(&expected), "{state:?}, answered: {answers}, is at {reached:?}, not {expected}");
            self.counts.moved += 1;
        }
    }

    /// A client changes its address and takes a new ID at once, which its server has given it in secret: where there is one
    /// place that it can belong to, it goes on.
    pub(super) fn migrate(&mut self, client: usize) {
        let state = &self.clients[client];
        let Some(home) = state.home.filter(|home| home.port() == 1) else { return };
        if state.speech != Speech::Quic(Rule::A) || !state.finished {
            return;
        }
        let socket = state.socket;
        self.reload_to(ONE_PLACE);
        let id = self.clients[client].issue();
        self.clients[client].told.push(id);
        self.clients[client].rebound = true;
        let network = 2 + u8::try_from(self.dice.roll(50)).unwrap();
        self.sockets[socket] = self.address(network);
        self.misled.insert(socket);
        self.bench.faults.clear();
        let full = self.bench.drops(DatagramDrop::TooMany);
        let (reached, _) = self.try_again(client, false, home);
        if self.bench.drops(DatagramDrop::TooMany) == full {
            assert!(reached.contains(&home), "{:?} goes on at {reached:?}", self.clients[client]);
            self.counts.migrated += 1;
        }
    }

    /// Strays of one address go to the same target, on this gateway and on every other one with the same file.
    pub(super) fn balance(&mut self) {
        self.reload_to(BALANCED);
        self.bench.faults.clear();
        let up = |endpoint: &crate::route::Endpoint| endpoint.health.is_up();
        let route = self.bench.sessions.at(&listener_flow()).routes.named(Some("A"));
        if !route.is_some_and(|route| route.group.endpoints().iter().all(up)) {
            return;
        }
        let network = u8::try_from(self.dice.roll(50)).unwrap() + 100;
        let from = self.address(network);
        let other_port = Flow { client: SocketAddr::new(from.client.ip(), 999), ..from };
        let stray = || {
            let id = [&[0xf5][..], &from.client.port().to_be_bytes(), b"random", &[0; 3]].concat();
            short(&id)
        };
        let meant = Meant { rule: Rule::A, client: None, begins: false };
        let mut reached = Vec::new();
        let full = self.bench.drops(DatagramDrop::TooMany);
        for from in [from, other_port] {
            let datagram = self.tag(stray(), meant);
            let before = self.bench.sent.len();
            self.arrive(from, &datagram);
            reached.extend(self.bench.sent[before..].iter().map(|(_, to, _)| *to));
        }
        if self.bench.drops(DatagramDrop::TooMany) > full {
            return;
        }
        let mut gateway = Bench::seeded(&config(BALANCED), self.dice.next());
        gateway.client(from, &stray());
        reached.extend(gateway.sent.iter().map(|(_, to, _)| *to));
        assert!(reached.len() == 3 && reached.iter().all(|to| *to == reached[0]), "{from:?}: {reached:?}");
        self.counts.balanced += 1;
    }
}
