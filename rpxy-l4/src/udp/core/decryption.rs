//! One connection with Encrypted Client Hello, until its handshake is over: which of its datagrams go on, and how.
//!
//! The second hello after a HelloRetryRequest follows the first in the CRYPTO stream, so that nothing of the backend's has
//! to be looked at to see it come. A Retry has to be: it gives the client another connection ID, and with it other keys
//! and maybe another hello (quiche makes a new one). It errs towards going on: a packet that does not open is the
//! client's under no keys that the backend has, and says nothing of the connection.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::{
    Probe,
    ech::{Context, EchKeys, FirstHello, open_first},
    quic::{ConnectionId, InitialKeys, InitialProbe, InitialRewriter, LongType, Rewritten, packets},
    tls::ClientHello,
};

use super::{
    Output,
    few::Few,
    held::{Budget, Held, UNDECIDED},
};
use crate::{
    limit::{ConnLimit, ConnPermit},
    metrics::DatagramDrop,
};

/// How long a handshake is followed. One that takes longer has to be begun anew.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections that gather a second hello, or one after a Retry, at most. Each takes what it has gathered and what
/// waits for the rest; more of them have to come again.
pub(super) const MAX_GATHERING: u32 = 1024;

/// Datagrams with their type of service.
pub(super) type Datagrams = Vec<(Box<[u8]>, u8)>;

/// A decrypted connection whose handshake may not be over.
#[derive(Debug)]
pub(super) struct Decryption {
    keys: EchKeys,
    until: Duration,
    /// IDs that Retry packets of the backend gave. A server that gets two datagrams may send two of them, and the client
    /// follows the first that reaches it (RFC 9000 section 17.2.5.2).
    retries: Few<ConnectionId>,
    /// The client has followed one, and follows no other.
    retried: bool,
    stage: Stage,
    /// What waits for the rest of a hello.
    held: Held,
    limit: Arc<ConnLimit>,
    /// Counts it among those that gather a hello.
    permit: Option<ConnPermit>,
}

#[derive(Debug)]
enum Stage {
    /// The client has begun again, under the keys of this ID.
    Again(ConnectionId, InitialProbe),
    Rewriting(Box<(InitialRewriter, Context)>),
}

/// The connection cannot go on.
#[derive(Debug)]
pub(super) struct Broken;

impl Decryption {
    /// For the connection whose first packet went to `dcid`, with its hello and what was found in it. `None` when the
    /// inner hello is longer, which cannot be.
    pub(super) fn new(
        keys: EchKeys,
        dcid: ConnectionId,
        (outer, inner): (&ClientHello, &ClientHello),
        context: Context,
        (budget, limit): (&Budget, &Arc<ConnLimit>),
        now: Duration,
    ) -> Option<Self> {
        let rewriter = InitialRewriter::new(dcid, outer, inner)?;
        Some(Self {
            keys,
            until: now.saturating_add(HANDSHAKE),
            retries: Few::default(),
            retried: false,
            stage: Stage::Rewriting(Box::new((rewriter, context))),
            held: Held::new(budget),
            limit: Arc::clone(limit),
            permit: None,
        })
    }

    /// When its handshake is over at the latest.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    /// Number of datagrams that wait.
    pub(super) fn waiting(&self) -> usize {
        self.held.len()
    }

    /// The backend has sent a Retry packet with this Source Connection ID.
    pub(super) fn retry(&mut self, id: ConnectionId) {
        if !self.retried && !self.retries.contains(id) {
            self.retries.add(id);
        }
    }

    /// Takes a datagram with a long header, and returns what can be sent on now, in order.
    pub(super) fn take(&mut self, datagram: &[u8], tos: u8, out: &mut Output) -> Result<Datagrams, Broken> {
        self.begin_again(datagram, out);
        match &mut self.stage {
            Stage::Again(dcid, probe) => match probe.advance(datagram) {
                Probe::NeedMore => {
                    self.hold(datagram, tos, out);
                    Ok(Vec::new())
                }
                Probe::NotThis | Probe::Unreadable => Err(Broken),
                Probe::Match(outer) => {
                    // The client has proved its address by now, and does so once in a connection.
                    let FirstHello::Accepted { inner, context } = open_first(&self.keys, &outer, || true) else {
                        return Err(Broken);
                    };
                    let rewriter = InitialRewriter::new(*dcid, &outer, &inner).ok_or(Broken)?;
                    self.stage = Stage::Rewriting(Box::new((rewriter, context)));
                    self.hold(datagram, tos, out);
                    self.release()
                }
            },
            Stage::Rewriting(progress) => {
                let (rewriter, context) = &mut **progress;
                let mut copy: Box<[u8]> = datagram.into();
                match rewriter.rewrite(&mut copy, || may_gather(&mut self.permit, &self.limit)) {
                    Rewritten::Done => Ok(vec![(copy, tos)]),
                    Rewritten::Refused => {
                        out.discard(DatagramDrop::Overflow, 1);
                        Ok(Vec::new())
                    }
                    Rewritten::Wait => {
                        self.hold(datagram, tos, out);
                        Ok(Vec::new())
                    }
                    Rewritten::Second(outer) => {
                        let inner = context.second(&outer).map_err(|_alert| Broken)?;
                        rewriter.second(&outer, &inner).ok_or(Broken)?;
                        self.hold(datagram, tos, out);
                        self.release()
                    }
                    Rewritten::Broken => Err(Broken),
                }
            }
        }
    }

    /// Begins again with the first packet that is under the keys of a Retry's ID. Others to that ID, which anybody can
    /// make up, change nothing.
    fn begin_again(&mut self, datagram: &[u8], out: &mut Output) {
        if self.retried {
            return;
        }
        let Some(initial) = packets(datagram).find(|packet| packet.typ == LongType::Initial) else { return };
        let (version, dcid) = (initial.version, initial.dcid);
        if self.retries.contains(dcid)
            && InitialKeys::client(version, &dcid).open(&initial, None).is_some()
            && may_gather(&mut self.permit, &self.limit)
        {
            self.retried = true;
            self.stage = Stage::Again(dcid, InitialProbe::new(version, dcid));
            out.discard(DatagramDrop::Incomplete, self.held.take().len());
        }
    }

    fn hold(&mut self, datagram: &[u8], tos: u8, out: &mut Output) {
        let given_up = self.held.push(datagram, tos, UNDECIDED);
        out.discard(DatagramDrop::Overflow, given_up);
    }

    /// What waited, rewritten.
    fn release(&mut self) -> Result<Datagrams, Broken> {
        self.permit = None;
        let mut ready = self.held.take();
        let Stage::Rewriting(progress) = &mut self.stage else { return Err(Broken) };
        for (datagram, _) in &mut ready {
            if progress.0.rewrite(datagram, || true) != Rewritten::Done {
                return Err(Broken);
            }
        }
        Ok(ready)
    }
}

/// Returns whether a connection may gather a hello, or does already.
fn may_gather(permit: &mut Option<ConnPermit>, limit: &Arc<ConnLimit>) -> bool {
    *permit = permit.take().or_else(|| limit.acquire(MAX_GATHERING));
    permit.is_some()
}
