//! Sessions inherited from an earlier daemon, which left them to the kernel: rebuilt from the entries of their flows.
//!
//! Their backend knows them by the port that they had, so that they get that one or none. What is not known any more:
//! when they began, what they have counted, the server name, connection IDs and indices but the one that the client
//! used last. It errs towards not inheriting: then the flow ends, and its client begins anew.

use std::{net::SocketAddr, time::Duration};

use rpxy_l4_proto::quic::ConnectionId;

use super::{
    Command, Flow, Output, SessionId, Sessions,
    held::Held,
    ids::{Ids, Indices, QuicIds},
    open::Admitted,
    state::{Opening, Stage},
};
use crate::{
    metrics::{DatagramDrop, SessionEnd},
    route::{Busy, Datagrams, Tried},
    udp::affinity::Key,
};

/// A session of an earlier daemon, as the entries of its flow tell it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    /// The client's end.
    pub flow: Flow,
    /// The backend.
    pub backend: SocketAddr,
    /// Its rule (`UdpRoute::mark`).
    pub mark: u16,
    /// The connection ID that the client used last.
    pub cid: Option<ConnectionId>,
}

impl Sessions {
    /// Makes room for a session that is to be opened towards its backend from the port that it had; then
    /// [`Sessions::handle_inherited`] or [`Sessions::handle_not_inherited`] follows. `None` when the configuration gives it
    /// no place any more.
    pub(crate) fn inherit(&mut self, inherited: &Inherited, now: Duration, out: &mut Output) -> Option<SessionId> {
        let Inherited { flow, backend, mark, cid } = inherited;
        if self.knows(flow) || self.refuses(flow).is_some() {
            return None;
        }
        let (route, target) = self.at(flow).routes.marked(*mark, *backend)?;
        let ids = match route.carries {
            Datagrams::Any => Ids::None,
            Datagrams::WireGuard => {
                let index = cid.and_then(|cid| Some(u32::from_le_bytes(cid.as_bytes().try_into().ok()?)));
                Ids::WireGuard(index.map(Indices::known).unwrap_or_default())
            }
            Datagrams::Quic => {
                let ids = match cid {
                    Some(cid) => QuicIds::known(None, Key::Used(*cid)),
                    None => QuicIds::new(None, ConnectionId::default()),
                };
                Ids::Quic(Box::new(ids))
            }
        };
        let busy = Busy::new(&route.group.endpoint(target)?.health);
        let of = self.at(flow).sessions.of.clone();
        let of_rule = route.connections.acquire(u32::MAX)?;
        let admitted = Admitted { permit: self.admissions.of(&of)?.acquire()?, of, of_rule };
        let opening = Opening {
            route,
            held: Held::new(&self.opening_budget),
            tried: Tried::default(),
            target: Some((target, busy)),
            candidates: Vec::new(),
            address: Some(*backend),
            fixed: true,
            by_source: false,
            detail: None,
        };
        let stage = Stage::Opening(Box::new(opening));
        Some(self.insert(admitted.session(*flow, ids, stage, now), now, out))
    }

    /// The session has its port.
    pub(crate) fn handle_inherited(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        self.handle_opened(session, now, out);
        let Some(state) = self.table.get_mut(session) else { return };
        // Its flow would not have been there otherwise.
        state.evidence.answered(now);
        state.evidence.was_inherited();
        state.steered = true;
        self.identity.remember_inherited(state, now);
        let cid = state.ids.current();
        out.commands.push_back(Command::InstallFlow { session, cid });
    }

    /// It does not: somebody else has it now.
    pub(crate) fn handle_not_inherited(&mut self, session: SessionId, now: Duration, out: &mut Output) {
        self.end(session, SessionEnd::Refused, DatagramDrop::NoPort, now, out);
    }
}
