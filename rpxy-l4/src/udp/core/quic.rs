//! QUIC: connections are told apart by their IDs, new ones are routed by their ClientHello.
//!
//! Long headers belong to a connection by both of their IDs, since a client may use one socket for several; short
//! headers by the ID that the server chose. Where that is not enough, every connection that could own them gets them.

use std::sync::Arc;

use rpxy_l4_proto::quic::{LongHeader, LongType, MIN_INITIAL_DATAGRAM, Version, packets, version_negotiation};

use super::{
    Command, Flow, Output, SessionId, Sessions,
    classify::{Arrival, unknown_quic},
    evidence::Rank,
    hello::Packet,
    ids::{Ids, QuicIds},
};
use crate::{
    metrics::DatagramDrop,
    route::{Datagrams, Stray, UnknownVersionRoute},
    udp::affinity::{Key, Owner},
};

impl Sessions {
    pub(super) fn quic_long(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let datagram = arrival.datagram;
        let Some(header) = LongHeader::parse(datagram) else { return self.any(arrival, out) };
        if let Some(session) = self.owner_of_long(arrival.flow, &header) {
            self.identified_long(session, header.dcid, out);
            let begins = packets(datagram).next().is_some_and(|packet| packet.typ == LongType::Initial);
            let session = if begins { self.handshake_on(session, arrival.now, out) } else { session };
            return self.further(session, arrival, out);
        }
        // A hello may come behind other packets of its datagram.
        let initial = packets(datagram).find(|packet| packet.typ == LongType::Initial);
        let Some(packet) = initial.or_else(|| packets(datagram).next()) else {
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
        let found = self.owners_of_short(flow, datagram);
        if let (true, [session]) = (found.certain, found.owners.as_slice()) {
            self.identified_short(*session, datagram, now, out);
            return self.deliver(*session, arrival, out);
        }
        if !found.owners.is_empty() {
            return self.deliver_to_all(&found.owners, arrival, out);
        }
        if let Some(session) = self.only_without_ids(flow) {
            return self.deliver(session, arrival, out);
        }
        // What a client used leads from elsewhere only where no other rule's client could mean something else by it.
        let anywhere = self.at(flow).routes.is_only_quic();
        let network = if anywhere { None } else { Some(flow.client.ip().into()) };
        // Without the fixed bit it can be anything (RFC 9287), unless nothing else has a destination.
        let is_quic = certain || self.at(flow).routes.default().is_none();
        // What the file says of an ID counts for more than what another rule's backend or client says.
        let by_server_id = if is_quic { self.at(flow).routes.by_server_id(datagram, flow.client.ip()) } else { None };
        let contradicts =
            |owner: &Owner| by_server_id.as_ref().is_some_and(|(route, _)| route.rule != owner.backend.rule);
        let known = if is_quic { self.identity.find_short(datagram, network, now) } else { None };
        if let Some((key, mut owners)) = known {
            owners.retain(|owner| !contradicts(owner));
            if !owners.is_empty() {
                return self.follow(key, &owners, arrival, out);
            }
        }
        if let Some((route, target)) = by_server_id.filter(|_| !self.knows(flow)) {
            self.start_at(arrival, route, target, unknown_quic(), out);
            return None;
        }
        let (quic, any) = (self.may_own_short(flow), self.latest_of(flow, Datagrams::Any));
        match any {
            Some(any) if quic.is_empty() || !certain => self.deliver(any, arrival, out),
            Some(_) | None if !quic.is_empty() => {
                // The server may have told its client another ID in secret: of several connections, it could be any one's.
                if is_quic {
                    self.share_short(&quic, datagram, now);
                    if let [only] = quic.as_slice() {
                        self.note_current(*only, datagram, out);
                    }
                }
                self.deliver_to_all(&quic, arrival, out)
            }
            Some(_) | None if certain || (is_quic && !self.knows(flow) && self.has_place_for_strays(flow)) => {
                self.stray(arrival, Datagrams::Quic, out);
                None
            }
            Some(_) | None => self.any(arrival, out),
        }
    }

    /// Returns whether a stray short header has a destination.
    fn has_place_for_strays(&self, flow: &Flow) -> bool {
        match self.at(flow).routes.stray(Datagrams::Quic, flow.client.ip()) {
            Stray::Only(_) | Stray::Balance(_) | Stray::Default(_) => true,
            Stray::Drop => false,
        }
    }

    /// A short header whose ID leads to the backends of `owners`. It goes to each of them, since any may know it.
    fn follow(&mut self, key: Key, owners: &[Arc<Owner>], arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        if let [owner] = owners {
            if let Some(session) = self.session_with(arrival.flow, &owner.backend) {
                return self.deliver(session, arrival, out);
            }
            self.start_known(arrival, &owner.backend, Ids::Quic(Box::new(QuicIds::known(None, key))), out);
            return None;
        }
        let mut present = Vec::new();
        for Owner { backend, .. } in owners.iter().map(Arc::as_ref) {
            if let Some(session) = self.session_with(arrival.flow, backend) {
                present.push(session);
            } else if self.find_target(arrival.flow, backend).is_some() {
                self.start_known(arrival, backend, Ids::Quic(Box::new(QuicIds::known_with_others(key))), out);
            }
        }
        self.deliver_to_all(&present, arrival, out)
    }

    /// Gives a datagram to several sessions of its socket.
    fn deliver_to_all(&mut self, sessions: &[SessionId], arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let (first, others) = sessions.split_first()?;
        for session in others {
            if let Some(session) = self.deliver(*session, arrival, out) {
                self.note_up(session, arrival.datagram.len(), arrival.now, out);
                let (datagram, tos) = (arrival.datagram.into(), arrival.tos);
                out.commands.push_back(Command::Send { session, datagram, tos });
            }
        }
        self.deliver(*first, arrival, out)
    }

    /// A packet that cannot be a connection's first, with IDs that this flow does not know.
    fn later_packet(&mut self, arrival: Arrival<'_>, packet: &Packet, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, now, .. } = arrival;
        let key = Key::Stated(packet.destination);
        if let Some(owner) = self.identity.find(key, now)
            && self.session_with(flow, &owner.backend).is_none()
        {
            let ids = Ids::Quic(Box::new(QuicIds::known(Some(packet.client), key)));
            self.start_known(arrival, &owner.backend, ids, out);
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
                self.stray(arrival, Datagrams::Quic, out);
                None
            }
        }
    }

    /// A long header whose packet cannot be read: another version, or a broken one.
    fn unreadable(&mut self, arrival: Arrival<'_>, header: &LongHeader<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, tos, now } = arrival;
        // Only servers send Version Negotiation packets (version 0).
        // A first datagram of any version is large (RFC 9000 section 14.1, RFC 9369 section 3); other protocols begin like
        // that, too.
        let small = datagram.len() < MIN_INITIAL_DATAGRAM;
        let known = Version::from_wire(header.version).is_some() || self.knows(flow);
        if header.version == 0 || known || small {
            return self.any(arrival, out);
        }
        match self.at(flow).routes.unknown_version(flow.client.ip()) {
            UnknownVersionRoute::To(route) => {
                let route = Arc::clone(route);
                self.start(flow, route, Ids::None, &[(datagram, tos)], None, now, out);
            }
            UnknownVersionRoute::Negotiate => {
                out.discard(DatagramDrop::UnknownVersion, 1);
                let datagram = version_negotiation(header, self.random.next());
                out.commands.push_back(Command::Reply { flow: *flow, datagram });
            }
            UnknownVersionRoute::Drop => out.refuse(flow, Datagrams::Quic, None, DatagramDrop::UnknownVersion, 1),
        }
        None
    }

    fn owner_of_long(&self, flow: &Flow, header: &LongHeader<'_>) -> Option<SessionId> {
        self.table.find(flow, |state| state.ids.quic().is_some_and(|ids| ids.owns_long(header.dcid, header.scid)))
    }

    /// The latest few sessions of a flow that a short header with an unknown ID may be of.
    fn may_own_short(&self, flow: &Flow) -> Vec<SessionId> {
        let Some(members) = self.table.members(flow) else { return Vec::new() };
        let is_quic = |id: &SessionId| self.table.get(*id).is_some_and(|state| state.carries() == Datagrams::Quic);
        members.all().filter(is_quic).take(MOST_COPIES).collect()
    }

    /// A server without connection IDs: its clients cannot have several connections on one socket. One that has just been
    /// made up beside it does not count.
    fn only_without_ids(&self, flow: &Flow) -> Option<SessionId> {
        let members = self.table.members(flow)?;
        let known = |id: &SessionId| {
            self.table.get(*id).is_some_and(|state| members.is_single() || state.rank() > Rank::Unproven)
        };
        let mut known = members.all().filter(known);
        let only = known.next().filter(|_| known.next().is_none())?;
        self.table.get(only)?.ids.quic().is_some_and(QuicIds::is_empty).then_some(only)
    }
}

/// Sessions that get a short header with an ID that could be of any of them. Clients seldom have more connections on one
/// socket, and a stranger must not have many backends sent what it sent once.
const MOST_COPIES: usize = 4;
