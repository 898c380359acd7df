//! WireGuard: initiations are routed by the key they are made for, the rest follows the indices that servers chose.

use std::time::Duration;

use rpxy_l4_proto::wireguard::{self, Message, Reserved};

use super::{
    Flow, Output, SessionId, Sessions,
    ids::{Few, Ids},
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
        let Some(route) = self.plane.routes.wireguard(datagram).cloned() else {
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
        let ids = if route.carries == Datagrams::WireGuard { Ids::WireGuard(Few::default()) } else { Ids::None };
        self.start(flow, route, ids, &[(datagram, ecn)], None, now, out);
        None
    }

    /// A message to an index that a server chose.
    fn addressed(&mut self, arrival: Arrival<'_>, receiver: u32, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, now, .. } = arrival;
        if let Some(session) = self.owner_of_index(flow, receiver) {
            self.prefer(session);
            return self.deliver(session, arrival, out);
        }
        if let Some(backend) = self.affinity.find(Key::Index(receiver), now) {
            if let Some(session) = self.session_with(flow, &backend) {
                return self.deliver(session, arrival, out);
            }
            let mut indices = Few::default();
            indices.add(receiver);
            self.start_known(arrival, &backend, Ids::WireGuard(indices), out);
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
            Some(Ids::WireGuard(indices)) => indices.contains(receiver),
            Some(Ids::None | Ids::Quic(_)) | None => false,
        };
        self.flows.get(flow)?.all().find(owns)
    }

    pub(super) fn learn_index(&mut self, session: SessionId, datagram: &[u8], now: Duration) {
        // Transport messages, the bulk, tell nothing.
        if datagram.first() == Some(&4) {
            return;
        }
        let (Some(Message::Response { sender, .. }) | Some(Message::Initiation { sender })) =
            wireguard::parse(datagram, Reserved::Any)
        else {
            return;
        };
        let Some(backend) = self.backend(session) else { return };
        self.affinity.learn_index(sender, &backend, now);
        if let Some(state) = self.get_mut(session)
            && let Ids::WireGuard(indices) = &mut state.ids
            && !indices.contains(sender)
        {
            indices.add(sender);
        }
    }
}
