//! The first datagrams of a QUIC connection, until its ClientHello is complete and tells where it goes.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::{
    Probe,
    quic::{ConnectionId, InitialProbe, LongType, MIN_INITIAL_DATAGRAM, Version},
    tls::ClientHello,
};

use super::{
    MAX_UNDECIDED, Output, SessionId, Sessions,
    held::{Held, UNDECIDED},
    ids::{Ids, QuicIds},
    place::Arrival,
    state::{Session, Stage, Undecided},
};
use crate::{
    config::model::AccessLogFormat,
    log::Detail,
    metrics::{DatagramDrop, SessionEnd},
    route::UdpRoute,
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
    pub(super) fn more(&mut self, session: SessionId, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { datagram, ecn, now, .. } = arrival;
        let state = self.slab.get_mut(super::place(session))?;
        let Stage::Undecided(undecided) = &mut state.stage else { return self.deliver(session, arrival, out) };
        let outcome = undecided.probe.advance(datagram);
        if outcome != Probe::NotThis {
            let given_up = undecided.held.push(datagram, ecn, UNDECIDED);
            out.drop(DatagramDrop::Overflow, given_up);
        }
        match outcome {
            Probe::NeedMore => {}
            Probe::NotThis => {
                out.drop(DatagramDrop::Malformed, 1);
                self.end(session, SessionEnd::Idle, DatagramDrop::Malformed, now, out);
            }
            Probe::Match(hello) => self.decide(session, &hello, now, out),
        }
        None
    }

    /// The hello of an undecided session is complete.
    fn decide(&mut self, session: SessionId, hello: &ClientHello, now: Duration, out: &mut Output) {
        let Some(state) = self.get_mut(session) else { return };
        let (flow, ids) = (state.flow, std::mem::take(&mut state.ids));
        let Ids::Quic(ids) = ids else { return };
        let Stage::Undecided(undecided) = &mut state.stage else { return };
        let held = undecided.held.take();
        self.end(session, SessionEnd::Idle, DatagramDrop::Incomplete, now, out);
        let held: Vec<(&[u8], u8)> = held.iter().map(|(datagram, ecn)| (&**datagram, *ecn)).collect();
        self.begin_quic(&flow, hello, *ids, &held, now, out);
    }

    /// The first datagram of a connection, or one that only looks like it.
    pub(super) fn new_connection(
        &mut self,
        arrival: Arrival<'_>,
        packet: &Packet,
        out: &mut Output,
    ) -> Option<SessionId> {
        let Arrival { flow, datagram, ecn, now } = arrival;
        let ids = QuicIds::new(Some(packet.client), packet.destination);
        let mut probe = InitialProbe::new(packet.version, packet.destination);
        let small = datagram.len() < MIN_INITIAL_DATAGRAM;
        let outcome = if small { Probe::NeedMore } else { probe.advance(datagram) };
        // A handshake that goes on from another address: its Initial packets are under the keys of another ID (RFC 9001
        // section 5.2). One that opens under its own ID is a new connection, or goes on after a Retry, where the hello
        // must lead to the same rule.
        let backend = self.affinity.find(Key::ConnectionId(packet.destination), now);
        let goes_on = backend.filter(|backend| match &outcome {
            Probe::NotThis => true,
            Probe::NeedMore => small || packet.typ != LongType::Initial,
            Probe::Match(hello) => {
                let same = |route: &Arc<UdpRoute>| route.rule == backend.rule && route.ech.is_none();
                packet.has_token && self.snapshot.routes.quic(hello).is_some_and(same)
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
            Probe::NotThis => return self.any(arrival, out),
            Probe::NeedMore => self.wait_for_hello(arrival, Ids::Quic(Box::new(ids)), probe, out),
            Probe::Match(hello) => self.begin_quic(flow, &hello, ids, &[(datagram, ecn)], now, out),
        }
        None
    }

    fn wait_for_hello(&mut self, arrival: Arrival<'_>, ids: Ids, probe: InitialProbe, out: &mut Output) {
        let Arrival { flow, datagram, ecn, now } = arrival;
        while self.undecided_now >= MAX_UNDECIDED || !self.budget.has_room(datagram.len()) {
            let Some(oldest) = self.undecided.pop_front() else {
                out.drop(DatagramDrop::Overflow, 1);
                return;
            };
            if self.get(oldest).is_some_and(|state| matches!(state.stage, Stage::Undecided(_))) {
                self.end(oldest, SessionEnd::Idle, DatagramDrop::Overflow, now, out);
            }
        }
        if self.undecided.len() > 2 * MAX_UNDECIDED {
            let slab = &self.slab;
            let alive = |id: &SessionId| {
                slab.get(super::place(*id)).is_some_and(|state| {
                    state.generation == id.generation && matches!(state.stage, Stage::Undecided(_))
                })
            };
            self.undecided.retain(alive);
        }
        let mut held = Held::new(&self.budget);
        let given_up = held.push(datagram, ecn, UNDECIDED);
        out.drop(DatagramDrop::Overflow, given_up);
        let stage = Stage::Undecided(Box::new(Undecided { probe, held }));
        self.insert(Session::new(*flow, ids, stage, now), now, out);
    }

    pub(super) fn detail(&self, rule: Option<&Arc<str>>, hello: &ClientHello) -> Option<Box<Detail>> {
        if self.snapshot.access_log_format != AccessLogFormat::Json {
            return None;
        }
        Some(Box::new(Detail::of_hello(rule.cloned(), hello)))
    }
}
