//! The first datagrams of a QUIC connection, until its ClientHello is complete and tells where it goes.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::{
    Probe,
    quic::{ConnectionId, InitialKeys, InitialProbe, LongType, MIN_INITIAL_DATAGRAM, Version, packets},
    tls::ClientHello,
};

use super::{
    Output, SessionId, Sessions,
    classify::Arrival,
    held::UNDECIDED,
    ids::{Ids, QuicIds},
    state::{PendingHello, Session, Stage},
};
use crate::{
    config::model::AccessLogFormat,
    log::Detail,
    metrics::{DatagramDrop, SessionEnd},
    route::{Datagrams, UdpRoute},
    udp::affinity::Key,
};

/// A long header of a version whose packets can be read.
pub(super) struct Packet {
    pub(super) version: Version,
    pub(super) typ: LongType,
    pub(super) client: ConnectionId,
    pub(super) destination: ConnectionId,
    pub(super) has_token: bool,
}

impl Sessions {
    /// A further datagram of a connection that is known.
    pub(super) fn further(&mut self, session: SessionId, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { datagram, tos, now, .. } = arrival;
        let state = self.table.get_mut(session)?;
        let Stage::Undecided(pending) = &mut state.stage else { return self.deliver(session, arrival, out) };
        let outcome = pending.probe.advance(datagram);
        if !matches!(outcome, Probe::NotThis) {
            let given_up = pending.held.push(datagram, tos, UNDECIDED);
            out.discard(DatagramDrop::Overflow, given_up);
        }
        match outcome {
            Probe::NeedMore => {}
            Probe::NotThis => {
                out.discard(DatagramDrop::Malformed, 1);
                self.end(session, SessionEnd::Idle, DatagramDrop::Malformed, now, out);
            }
            Probe::Unreadable => self.decide(session, None, now, out),
            Probe::Match(hello) => self.decide(session, Some(&hello), now, out),
        }
        None
    }

    /// The hello of an undecided session is complete, or will never be read.
    fn decide(&mut self, session: SessionId, hello: Option<&ClientHello>, now: Duration, out: &mut Output) {
        let Some(state) = self.table.get_mut(session) else { return };
        let (flow, ids) = (state.flow, std::mem::take(&mut state.ids));
        let Ids::Quic(ids) = ids else { return };
        let Stage::Undecided(pending) = &mut state.stage else { return };
        let held = pending.held.take();
        self.end(session, SessionEnd::Idle, DatagramDrop::Incomplete, now, out);
        let held: Vec<(&[u8], u8)> = held.iter().map(|(datagram, tos)| (&**datagram, *tos)).collect();
        self.begin_quic(&flow, hello, *ids, &held, now, out);
    }

    /// The first datagram of a connection, or one that only looks like it.
    pub(super) fn new_connection(
        &mut self,
        arrival: Arrival<'_>,
        packet: &Packet,
        out: &mut Output,
    ) -> Option<SessionId> {
        let Arrival { flow, datagram, tos, now } = arrival;
        let ids = QuicIds::new(Some(packet.client), packet.destination);
        let small = datagram.len() < MIN_INITIAL_DATAGRAM;
        if small && packet.typ == LongType::Initial && opens(datagram, packet) {
            // It is QUIC for certain, and no server takes it (RFC 9000 section 14.1).
            out.discard(DatagramDrop::Malformed, 1);
            return None;
        }
        let mut probe = InitialProbe::new(packet.version, packet.destination);
        let outcome = if small { Probe::NeedMore } else { probe.advance(datagram) };
        // A handshake that goes on from another address: its Initial packets are under the keys of another ID (RFC 9001
        // section 5.2). One that opens under its own ID is a new connection, or goes on after a Retry, where the hello
        // must lead to the same rule.
        let key = Key::Stated(packet.destination);
        let goes_on = self.identity.find(key, now).filter(|owner| match &outcome {
            Probe::NotThis => true,
            Probe::NeedMore => small || packet.typ != LongType::Initial,
            Probe::Match(_) | Probe::Unreadable => {
                let same = |route: &Arc<UdpRoute>| route.rule == owner.backend.rule && route.ech.is_none();
                let found = self.at(flow).routes.quic(readable(&outcome), flow.client.ip());
                packet.has_token && found.is_some_and(same)
            }
        });
        if let Some(owner) = goes_on {
            let ids = Ids::Quic(Box::new(QuicIds::known(Some(packet.client), key)));
            self.start_known(arrival, &owner.backend, ids, out);
            return None;
        }
        // What is too small to begin a connection, on a socket that has a session, is of that.
        if small && (packet.typ == LongType::Initial || self.knows(flow)) {
            return self.any(arrival, out);
        }
        match outcome {
            Probe::NotThis => return self.does_not_open(arrival, packet, out),
            Probe::NeedMore => self.wait_for_hello(arrival, Ids::Quic(Box::new(ids)), probe, out),
            Probe::Match(_) | Probe::Unreadable => {
                self.begin_quic(flow, readable(&outcome), ids, &[(datagram, tos)], now, out);
            }
        }
        None
    }

    /// What looks like an Initial and does not open: one from the middle of a handshake, or something else.
    fn does_not_open(&mut self, arrival: Arrival<'_>, packet: &Packet, out: &mut Output) -> Option<SessionId> {
        let is_its = |state: &Session| state.ids.quic().is_some_and(|ids| ids.is_from_client(packet.client));
        match self.table.find(arrival.flow, is_its) {
            Some(session) => self.deliver(session, arrival, out),
            None if self.knows(arrival.flow) => self.any(arrival, out),
            None => {
                self.stray(arrival, Datagrams::Quic, out);
                None
            }
        }
    }

    fn wait_for_hello(&mut self, arrival: Arrival<'_>, ids: Ids, probe: InitialProbe, out: &mut Output) {
        let Arrival { flow, datagram, tos, now } = arrival;
        while !self.undecided.has_room(datagram.len()) {
            let Some(oldest) = self.undecided.pop_oldest(&self.table) else {
                out.discard(DatagramDrop::Overflow, 1);
                return;
            };
            self.end(oldest, SessionEnd::Idle, DatagramDrop::Overflow, now, out);
        }
        let mut held = self.undecided.hold();
        let given_up = held.push(datagram, tos, UNDECIDED);
        out.discard(DatagramDrop::Overflow, given_up);
        let stage = Stage::Undecided(Box::new(PendingHello { probe, held }));
        self.insert(Session::new(*flow, ids, stage, now), now, out);
    }

    pub(super) fn detail(&self, rule: Option<&Arc<str>>, hello: Option<&ClientHello>) -> Option<Box<Detail>> {
        if self.snapshot.access_lines.format != AccessLogFormat::Json {
            return None;
        }
        let rule = rule.cloned();
        Some(Box::new(match hello {
            Some(hello) => Detail::of_hello(rule, hello),
            None => Detail { rule, ..Detail::default() },
        }))
    }
}

/// The hello of a connection, unless it cannot be read.
fn readable(outcome: &Probe<ClientHello>) -> Option<&ClientHello> {
    match outcome {
        Probe::Match(hello) => Some(hello),
        Probe::Unreadable | Probe::NotThis | Probe::NeedMore => None,
    }
}

/// Returns whether an Initial of a datagram opens under the keys of the ID that it goes to.
fn opens(datagram: &[u8], packet: &Packet) -> bool {
    let keys = InitialKeys::client(packet.version, &packet.destination);
    packets(datagram).any(|packet| packet.typ == LongType::Initial && keys.open(&packet, None).is_some())
}
