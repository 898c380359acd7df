//! The session that a datagram belongs to; where there is none yet, its protocol and rule.

use std::{sync::Arc, time::Duration};

use rpxy_l4_common::datagram::{DatagramClass, QUIC_SHORT_MIN_LEN};
use rpxy_l4_proto::{quic::ConnectionId, wireguard::Message};

use super::{
    Flow, Output, SessionId, Sessions,
    ids::{Ids, Indices, QuicIds},
};
use crate::{
    metrics::DatagramDrop,
    route::{Datagrams, Stray, UdpRoute},
    udp::affinity::is_unmistakable,
};

/// One datagram of a client.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) flow: &'a Flow,
    pub(super) datagram: &'a [u8],
    pub(super) tos: u8,
    pub(super) now: Duration,
}

/// The class of a datagram, as far as there are rules about it.
enum Class {
    QuicLong,
    QuicShort,
    /// A short header of a connection whose ends have agreed to leave the fixed bit to chance (RFC 9287), or anything.
    MaybeQuicShort,
    WireGuard(Message),
    /// Certainly another protocol.
    Other,
    Any,
}

/// Returns whether a datagram has constants of another protocol in places where QUIC and WireGuard have none: a message of
/// STUN (RFC 8489 section 5) or a record of DTLS (RFC 6347 section 4.1).
fn is_other(datagram: &[u8]) -> bool {
    match datagram {
        [0..=3, _, _, _, 0x21, 0x12, 0xa4, 0x42, ..] => datagram.len() >= 20,
        [20..=26, 0xfe, 0xfc..=0xff, ..] => datagram.len() >= 13,
        _ => false,
    }
}

/// A connection of which nothing is known but that it is one.
pub(super) fn unknown_quic() -> Ids {
    Ids::Quic(Box::new(QuicIds::new(None, ConnectionId::default())))
}

impl Sessions {
    /// The open session that a datagram goes to. `None` when it was taken over (held, or about to be sent by a command)
    /// or dropped.
    pub(super) fn assign(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        match self.class(&arrival) {
            // Filled reserved bytes: it may as well be a short header of a connection that is known.
            Class::WireGuard(_)
                if !matches!(arrival.datagram, [_, 0, 0, 0, ..])
                    && self.owners_of_short(arrival.flow, arrival.datagram).certain =>
            {
                self.quic_short(arrival, true, out)
            }
            Class::QuicLong => self.quic_long(arrival, out),
            Class::QuicShort => self.quic_short(arrival, true, out),
            Class::MaybeQuicShort => self.quic_short(arrival, false, out),
            Class::WireGuard(message) => self.wireguard(arrival, message, out),
            Class::Other => self.other(arrival, out),
            Class::Any => self.any(arrival, out),
        }
    }

    fn class(&self, arrival: &Arrival<'_>) -> Class {
        let (datagram, routes) = (arrival.datagram, &self.at(arrival.flow).routes);
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
                _ if is_other(datagram) => Class::Other,
                [0..0x80, ..] if datagram.len() >= QUIC_SHORT_MIN_LEN => Class::MaybeQuicShort,
                _ => Class::Any,
            },
        }
    }

    /// A datagram that tells nothing: it goes with what its flow has, or to the default target.
    pub(super) fn any(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, tos, now } = arrival;
        if let Some(members) = self.table.members(flow) {
            let latest = members.latest();
            let any = if members.is_single() { None } else { self.latest_of(flow, Datagrams::Any) };
            return self.deliver(any.unwrap_or(latest), arrival, out);
        }
        let Some(route) = self.at(flow).routes.default().cloned() else {
            out.refuse(flow, Datagrams::Any, None, DatagramDrop::NotRecognised, 1);
            return None;
        };
        if self.admits_guess(&arrival, &route, out) {
            self.start(flow, route, Ids::None, &[(datagram, tos)], None, now, out);
        }
        None
    }

    /// Returns whether a session may begin of which nothing is known but the default target, or a stray's: not for a backend,
    /// whose answers would begin it.
    fn admits_guess(&mut self, arrival: &Arrival<'_>, route: &UdpRoute, out: &mut Output) -> bool {
        if self.named.contains(arrival.flow.client, &self.snapshot, arrival.now) {
            out.discard(DatagramDrop::Loop, 1);
            return false;
        }
        let admits = self.overload.allows(arrival.now);
        if !admits {
            out.refuse_of(route, arrival.flow, None, DatagramDrop::Overloaded, 1);
        }
        admits
    }

    /// A datagram of another protocol for certain: it goes to the default target, also beside a QUIC connection of the same
    /// socket.
    fn other(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let Arrival { flow, datagram, tos, now } = arrival;
        if let Some(session) = self.latest_of(flow, Datagrams::Any) {
            return self.deliver(session, arrival, out);
        }
        // A short header without the fixed bit looks like that once in a while; but a backend may state an ID like that.
        let id = datagram.get(1..9).and_then(ConnectionId::new).filter(is_unmistakable);
        let of_connection = id.is_some() && self.owners_of_short(flow, datagram).certain;
        let beside = self.table.members(flow).is_some() && !of_connection;
        match self.at(flow).routes.default().filter(|_| beside).cloned() {
            Some(route) if self.admits_guess(&arrival, &route, out) => {
                self.start(flow, route, Ids::None, &[(datagram, tos)], None, now, out);
            }
            Some(_refused) => {}
            None => return self.any(arrival, out),
        }
        None
    }

    /// Gives a datagram to a session: back to the caller where it can be sent on, otherwise it is held.
    pub(super) fn deliver(&mut self, session: SessionId, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let arrival = self.rewrite(session, arrival, out)?;
        let state = self.table.get_mut(session)?;
        match state.held() {
            None => Some(session),
            Some((held, limit)) => {
                let given_up = held.push(arrival.datagram, arrival.tos, limit);
                out.discard(DatagramDrop::Overflow, given_up);
                None
            }
        }
    }

    /// A datagram from the middle of a connection or tunnel of which nothing is known.
    pub(super) fn stray(&mut self, arrival: Arrival<'_>, carries: Datagrams, out: &mut Output) {
        let Arrival { flow, datagram, tos, now } = arrival;
        let (route, ids) = match self.at(flow).routes.stray(carries, flow.client.ip()) {
            Stray::Drop => {
                out.refuse(flow, carries, None, DatagramDrop::Orphan, 1);
                return;
            }
            Stray::Default(route) => (Arc::clone(route), Ids::None),
            Stray::Only(route) if carries == Datagrams::WireGuard => {
                (Arc::clone(route), Ids::WireGuard(Indices::default()))
            }
            Stray::Only(route) => (Arc::clone(route), unknown_quic()),
            Stray::Balance(route) => {
                let route = Arc::clone(route);
                if self.admits_guess(&arrival, &route, out) {
                    self.start_by_source(arrival, route, unknown_quic(), out);
                }
                return;
            }
        };
        if !self.admits_guess(&arrival, &route, out) {
            return;
        }
        self.start(flow, route, ids, &[(datagram, tos)], None, now, out);
    }

    /// The youngest session of a flow that carries `what`.
    pub(super) fn latest_of(&self, flow: &Flow, what: Datagrams) -> Option<SessionId> {
        self.table.find(flow, |state| state.carries() == what)
    }
}
