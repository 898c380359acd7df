//! QUIC: connections are told apart by their IDs, new ones are routed by their ClientHello.
//!
//! Long headers belong to a connection by both of their IDs, since a client may use one socket for several; short
//! headers by the ID that the server chose. Where that is not enough, the youngest connection of the flow gets them.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::{
    Outcome,
    quic::{ConnectionId, InitialProbe, LongHeader, LongType, MIN_INITIAL_DATAGRAM, Version, packets},
    tls::ClientHello,
};

use super::{
    Flow, Output, SessionId, Sessions,
    held::{Held, UNDECIDED},
    ids::{Ids, QuicIds},
    place::Arrival,
    state::{Session, Stage, Undecided},
};
use crate::{
    config::model::AccessLogFormat,
    log::Detail,
    metrics::{DatagramDrop, SessionEnd},
    route::{Datagrams, UdpRoute},
    udp::affinity::Key,
};

/// A long header of a version whose packets can be read.
struct Packet {
    version: Version,
    typ: LongType,
    client: ConnectionId,
    destination: ConnectionId,
    has_token: bool,
}

impl Sessions {
    pub(super) fn quic_long(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let datagram = arrival.datagram;
        let Some(header) = LongHeader::parse(datagram) else { return self.any(arrival, out) };
        if let Some(session) = self.owner_of_long(arrival.flow, &header) {
            self.identified(session, header.dcid);
            return self.more(session, arrival, out);
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
        if let Some((id, backend)) = self.affinity.find_short(datagram, now) {
            if let Some(session) = self.session_with(flow, &backend) {
                return self.deliver(session, arrival, out);
            }
            let ids = Ids::Quic(Box::new(QuicIds::known(None, id)));
            self.start_known(arrival, &backend, ids, out);
            return None;
        }
        let youngest = self.flows.get(flow).and_then(|members| {
            let (quic, any) = (self.latest_of(members, Datagrams::Quic), self.latest_of(members, Datagrams::Any));
            if certain { quic.or(any) } else { any.or(quic) }
        });
        match youngest {
            Some(session) => {
                // The server may have told the client another ID in secret.
                self.learn_from_client(session, datagram, now);
                self.note_current(session, datagram, out);
                self.deliver(session, arrival, out)
            }
            None if certain => {
                self.orphan(arrival, out);
                None
            }
            None => self.any(arrival, out),
        }
    }

    /// A further datagram of a connection that is known.
    fn more(&mut self, session: SessionId, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { datagram, ecn, now, .. } = arrival;
        let (budget, slab) = (&mut self.budget, &mut self.slab);
        let state = slab.get_mut(super::place(session))?;
        let Stage::Undecided(undecided) = &mut state.stage else { return self.deliver(session, arrival, out) };
        let outcome = undecided.probe.advance(datagram);
        if outcome != Outcome::NotThis {
            let given_up = undecided.held.push(datagram, ecn, UNDECIDED, budget);
            out.drop(DatagramDrop::Overflow, given_up);
        }
        match outcome {
            Outcome::NeedMore => {}
            Outcome::NotThis => {
                out.drop(DatagramDrop::Malformed, 1);
                self.end(session, SessionEnd::Idle, DatagramDrop::Malformed, now, out);
            }
            Outcome::Match(hello) => self.decide(session, &hello, now, out),
        }
        None
    }

    /// The hello of an undecided session is complete.
    fn decide(&mut self, session: SessionId, hello: &ClientHello, now: Duration, out: &mut Output) {
        let Some(state) = self.get_mut(session) else { return };
        let (flow, ids) = (state.flow, std::mem::take(&mut state.ids));
        let Ids::Quic(ids) = ids else { return };
        let Stage::Undecided(undecided) = &mut state.stage else { return };
        let mut held = std::mem::take(&mut undecided.held);
        let held = held.take(&mut self.budget);
        self.end(session, SessionEnd::Idle, DatagramDrop::Incomplete, now, out);
        let held: Vec<(&[u8], u8)> = held.iter().map(|(datagram, ecn)| (&**datagram, *ecn)).collect();
        self.begin_quic(&flow, hello, *ids, &held, now, out);
    }

    /// The first datagram of a connection, or one that only looks like it.
    fn new_connection(&mut self, arrival: Arrival<'_>, packet: &Packet, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, ecn, now } = arrival;
        let ids = QuicIds::new(Some(packet.client), packet.destination);
        let mut probe = InitialProbe::new(packet.version, packet.destination);
        let small = datagram.len() < MIN_INITIAL_DATAGRAM;
        let outcome = if small { Outcome::NeedMore } else { probe.advance(datagram) };
        // A handshake that goes on from another address: its Initial packets are under the keys of another ID (RFC 9001
        // section 5.2). One that opens under its own ID is a new connection, or goes on after a Retry, where the hello
        // must lead to the same rule.
        let backend = self.affinity.find(Key::ConnectionId(packet.destination), now);
        let goes_on = backend.filter(|backend| match &outcome {
            Outcome::NotThis => true,
            Outcome::NeedMore => small || packet.typ != LongType::Initial,
            Outcome::Match(hello) => {
                let same = |route: &Arc<UdpRoute>| route.rule == backend.rule && route.ech.is_none();
                packet.has_token && self.plane.routes.quic(hello).is_some_and(same)
            }
        });
        if let Some(backend) = goes_on {
            let ids = Ids::Quic(Box::new(QuicIds::known(Some(packet.client), packet.destination)));
            self.start_known(arrival, &backend, ids, out);
            return None;
        }
        if packet.typ == LongType::Initial && small {
            return self.any(arrival, out);
        }
        match outcome {
            Outcome::NotThis => return self.any(arrival, out),
            Outcome::NeedMore => self.wait_for_hello(arrival, Ids::Quic(Box::new(ids)), probe, out),
            Outcome::Match(hello) => self.begin_quic(flow, &hello, ids, &[(datagram, ecn)], now, out),
        }
        None
    }

    fn wait_for_hello(&mut self, arrival: Arrival<'_>, ids: Ids, probe: InitialProbe, out: &mut Output) {
        let Arrival { flow, datagram, ecn, now } = arrival;
        while self.undecided_now >= super::MAX_UNDECIDED || !self.budget.has_room(datagram.len()) {
            let Some(oldest) = self.undecided.pop_front() else {
                out.drop(DatagramDrop::Overflow, 1);
                return;
            };
            if self.get(oldest).is_some_and(|state| matches!(state.stage, Stage::Undecided(_))) {
                self.end(oldest, SessionEnd::Idle, DatagramDrop::Overflow, now, out);
            }
        }
        if self.undecided.len() > 2 * super::MAX_UNDECIDED {
            let slab = &self.slab;
            let alive = |id: &SessionId| {
                slab.get(super::place(*id)).is_some_and(|state| {
                    state.generation == id.generation && matches!(state.stage, Stage::Undecided(_))
                })
            };
            self.undecided.retain(alive);
        }
        let mut held = Held::default();
        let given_up = held.push(datagram, ecn, UNDECIDED, &mut self.budget);
        out.drop(DatagramDrop::Overflow, given_up);
        let stage = Stage::Undecided(Box::new(Undecided { probe, held }));
        self.insert(Session::new(*flow, ids, stage, now), now, out);
    }

    /// A packet that cannot be a connection's first, with IDs that this flow does not know.
    fn later_packet(&mut self, arrival: Arrival<'_>, packet: &Packet, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, now, .. } = arrival;
        if let Some(backend) = self.affinity.find(Key::ConnectionId(packet.destination), now)
            && self.session_with(flow, &backend).is_none()
        {
            let ids = Ids::Quic(Box::new(QuicIds::known(Some(packet.client), packet.destination)));
            self.start_known(arrival, &backend, ids, out);
            return None;
        }
        let may_own = |id: &SessionId| match self.get(*id).map(|state| &state.ids) {
            Some(Ids::Quic(ids)) => ids.client == Some(packet.client),
            Some(Ids::None) => true,
            Some(Ids::WireGuard(_)) | None => false,
        };
        let session = self.flows.get(flow).and_then(|members| members.all().find(may_own));
        match session {
            Some(session) => self.deliver(session, arrival, out),
            None => {
                self.orphan(arrival, out);
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
        let known = Version::from_wire(header.version).is_some() || self.flows.contains_key(flow);
        if header.version == 0 || known || small {
            return self.any(arrival, out);
        }
        match self.plane.routes.unknown_version().cloned() {
            Some(route) => self.start(flow, route, Ids::None, &[(datagram, ecn)], None, now, out),
            None => out.drop(DatagramDrop::UnknownVersion, 1),
        }
        None
    }

    fn owner_of_long(&self, flow: &Flow, header: &LongHeader<'_>) -> Option<SessionId> {
        let owns = |id: &SessionId| {
            self.get(*id).and_then(|state| state.ids.quic()).is_some_and(|ids| ids.owns_long(header.dcid, header.scid))
        };
        self.flows.get(flow)?.all().find(owns)
    }

    /// The session of a flow that a short header is of by its ID, or because there is nothing else that it could be of.
    pub(super) fn owner_of_short(&self, flow: &Flow, datagram: &[u8]) -> Option<SessionId> {
        let members = self.flows.get(flow)?;
        let owns = |id: &SessionId| {
            self.get(*id).and_then(|state| state.ids.quic()).is_some_and(|ids| ids.owns_short(datagram))
        };
        if let Some(owner) = members.all().find(owns) {
            return Some(owner);
        }
        // A server without connection IDs: its clients cannot have several connections on one socket. One that has just
        // been made up beside it does not count.
        let known = |id: &SessionId| self.get(*id).is_some_and(|state| members.is_single() || state.confirmed);
        let mut known = members.all().filter(known);
        let only = known.next().filter(|_| known.next().is_none())?;
        self.get(only)?.ids.quic().is_some_and(|ids| ids.len == Some(0)).then_some(only)
    }

    /// A long header told whose it is. The server's own ID in it shows that the client receives.
    fn identified(&mut self, session: SessionId, destination: &[u8]) {
        if let Some(state) = self.get_mut(session)
            && let Ids::Quic(ids) = &state.ids
            && ids.server.iter().any(|id| id.as_bytes() == destination)
        {
            state.confirmed = true;
            self.prefer(session);
        }
    }

    /// A datagram was identified as this session's: what cannot be told goes to it from now on.
    pub(super) fn prefer(&mut self, session: SessionId) {
        let Some(state) = self.get_mut(session) else { return };
        state.confirmed |= state.answered;
        let flow = state.flow;
        if let Some(members) = self.flows.get_mut(&flow)
            && members.latest != session
        {
            members.earlier.retain(|earlier| *earlier != session);
            let before = std::mem::replace(&mut members.latest, session);
            members.earlier.push(before);
        }
    }

    pub(super) fn detail(&self, rule: Option<&Arc<str>>, hello: &ClientHello) -> Option<Box<Detail>> {
        if self.plane.access_log_format != AccessLogFormat::Json {
            return None;
        }
        Some(Box::new(Detail::of_hello(rule.cloned(), hello)))
    }
}
