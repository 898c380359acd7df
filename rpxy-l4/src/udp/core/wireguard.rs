//! WireGuard: initiations are routed by the key they are made for, the rest follows the indices that servers chose.

use rpxy_l4_proto::wireguard::Message;

use super::{
    Flow, Output, SessionId, Sessions,
    classify::Arrival,
    ids::{Ids, Indices},
    state::Session,
};
use crate::{metrics::DatagramDrop, route::Datagrams, udp::affinity::Key};

impl Sessions {
    pub(super) fn wireguard(&mut self, arrival: Arrival<'_>, message: Message, out: &mut Output) -> Option<SessionId> {
        match message {
            Message::Initiation { sender } => self.initiation(arrival, sender, out),
            Message::Response { receiver, .. }
            | Message::CookieReply { receiver }
            | Message::Transport { receiver } => self.addressed(arrival, message, receiver, out),
        }
    }

    /// Every initiation is looked at, so that a socket that turns to another server is seen.
    fn initiation(&mut self, arrival: Arrival<'_>, sender: u32, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, tos, now } = arrival;
        let Some(route) = self.at(flow).routes.wireguard(datagram, flow.client.ip()).cloned() else {
            out.refuse(flow, Datagrams::WireGuard, None, DatagramDrop::Unmatched, 1);
            return None;
        };
        let same_rule = |state: &Session| state.route().is_some_and(|known| known.rule == route.rule);
        let session = self.table.find(flow, same_rule);
        if let Some(session) = session {
            let session = self.handshake_on(session, now, out);
            if let Some(Ids::WireGuard(indices)) = self.table.get_mut(session).map(|state| &mut state.ids) {
                indices.begin(sender);
            }
            return self.deliver(session, arrival, out);
        }
        let ids = if route.carries == Datagrams::WireGuard {
            let mut indices = Indices::default();
            indices.begin(sender);
            Ids::WireGuard(indices)
        } else {
            Ids::None
        };
        self.start(flow, route, ids, &[(datagram, tos)], None, now, out);
        None
    }

    /// A message to an index that a server chose.
    fn addressed(
        &mut self,
        arrival: Arrival<'_>,
        message: Message,
        receiver: u32,
        out: &mut Output,
    ) -> Option<SessionId> {
        let Arrival { flow, now, .. } = arrival;
        if let Some(session) = self.owner_of_index(flow, receiver) {
            self.identified_index(session, &message, receiver, now, out);
            return self.deliver(session, arrival, out);
        }
        if let Some(owner) = self.identity.find(Key::Index(receiver), now) {
            if let Some(session) = self.session_with(flow, &owner.backend) {
                return self.deliver(session, arrival, out);
            }
            self.start_known(arrival, &owner.backend, Ids::WireGuard(Indices::known(receiver)), out);
            return None;
        }
        let session = self.latest_of(flow, Datagrams::WireGuard).or_else(|| self.latest_of(flow, Datagrams::Any));
        if let Some(session) = session {
            return self.deliver(session, arrival, out);
        }
        self.stray(arrival, Datagrams::WireGuard, out);
        None
    }

    fn owner_of_index(&self, flow: &Flow, receiver: u32) -> Option<SessionId> {
        self.table.find(flow, |state| match &state.ids {
            Ids::WireGuard(indices) => indices.contains(receiver),
            Ids::None | Ids::Quic(_) => false,
        })
    }
}
