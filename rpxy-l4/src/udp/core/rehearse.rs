//! What a worker that has no session makes of some first datagrams: the decision itself, on made-up ground.
//!
//! Whoever asks gives a listener of their own, whose targets nobody else knows, so that nothing that is asked here takes
//! anything from, or counts for, the traffic that there is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{Command, Flow, Output, Sessions, state::Stage};
use crate::{
    limit::Bans,
    log::Detail,
    metrics::{DatagramDrop, EchState},
    route::{Datagrams, UdpRoute},
    udp::{Listener, Snapshot, affinity::Affinity},
};

/// What became of the datagrams.
#[derive(Debug)]
pub(crate) enum Rehearsed {
    /// They begin a session.
    Session {
        /// The rule or default targets that it goes by.
        route: Arc<UdpRoute>,
        /// The only target that it can go to.
        fixed: Option<usize>,
        /// The client's address decides, whatever the rule's balancing is.
        by_source: bool,
        /// What was read of the hello.
        detail: Option<Box<Detail>>,
    },
    /// More datagrams are needed.
    Waits,
    /// They are answered with Version Negotiation.
    Negotiated,
    /// They are turned away.
    Refused {
        /// The reason.
        reason: DatagramDrop,
        /// What they were recognised as.
        carries: Datagrams,
        /// The state of the hello, at a rule with keys for Encrypted Client Hello.
        ech: Option<EchState>,
    },
}

impl Rehearsed {
    /// Gives `datagrams` of `client` to a worker with sockets of `listener` alone.
    pub(in crate::udp) fn new(
        snapshot: &Arc<Snapshot>,
        listener: &Arc<Listener>,
        affinity: Arc<Affinity>,
        client: SocketAddr,
        datagrams: &[Vec<u8>],
    ) -> Self {
        const NOW: Duration = Duration::from_secs(1);
        let mut sessions = Sessions::new(Arc::clone(snapshot), affinity, Arc::new(Bans::default()), 0);
        sessions.handle_listening(0, Arc::clone(listener));
        let flow = Flow { listener: 0, client, local: None };
        let mut out = Output::default();
        for datagram in datagrams {
            sessions.handle_datagrams(&flow, datagram, datagram.len(), 0, NOW, &mut out);
            if let Some(begun) = sessions.begun() {
                return begun;
            }
            if !out.refused.is_empty() {
                // What comes behind begins anew.
                break;
            }
        }
        if out.refused.is_empty() && sessions.table.iter().any(|(_, state)| state.is_undecided()) {
            return Self::Waits;
        }
        if out.commands.iter().any(|command| matches!(command, Command::Reply { .. })) {
            return Self::Negotiated;
        }
        let refused = out.refused.first().map(|refused| (refused.reason, refused.carries));
        let dropped = || out.dropped.first().map(|(reason, _)| (*reason, Datagrams::Any));
        let (reason, carries) = refused.or_else(dropped).unwrap_or((DatagramDrop::NotRecognised, Datagrams::Any));
        Self::Refused { reason, carries, ech: out.hellos.last().copied() }
    }
}

impl Sessions {
    /// The first session that has a route.
    fn begun(&self) -> Option<Rehearsed> {
        self.table.iter().find_map(|(_, state)| match &state.stage {
            Stage::Opening(opening) => Some(Rehearsed::Session {
                route: Arc::clone(&opening.route),
                fixed: opening.target.as_ref().filter(|_| opening.fixed).map(|(target, _)| *target),
                by_source: opening.by_source,
                detail: opening.detail.clone(),
            }),
            Stage::Undecided(_) | Stage::Open(_) => None,
        })
    }
}
