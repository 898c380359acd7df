//! The session that a datagram belongs to; where there is none yet, its protocol and rule.

use std::time::Duration;

use rpxy_l4_common::datagram::{DatagramClass, QUIC_SHORT_MIN_LEN};
use rpxy_l4_proto::wireguard::Message;

use super::{Flow, Output, SessionId, Sessions, ids::Ids};
use crate::{metrics::DatagramDrop, route::Datagrams};

/// One datagram of a client.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) flow: &'a Flow,
    pub(super) datagram: &'a [u8],
    pub(super) ecn: u8,
    pub(super) now: Duration,
}

/// The class of a datagram, as far as there are rules about it.
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
    pub(super) fn assign(&mut self, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
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
        if let Some(members) = self.table.members(flow) {
            let latest = members.latest();
            let any = if members.is_single() { None } else { self.latest_of(flow, Datagrams::Any) };
            return self.deliver(any.unwrap_or(latest), arrival, out);
        }
        let Some(route) = self.snapshot.routes.default().cloned() else {
            out.discard(DatagramDrop::NotRecognised, 1);
            return None;
        };
        self.start(flow, route, Ids::None, &[(datagram, ecn)], None, now, out);
        None
    }

    /// Gives a datagram to a session: back to the caller where it can be sent on, otherwise it is held.
    pub(super) fn deliver(&mut self, session: SessionId, arrival: Arrival<'_>, out: &mut Output) -> Option<SessionId> {
        let arrival = self.rewrite(session, arrival, out)?;
        let state = self.table.get_mut(session)?;
        match state.held() {
            None => Some(session),
            Some((held, limit)) => {
                let given_up = held.push(arrival.datagram, arrival.ecn, limit);
                out.discard(DatagramDrop::Overflow, given_up);
                None
            }
        }
    }

    /// A datagram from the middle of a connection or tunnel of which nothing is known.
    pub(super) fn stray(&mut self, arrival: Arrival<'_>, out: &mut Output) {
        let Arrival { flow, datagram, ecn, now } = arrival;
        match self.snapshot.routes.orphan().cloned() {
            Some(route) => self.start(flow, route, Ids::None, &[(datagram, ecn)], None, now, out),
            None => out.discard(DatagramDrop::Orphan, 1),
        }
    }

    /// The youngest session of a flow that carries `what`.
    pub(super) fn latest_of(&self, flow: &Flow, what: Datagrams) -> Option<SessionId> {
        self.table.find(flow, |state| state.carries() == what)
    }
}
