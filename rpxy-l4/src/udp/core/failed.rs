//! A backend that cannot be reached: evidence against its target, and the choice of the next one.

use std::{sync::Arc, time::Duration};

use super::{
    Command, Notice, OpenError, Output, SessionId, Sessions,
    held::Held,
    state::{Opening, Session, Stage},
};
use crate::{
    metrics::{DatagramDrop, SessionEnd},
    route::Busy,
};

impl Sessions {
    /// The socket of a session could not be connected to the address asked for.
    pub(crate) fn handle_open_failed(&mut self, session: SessionId, error: OpenError, now: Duration, out: &mut Output) {
        let retry = self.snapshot.settings.target_retry;
        let Some(state) = self.table.get_mut(session) else { return };
        let Stage::Opening(opening) = &mut state.stage else { return };
        let endpoint = opening.target.as_ref().and_then(|(target, _)| opening.route.group.endpoint(*target));
        let reason = match error {
            OpenError::Unreachable(error) => {
                if opening.candidates.is_empty()
                    && let Some(endpoint) = endpoint
                    && endpoint.health.failed(now, retry)
                {
                    out.commands.push_back(Command::Log(Notice::Down(format!(
                        "{} cannot be reached: {error}; tried last for {retry:?}",
                        endpoint.target
                    ))));
                }
                self.try_next(session, now, out);
                return;
            }
            OpenError::NoPort(error) => {
                let target = endpoint.map(|endpoint| endpoint.target.to_string()).unwrap_or_default();
                out.commands.push_back(Command::Log(Notice::NoPort { what: format!("{target} from: {error}") }));
                DatagramDrop::NoPort
            }
            OpenError::Shortage(error) => {
                out.commands.push_back(Command::Log(Notice::Shortage(error)));
                DatagramDrop::Shortage
            }
        };
        // What is short here says nothing of the target.
        if let Some(endpoint) = endpoint {
            endpoint.health.unclaim(now);
        }
        self.end(session, SessionEnd::Refused, reason, now, out);
    }

    /// An ICMP message or the kernel said that a session's backend cannot be reached. It is evidence against a target that
    /// has not answered this client: the session moves to the next one, if there is one. Otherwise it goes on.
    pub(crate) fn handle_refused(
        &mut self,
        session: SessionId,
        error: &std::io::Error,
        now: Duration,
        out: &mut Output,
    ) {
        let retry = self.snapshot.settings.target_retry;
        let random = self.random();
        let Some(state) = self.table.get_mut(session) else { return };
        if state.evidence.is_answered() {
            return;
        }
        let flow = state.flow;
        let Stage::Open(reached) = &mut state.stage else { return };
        let group = &reached.route.group;
        let Some(endpoint) = group.endpoint(reached.target) else { return };
        if endpoint.health.failed(now, retry) {
            let text = format!("{} cannot be reached: {error}; tried last for {retry:?}", endpoint.target);
            out.commands.push_back(Command::Log(Notice::Down(text)));
        }
        if reached.fixed {
            return;
        }
        let mut tried = reached.tried.take().map(|tried| *tried).unwrap_or_default();
        tried.add(reached.target);
        let Some(next) = group.pick(flow.client, random, now, &tried) else {
            reached.tried = Some(Box::new(tried));
            return;
        };
        let busy = group.endpoint(next).map(|endpoint| Busy::new(&endpoint.health));
        let route = Arc::clone(&reached.route);
        let detail = reached.detail.take();
        let permit = state.permit.take();
        let ids = std::mem::take(&mut state.ids);
        self.end(session, SessionEnd::Refused, DatagramDrop::Unreachable, now, out);
        let opening = Opening {
            route,
            held: Held::new(&self.opening_budget),
            tried,
            target: busy.map(|busy| (next, busy)),
            candidates: Vec::new(),
            address: None,
            fixed: false,
            by_source: false,
            detail,
        };
        let state = Session { permit, ..Session::new(flow, ids, Stage::Opening(Box::new(opening)), now) };
        let session = self.insert(state, now, out);
        self.use_target(session, false, now, out);
    }
}
