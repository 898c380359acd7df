//! Encrypted Client Hello over QUIC: the client's Initial packets of a decrypted connection are rewritten on their way,
//! until its handshake is over. Whatever the backend answers goes back as it is.
//!
//! No alert can be sent here: it would have to be a packet of the server's. What no correct client sends is dropped.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::{quic::ConnectionId, tls::ClientHello};

use super::{
    Command, Flow, Output, SessionId, Sessions,
    classify::Arrival,
    decryption::{Broken, Decryption},
    held::OPENING,
    ids::{Ids, QuicIds},
    state::Stage,
};
use crate::{
    log::Detail,
    metrics::{DatagramDrop, EchState, SessionEnd},
    route::{Datagrams as Carries, EchDecision, UdpRoute},
};

/// What a rule makes of a hello.
pub(super) enum Decided {
    /// It goes to `route` as it is; the state is that of a rule with keys.
    Outer(Option<EchState>),
    /// It is decrypted.
    Inner { route: Arc<UdpRoute>, inner: Box<ClientHello>, decryption: Box<Decryption> },
    /// It goes nowhere.
    Nowhere(DatagramDrop),
}

impl Sessions {
    /// Looks at a hello, unless it cannot be read, whose `route` may have keys. `dcid` is that of the connection's first
    /// packet.
    pub(super) fn decrypt(
        &mut self,
        flow: &Flow,
        route: &UdpRoute,
        hello: Option<&ClientHello>,
        dcid: ConnectionId,
        now: Duration,
        out: &mut Output,
    ) -> Decided {
        let Some(rule) = &route.ech else { return Decided::Outer(None) };
        let Some(hello) = hello else {
            let state = EchState::NotOffered;
            out.hellos.push(state);
            return if rule.is_required() {
                Decided::Nowhere(DatagramDrop::Unmatched)
            } else {
                Decided::Outer(Some(state))
            };
        };
        let decision = rule.decide(hello, flow.client.ip(), &self.failed_hellos, now);
        out.hellos.push(decision.state());
        match decision {
            EchDecision::Outer(state) => Decided::Outer(Some(state)),
            EchDecision::Opened { inner, route, context } => {
                let (keys, hellos) = (rule.keys.clone(), (hello, &*inner));
                match Decryption::new(keys, dcid, hellos, context, (&self.handshake_budget, &self.gathering), now) {
                    Some(decryption) => Decided::Inner { route, inner, decryption: Box::new(decryption) },
                    None => Decided::Nowhere(DatagramDrop::EchInvalid),
                }
            }
            EchDecision::Unmatched(_) => Decided::Nowhere(DatagramDrop::Unmatched),
            EchDecision::Invalid(_) => Decided::Nowhere(DatagramDrop::EchInvalid),
        }
    }

    /// A connection whose hello is complete, or will never be read: begins its session with the datagrams that brought it.
    pub(super) fn begin_quic(
        &mut self,
        flow: &Flow,
        hello: Option<&ClientHello>,
        mut ids: QuicIds,
        datagrams: &[(&[u8], u8)],
        now: Duration,
        out: &mut Output,
    ) {
        let Some(route) = self.at(flow).routes.quic(hello, flow.client.ip()).cloned() else {
            out.refuse(
                flow,
                Carries::Quic,
                hello.and_then(ClientHello::server_name),
                DatagramDrop::Unmatched,
                datagrams.len(),
            );
            return;
        };
        let detail = self.detail(route.rule.as_ref(), hello);
        match self.decrypt(flow, &route, hello, ids.first(), now, out) {
            Decided::Outer(state) => {
                let detail = match state {
                    Some(state) => with_ech(detail, state, None),
                    None => detail,
                };
                self.start(flow, route, Ids::Quic(Box::new(ids)), datagrams, detail, now, out);
            }
            Decided::Inner { route, inner, mut decryption } => {
                let mut rewritten = Vec::with_capacity(datagrams.len());
                for (datagram, tos) in datagrams {
                    match decryption.take(datagram, *tos, out) {
                        Ok(ready) => rewritten.extend(ready),
                        Err(Broken) => {
                            let name = hello.and_then(ClientHello::server_name);
                            out.refuse_of(&route, flow, name, DatagramDrop::EchInvalid, datagrams.len());
                            return;
                        }
                    }
                }
                ids.decryption = Some(decryption);
                let detail = with_ech(detail, EchState::Accepted, Some(&inner));
                let first: Vec<(&[u8], u8)> = rewritten.iter().map(|(datagram, tos)| (&**datagram, *tos)).collect();
                self.start(flow, route, Ids::Quic(Box::new(ids)), &first, detail, now, out);
            }
            Decided::Nowhere(reason) => {
                out.refuse_of(&route, flow, hello.and_then(ClientHello::server_name), reason, datagrams.len());
            }
        }
    }

    /// Takes a datagram for a decrypted session, should it have to be rewritten; gives it back otherwise.
    pub(super) fn rewrite<'a>(
        &mut self,
        session: SessionId,
        arrival: Arrival<'a>,
        out: &mut Output,
    ) -> Option<Arrival<'a>> {
        let Arrival { datagram, tos, now, .. } = arrival;
        let Some(state) = self.table.get_mut(session) else { return Some(arrival) };
        if state.ids.decryption().is_none() {
            return Some(arrival);
        }
        if datagram.first().is_none_or(|first| first & 0x80 == 0) {
            // A client sends short headers when its handshake is complete, and then no Initial packets any more. One to an
            // ID that was not seen from its server may be anybody's.
            let told =
                |ids: &QuicIds| ids.is_empty() || ids.of_short(datagram).is_some_and(|id| ids.is_stated(id.as_bytes()));
            if state.evidence.is_answered() && state.ids.quic().is_some_and(told) {
                out.discard(DatagramDrop::Incomplete, state.ids.end_decryption());
            }
            return Some(arrival);
        }
        let decryption = state.ids.decryption_mut()?;
        match decryption.take(datagram, tos, out) {
            Ok(ready) => {
                for (datagram, tos) in ready {
                    self.send_or_hold(session, datagram, tos, now, out);
                }
            }
            Err(Broken) => {
                out.discard(DatagramDrop::EchInvalid, 1);
                self.end(session, SessionEnd::EchInvalid, DatagramDrop::EchInvalid, now, out);
            }
        }
        None
    }

    /// A datagram that is not that of the buffer: sent by a command, or held until there is a socket.
    fn send_or_hold(&mut self, session: SessionId, datagram: Box<[u8]>, tos: u8, now: Duration, out: &mut Output) {
        let Some(state) = self.table.get_mut(session) else { return };
        match &mut state.stage {
            Stage::Undecided(_) => {}
            Stage::Opening(opening) => {
                let given_up = opening.held.push(&datagram, tos, OPENING);
                out.discard(DatagramDrop::Overflow, given_up);
            }
            Stage::Open(_) => {
                let len = datagram.len();
                out.commands.push_back(Command::Send { session, datagram, tos });
                self.note_up(session, len, now, out);
            }
        }
    }
}

fn with_ech(detail: Option<Box<Detail>>, state: EchState, inner: Option<&ClientHello>) -> Option<Box<Detail>> {
    detail.map(|detail| Box::new(detail.with_ech(state, inner)))
}
