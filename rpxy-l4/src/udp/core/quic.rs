//! QUIC: connections are told apart by their IDs, new ones are routed by their ClientHello.
//!
//! Long headers belong to a connection by both of their IDs, since a client may use one socket for several; short
//! headers by the ID that the server chose. Where that is not enough, the youngest connection of the flow gets them.

use rpxy_l4_proto::quic::{LongHeader, LongType, MIN_INITIAL_DATAGRAM, Version, packets};

use super::{
    Flow, Output, SessionId, Sessions,
    classify::Arrival,
    hello::Packet,
    ids::{Ids, QuicIds},
    state::Session,
};
use crate::{metrics::DatagramDrop, route::Datagrams, udp::affinity::Key};

impl Sessions {
    pub(super) fn quic_long(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let datagram = arrival.datagram;
        let Some(header) = LongHeader::parse(datagram) else { return self.any(arrival, out) };
        if let Some(session) = self.owner_of_long(arrival.flow, &header) {
            self.identified(session, header.dcid);
            return self.further(session, arrival, out);
        }
        let Some(packet) = packets(datagram).next() else {
            return self.unreadable(arrival, &header, out);
        };
        let packet = Packet {
            version: packet.version,
            typ: packet.typ,
            client: packet.scid,
            destination: packet.dcid,
            has_token: !packet.token.is_empty(),
        };
        match packet.typ {
            LongType::Initial | LongType::ZeroRtt => self.new_connection(arrival, &packet, out),
            LongType::Handshake | LongType::Retry => self.later_packet(arrival, &packet, out),
        }
    }

    /// A short header, or, unless `certain`, something else that looks like none of the protocols.
    pub(super) fn quic_short(&mut self, arrival: Arrival<'_>, certain: bool, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, now, .. } = arrival;
        if let Some(session) = self.owner_of_short(flow, datagram) {
            self.prefer(session);
            self.note_current(session, datagram, out);
            return self.deliver(session, arrival, out);
        }
        if let Some((id, backend)) = self.identity.find_short(datagram, now) {
            if let Some(session) = self.session_with(flow, &backend) {
                return self.deliver(session, arrival, out);
            }
            let ids = Ids::Quic(Box::new(QuicIds::known(None, id)));
            self.start_known(arrival, &backend, ids, out);
            return None;
        }
        let (quic, any) = (self.latest_of(flow, Datagrams::Quic), self.latest_of(flow, Datagrams::Any));
        match if certain { quic.or(any) } else { any.or(quic) } {
            Some(session) => {
                // The server may have told the client another ID in secret; of several connections, it could be any one's.
                if self.table.is_alone(session)
                    && let Some(state) = self.table.get_mut(session)
                {
                    self.identity.learn_from_client(state, datagram, now);
                }
                self.note_current(session, datagram, out);
                self.deliver(session, arrival, out)
            }
            None if certain => {
                self.stray(arrival, out);
                None
            }
            None => self.any(arrival, out),
        }
    }

    /// A packet that cannot be a connection's first, with IDs that this flow does not know.
    fn later_packet(&mut self, arrival: Arrival<'_>, packet: &Packet, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, now, .. } = arrival;
        if let Some(backend) = self.identity.find(Key::ConnectionId(packet.destination), now)
            && self.session_with(flow, &backend).is_none()
        {
            let ids = Ids::Quic(Box::new(QuicIds::known(Some(packet.client), packet.destination)));
            self.start_known(arrival, &backend, ids, out);
            return None;
        }
        let session = self.table.find(flow, |state| match &state.ids {
            Ids::Quic(ids) => ids.is_from_client(packet.client),
            Ids::None => true,
            Ids::WireGuard(_) => false,
        });
        match session {
            Some(session) => self.deliver(session, arrival, out),
            None => {
                self.stray(arrival, out);
                None
            }
        }
    }

    /// A long header whose packet cannot be read: another version, or a broken one.
    fn unreadable(&mut self, arrival: Arrival<'_>, header: &LongHeader<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, ecn, now } = arrival;
        // Only servers send Version Negotiation packets (version 0).
        // A first datagram of any version is large (RFC 9000 section 14.1, RFC 9369 section 3); other protocols begin like
        // that, too.
        let small = datagram.len() < MIN_INITIAL_DATAGRAM;
        let known = Version::from_wire(header.version).is_some() || self.knows(flow);
        if header.version == 0 || known || small {
            return self.any(arrival, out);
        }
        match self.snapshot.routes.unknown_version().cloned() {
            Some(route) => self.start(flow, route, Ids::None, &[(datagram, ecn)], None, now, out),
            None => out.discard(DatagramDrop::UnknownVersion, 1),
        }
        None
    }

    fn owner_of_long(&self, flow: &Flow, header: &LongHeader<'_>) -> Option<SessionId> {
        self.table.find(flow, |state| state.ids.quic().is_some_and(|ids| ids.owns_long(header.dcid, header.scid)))
    }

    /// The session of a flow that a short header is of by its ID, or because there is nothing else that it could be of.
    pub(super) fn owner_of_short(&self, flow: &Flow, datagram: &[u8]) -> Option<SessionId> {
        let owns = |state: &Session| state.ids.quic().is_some_and(|ids| ids.owns_short(datagram));
        if let Some(owner) = self.table.find(flow, owns) {
            return Some(owner);
        }
        // A server without connection IDs: its clients cannot have several connections on one socket. One that has just
        // been made up beside it does not count.
        let members = self.table.members(flow)?;
        let known = |id: &SessionId| self.table.get(*id).is_some_and(|state| members.is_single() || state.confirmed);
        let mut known = members.all().filter(known);
        let only = known.next().filter(|_| known.next().is_none())?;
        self.table.get(only)?.ids.quic().is_some_and(QuicIds::is_empty).then_some(only)
    }
}
