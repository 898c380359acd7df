//! Encrypted Client Hello over QUIC: the client's Initial packets of a decrypted connection are rewritten on their way,
//! until its handshake is over. Whatever the backend answers goes back as it is.
//!
//! No alert can be sent here: it would have to be a packet of the server's. What no correct client sends is dropped.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::{
    Outcome,
    ech::{self, Context, ENCRYPTED_CLIENT_HELLO, EchKeys, First},
    quic::{ConnectionId, InitialProbe, InitialRewriter, LongType, Rewritten, packets},
    tls::ClientHello,
};

use super::{
    Command, Flow, Output, SessionId, Sessions,
    held::{Budget, Held, OPENING, UNDECIDED},
    ids::{Ids, QuicIds},
    place::Arrival,
    state::{Session, Stage},
};
use crate::{
    config::model::EchPolicy,
    log::Detail,
    metrics::{DatagramDrop, EchState, SessionEnd},
    route::UdpRoute,
};

/// How long a handshake is followed. One that takes longer has to be begun anew.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Datagrams with their ECN bits.
type Datagrams = Vec<(Box<[u8]>, u8)>;

/// A decrypted connection whose handshake may not be over.
#[derive(Debug)]
pub(super) struct Decryption {
    keys: EchKeys,
    /// The connection ID that the keys of Initial packets come from.
    dcid: ConnectionId,
    until: Duration,
    stage: Progress,
    /// What waits for the rest of a hello.
    held: Held,
}

#[derive(Debug)]
enum Progress {
    /// After a Retry the client begins again under new keys, maybe with another hello (quiche).
    Again(InitialProbe),
    Rewriting(Box<(InitialRewriter, Context)>),
}

/// The connection cannot go on.
struct Broken;

impl Decryption {
    fn new(
        keys: EchKeys,
        dcid: ConnectionId,
        outer: &ClientHello,
        inner: &ClientHello,
        context: Context,
        now: Duration,
    ) -> Option<Self> {
        let rewriter = InitialRewriter::new(dcid, outer, inner)?;
        let stage = Progress::Rewriting(Box::new((rewriter, context)));
        Some(Self { keys, dcid, until: now.saturating_add(HANDSHAKE), stage, held: Held::default() })
    }

    /// Drops what waits; returns how much that was.
    pub(super) fn give_up(mut self, budget: &mut Budget) -> usize {
        self.held.take(budget).len()
    }

    /// Takes a datagram with a long header, and returns what can be sent on now, in order.
    fn take(&mut self, datagram: &[u8], ecn: u8, budget: &mut Budget, out: &mut Output) -> Result<Datagrams, Broken> {
        self.begin_again(datagram, budget, out);
        match &mut self.stage {
            Progress::Again(probe) => match probe.advance(datagram) {
                Outcome::NeedMore => {
                    self.hold(datagram, ecn, budget, out);
                    Ok(Vec::new())
                }
                Outcome::NotThis => Err(Broken),
                Outcome::Match(outer) => {
                    // The client has proved its address by now.
                    let First::Accepted { inner, context } = ech::first(&self.keys, &outer, || true) else {
                        return Err(Broken);
                    };
                    let rewriter = InitialRewriter::new(self.dcid, &outer, &inner).ok_or(Broken)?;
                    self.stage = Progress::Rewriting(Box::new((rewriter, context)));
                    self.hold(datagram, ecn, budget, out);
                    self.release(budget)
                }
            },
            Progress::Rewriting(progress) => {
                let (rewriter, context) = &mut **progress;
                let mut copy: Box<[u8]> = datagram.into();
                match rewriter.rewrite(&mut copy) {
                    Rewritten::Done => Ok(vec![(copy, ecn)]),
                    Rewritten::Wait => {
                        self.hold(datagram, ecn, budget, out);
                        Ok(Vec::new())
                    }
                    Rewritten::Second(outer) => {
                        let inner = context.second(&outer).map_err(|_alert| Broken)?;
                        rewriter.second(&outer, &inner).ok_or(Broken)?;
                        self.hold(datagram, ecn, budget, out);
                        self.release(budget)
                    }
                    Rewritten::Broken => Err(Broken),
                }
            }
        }
    }

    /// A Retry has given the client another ID, and with it other keys: the token tells, since a server that has not
    /// sent one goes on with the first ID's.
    fn begin_again(&mut self, datagram: &[u8], budget: &mut Budget, out: &mut Output) {
        let Some(initial) = packets(datagram).find(|packet| packet.typ == LongType::Initial) else { return };
        if initial.token.is_empty() || initial.dcid == self.dcid {
            return;
        }
        if let Progress::Rewriting(progress) = &mut self.stage
            && progress.0.opens(datagram)
        {
            return;
        }
        self.dcid = initial.dcid;
        self.stage = Progress::Again(InitialProbe::new(initial.version, initial.dcid));
        out.drop(DatagramDrop::Incomplete, self.held.take(budget).len());
    }

    fn hold(&mut self, datagram: &[u8], ecn: u8, budget: &mut Budget, out: &mut Output) {
        let given_up = self.held.push(datagram, ecn, UNDECIDED, budget);
        out.drop(DatagramDrop::Overflow, given_up);
    }

    /// What waited, rewritten.
    fn release(&mut self, budget: &mut Budget) -> Result<Datagrams, Broken> {
        let mut ready = self.held.take(budget);
        let Progress::Rewriting(progress) = &mut self.stage else { return Err(Broken) };
        for (datagram, _) in &mut ready {
            if progress.0.rewrite(datagram) != Rewritten::Done {
                return Err(Broken);
            }
        }
        Ok(ready)
    }
}

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
    /// Looks at a hello whose `route` may have keys. `dcid` is that of the connection's first packet.
    pub(super) fn decrypt(
        &mut self,
        flow: &Flow,
        route: &UdpRoute,
        hello: &ClientHello,
        dcid: ConnectionId,
        now: Duration,
        out: &mut Output,
    ) -> Decided {
        let Some(rule) = &route.ech else { return Decided::Outer(None) };
        let source = flow.client.ip();
        let answer = match rule.policy {
            EchPolicy::Allowed | EchPolicy::Required => {
                ech::first(&rule.keys, hello, || self.failed_hellos.would_allow(source, now))
            }
            EchPolicy::Rejected => {
                let offered = hello.extension(ENCRYPTED_CLIENT_HELLO).is_some();
                let state = if offered { EchState::SwitchedOff } else { EchState::NotOffered };
                out.hellos.push(state);
                return Decided::Outer(Some(state));
            }
        };
        match answer {
            First::NotOffered => {
                out.hellos.push(EchState::NotOffered);
                match rule.policy {
                    EchPolicy::Required => Decided::Nowhere(DatagramDrop::Unmatched),
                    EchPolicy::Allowed | EchPolicy::Rejected => Decided::Outer(Some(EchState::NotOffered)),
                }
            }
            First::Rejected(rejection) => {
                if rejection == ech::Rejection::Undecryptable {
                    self.failed_hellos.allow(source, now);
                }
                let state = EchState::from(rejection);
                out.hellos.push(state);
                Decided::Outer(Some(state))
            }
            First::Accepted { inner, context } => {
                out.hellos.push(EchState::Accepted);
                let Some(private) = rule.find(&inner) else { return Decided::Nowhere(DatagramDrop::Unmatched) };
                match Decryption::new(rule.keys.clone(), dcid, hello, &inner, context, now) {
                    Some(decryption) => {
                        Decided::Inner { route: Arc::clone(private), inner, decryption: Box::new(decryption) }
                    }
                    None => Decided::Nowhere(DatagramDrop::EchInvalid),
                }
            }
            First::Refused(_) => {
                out.hellos.push(EchState::Invalid);
                Decided::Nowhere(DatagramDrop::EchInvalid)
            }
        }
    }

    /// A connection whose hello is complete: begins its session with the datagrams that brought it.
    pub(super) fn begin_quic(
        &mut self,
        flow: &Flow,
        hello: &ClientHello,
        mut ids: QuicIds,
        datagrams: &[(&[u8], u8)],
        now: Duration,
        out: &mut Output,
    ) {
        let Some(route) = self.plane.routes.quic(hello).cloned() else {
            out.drop(DatagramDrop::Unmatched, datagrams.len());
            return;
        };
        let detail = self.detail(route.rule.as_ref(), hello);
        match self.decrypt(flow, &route, hello, ids.first, now, out) {
            Decided::Outer(state) => {
                let detail = match state {
                    Some(state) => with_ech(detail, state, None),
                    None => detail,
                };
                self.start(flow, route, Ids::Quic(Box::new(ids)), datagrams, detail, now, out);
            }
            Decided::Inner { route, inner, mut decryption } => {
                let mut rewritten = Vec::with_capacity(datagrams.len());
                for (datagram, ecn) in datagrams {
                    match decryption.take(datagram, *ecn, &mut self.budget, out) {
                        Ok(ready) => rewritten.extend(ready),
                        Err(Broken) => {
                            out.drop(DatagramDrop::EchInvalid, datagrams.len());
                            return;
                        }
                    }
                }
                ids.decryption = Some(decryption);
                let detail = with_ech(detail, EchState::Accepted, Some(&inner));
                let first: Vec<(&[u8], u8)> = rewritten.iter().map(|(datagram, ecn)| (&**datagram, *ecn)).collect();
                self.start(flow, route, Ids::Quic(Box::new(ids)), &first, detail, now, out);
            }
            Decided::Nowhere(reason) => out.drop(reason, datagrams.len()),
        }
    }

    /// Takes a datagram for a decrypted session, should it have to be rewritten; gives it back otherwise.
    pub(super) fn rewrite<'a>(
        &mut self,
        session: SessionId,
        arrival: Arrival<'a>,
        out: &mut Output,
    ) -> Option<Arrival<'a>> {
        let Arrival { datagram, ecn, now, .. } = arrival;
        let Some(state) = self.get_mut(session) else { return Some(arrival) };
        let answered = state.answered;
        let Some(slot) = state.ids.decryption_mut() else { return Some(arrival) };
        let Some(mut decryption) = slot.take() else { return Some(arrival) };
        let is_long = datagram.first().is_some_and(|first| first & 0x80 != 0);
        // A client sends short headers when its handshake is complete, and then no Initial packets any more.
        if now > decryption.until || (!is_long && answered) {
            out.drop(DatagramDrop::Incomplete, decryption.give_up(&mut self.budget));
            return Some(arrival);
        }
        let ready = if is_long { Some(decryption.take(datagram, ecn, &mut self.budget, out)) } else { None };
        let state = self.get_mut(session)?;
        match ready {
            None => {
                put_back(state, decryption);
                Some(arrival)
            }
            Some(Ok(ready)) => {
                put_back(state, decryption);
                for (datagram, ecn) in ready {
                    self.send_or_hold(session, datagram, ecn, now, out);
                }
                None
            }
            Some(Err(Broken)) => {
                let waiting = decryption.give_up(&mut self.budget);
                out.drop(DatagramDrop::EchInvalid, waiting + 1);
                self.end(session, SessionEnd::EchInvalid, DatagramDrop::EchInvalid, now, out);
                None
            }
        }
    }

    /// A datagram that is not that of the buffer: sent by a command, or held until there is a socket.
    fn send_or_hold(&mut self, session: SessionId, datagram: Box<[u8]>, ecn: u8, now: Duration, out: &mut Output) {
        let Some(state) = self.slab.get_mut(super::place(session)) else { return };
        match &mut state.stage {
            Stage::Undecided(_) => {}
            Stage::Opening(opening) => {
                let given_up = opening.held.push(&datagram, ecn, OPENING, &mut self.opening_budget);
                out.drop(DatagramDrop::Overflow, given_up);
            }
            Stage::Open(_) => {
                let len = datagram.len();
                out.commands.push_back(Command::Send { session, datagram, ecn });
                self.note_up(session, len, now, out);
            }
        }
    }
}

fn with_ech(detail: Option<Box<Detail>>, state: EchState, inner: Option<&ClientHello>) -> Option<Box<Detail>> {
    detail.map(|detail| Box::new(detail.with_ech(state, inner)))
}

fn put_back(state: &mut Session, decryption: Box<Decryption>) {
    if let Some(slot) = state.ids.decryption_mut() {
        *slot = Some(decryption);
    }
}
