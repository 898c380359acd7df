//! WireGuard: initiations are routed by the key they are made for, the rest follows the indices that servers chose.

use std::time::Duration;

use rpxy_l4_proto::wireguard::{self, Message, Reserved};

use super::{
    Command, Flow, Output, SessionId, Sessions,
    ids::{Ids, Indices},
    place::Arrival,
};
use crate::{metrics::DatagramDrop, route::Datagrams, udp::affinity::Key};

impl Sessions {
    pub(super) fn wireguard(&mut self, arrival: Arrival<'_>, message: Message, out: &mut Output) -> Option<SessionId> {
        match message {
            Message::Initiation { .. } => self.initiation(arrival, out),
            Message::Response { receiver, .. }
            | Message::CookieReply { receiver }
            | Message::Transport { receiver } => self.addressed(arrival, receiver, out),
        }
    }

    /// Every initiation is looked at, so that a socket that turns to another server is seen.
    fn initiation(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, ecn, now } = arrival;
        let Some(route) = self.snapshot.routes.wireguard(datagram).cloned() else {
            out.drop(DatagramDrop::Unmatched, 1);
            return None;
        };
        let same_rule = |id: &SessionId| {
            self.get(*id).and_then(|state| state.route()).is_some_and(|known| known.rule == route.rule)
        };
        let session = self.flows.get(flow).and_then(|members| members.all().find(same_rule));
        if let Some(session) = session {
            return self.deliver(session, arrival, out);
        }
        let ids = if route.carries == Datagrams::WireGuard { Ids::WireGuard(Indices::default()) } else { Ids::None };
        self.start(flow, route, ids, &[(datagram, ecn)], None, now, out);
        None
    }

    /// A message to an index that a server chose.
    fn addressed(&mut self, arrival: Arrival<'_>, receiver: u32, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, now, .. } = arrival;
        if let Some(session) = self.owner_of_index(flow, receiver) {
            self.prefer(session);
            self.set_index(session, receiver, out);
            return self.deliver(session, arrival, out);
        }
        if let Some(backend) = self.affinity.find(Key::Index(receiver), now) {
            if let Some(session) = self.session_with(flow, &backend) {
                return self.deliver(session, arrival, out);
            }
            self.start_known(arrival, &backend, Ids::WireGuard(Indices::known(receiver)), out);
            return None;
        }
        let session = self.flows.get(flow).and_then(|members| {
            self.latest_of(members, Datagrams::WireGuard).or_else(|| self.latest_of(members, Datagrams::Any))
        });
        if let Some(session) = session {
            return self.deliver(session, arrival, out);
        }
        self.orphan(arrival, out);
        None
    }

    fn owner_of_index(&self, flow: &Flow, receiver: u32) -> Option<SessionId> {
        let owns = |id: &SessionId| match self.get(*id).map(|state| &state.ids) {
            Some(Ids::WireGuard(indices)) => indices.server.contains(receiver),
            Some(Ids::None | Ids::Quic(_)) | None => false,
        };
        self.flows.get(flow)?.all().find(owns)
    }

    pub(super) fn learn_index(&mut self, session: SessionId, datagram: &[u8], now: Duration, out: &mut Output) {
        // Transport messages, the bulk, tell nothing.
        if datagram.first() == Some(&4) {
            return;
        }
        let (sender, in_use) = match wireguard::parse(datagram, Reserved::Any) {
            Some(Message::Response { sender, .. }) => (sender, true),
            // The client uses it once it has answered, which shows when it does.
            Some(Message::Initiation { sender }) => (sender, false),
            Some(Message::CookieReply { .. } | Message::Transport { .. }) | None => return,
        };
        let Some(backend) = self.backend(session) else { return };
        self.affinity.learn_index(sender, &backend, now);
        if let Some(state) = self.get_mut(session)
            && let Ids::WireGuard(indices) = &mut state.ids
            && !indices.server.contains(sender)
        {
            indices.server.add(sender);
        }
        if in_use {
            self.set_index(session, sender, out);
        }
    }

    /// The client of a session goes on with this index.
    fn set_index(&mut self, session: SessionId, index: u32, out: &mut Output) {
        let Some(state) = self.get_mut(session) else { return };
        let (steered, answered) = (state.steered, state.answered);
        let Ids::WireGuard(indices) = &mut state.ids else { return };
        if indices.current.replace(index) == Some(index) {
            return;
        }
        match state.ids.current().filter(|_| steered) {
            Some(cid) => out.commands.push_back(Command::UpdateFlow { session, cid }),
            None if answered => self.steer(session, out),
            None => {}
        }
    }
}
