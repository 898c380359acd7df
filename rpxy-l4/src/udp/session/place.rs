//! Which session a datagram belongs to; where there is none yet, what it is and which rule it goes by.

use std::time::Duration;

use rpxy_l4_common::datagram::{DatagramClass, QUIC_SHORT_MIN_LEN};
use rpxy_l4_proto::wireguard::Message;

use super::{Flow, Members, Output, SessionId, Sessions, ids::Ids, state::Stage};
use crate::{metrics::DatagramDrop, route::Datagrams};

/// One datagram of a client.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) flow: &'a Flow,
    pub(super) datagram: &'a [u8],
    pub(super) ecn: u8,
    pub(super) now: Duration,
}

/// What a datagram looks like, as far as there are rules about it.
enum Class {
    QuicLong,
    QuicShort,
    /// A short header of a connection whose ends have agreed to leave the fixed bit to chance (RFC 9287), or anything.
    MaybeQuicShort,
    WireGuard(Message),
    Any,
}

impl Sessions {
    /// The open session that a datagram goes to. `None` when it was taken over (held, or about to be sent by a command)
    /// or dropped.
    pub(super) fn place(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        match self.class(arrival.datagram) {
            // Filled reserved bytes: it may as well be a short header of a connection that is known.
            Class::WireGuard(_)
                if !matches!(arrival.datagram, [_, 0, 0, 0, ..])
                    && self.owner_of_short(arrival.flow, arrival.datagram).is_some() =>
            {
                self.quic_short(arrival, true, out)
            }
            Class::QuicLong => self.quic_long(arrival, out),
            Class::QuicShort => self.quic_short(arrival, true, out),
            Class::MaybeQuicShort => self.quic_short(arrival, false, out),
            Class::WireGuard(message) => self.wireguard(arrival, message, out),
            Class::Any => self.any(arrival, out),
        }
    }

    fn class(&self, datagram: &[u8]) -> Class {
        let routes = &self.snapshot.routes;
        if let Some(message) = routes.wireguard_message(datagram) {
            return Class::WireGuard(message);
        }
        if !routes.has_quic() {
            return Class::Any;
        }
        match DatagramClass::of(datagram) {
            DatagramClass::QuicLong { .. } => Class::QuicLong,
            DatagramClass::QuicShort => Class::QuicShort,
            DatagramClass::WireGuardInitiation
            | DatagramClass::WireGuardResponse
            | DatagramClass::WireGuardCookie
            | DatagramClass::WireGuardTransport
            | DatagramClass::Unknown => match datagram {
                [0..0x80, ..] if datagram.len() >= QUIC_SHORT_MIN_LEN => Class::MaybeQuicShort,
                _ => Class::Any,
            },
        }
    }

    /// A datagram that tells nothing: it goes with what its flow has, or to the default target.
    pub(super) fn any(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, ecn, now } = arrival;
        if let Some(members) = self.flows.get(flow) {
            let carries_any = |id: &SessionId| self.carries(*id) == Some(Datagrams::Any);
            let session = if members.is_single() { None } else { members.all().find(carries_any) };
            let session = session.unwrap_or(members.latest);
            return self.deliver(session, arrival, out);
        }
        let Some(route) = self.snapshot.routes.default().cloned() else {
            out.drop(DatagramDrop::NotRecognised, 1);
            return None;
        };
        self.start(flow, route, Ids::None, &[(datagram, ecn)], None, now, out);
        None
    }

    /// Gives a datagram to a session: back to the caller where it can be sent on, otherwise it is held.
    pub(super) fn deliver(&mut self, session: SessionId, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let arrival = self.rewrite(session, arrival, out)?;
        let state = self.slab.get_mut(super::place(session))?;
        match state.held() {
            None => Some(session),
            Some((held, limit)) => {
                let given_up = held.push(arrival.datagram, arrival.ecn, limit);
                out.drop(DatagramDrop::Overflow, given_up);
                None
            }
        }
    }

    /// A connection or tunnel that is under way, of which nothing is known.
    pub(super) fn orphan(&mut self, arrival: Arrival<'_>, out: &mut Output) {
        let Arrival { flow, datagram, ecn, now } = arrival;
        match self.snapshot.routes.orphan().cloned() {
            Some(route) => self.start(flow, route, Ids::None, &[(datagram, ecn)], None, now, out),
            None => out.drop(DatagramDrop::Orphan, 1),
        }
    }

    /// What a session carries; undecided ones can only become QUIC.
    pub(super) fn carries(&self, session: SessionId) -> Option<Datagrams> {
        let state = self.get(session)?;
        match &state.stage {
            Stage::Undecided(_) => Some(Datagrams::Quic),
            Stage::Opening(_) | Stage::Open(_) => state.route().map(|route| route.carries),
        }
    }

    /// The youngest session of a flow that carries `what`.
    pub(super) fn latest_of(&self, members: &Members, what: Datagrams) -> Option<SessionId> {
        members.all().find(|id| self.carries(*id) == Some(what))
    }
}
