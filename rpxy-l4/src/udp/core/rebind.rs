//! The backends of sessions under another configuration than the one that chose them.

use std::sync::Arc;

use super::{Flow, SessionId, Sessions, at, state::Stage};
use crate::{
    route::{Tried, UdpRoute},
    udp::affinity::Backend,
};

impl Sessions {
    /// The session that a flow has with that backend already.
    pub(super) fn session_with(&self, flow: &Flow, backend: &Backend) -> Option<SessionId> {
        self.table.find(flow, |state| state.leads_to(backend))
    }

    /// Binds a session to the configuration in effect; false when its rule or its target is gone.
    pub(super) fn rebind(&mut self, session: SessionId) -> bool {
        let Some(state) = self.table.get_mut(session) else { return false };
        let routes = &at(&self.sockets, &self.snapshot, &state.flow).routes;
        let (route, target) = match &mut state.stage {
            Stage::Undecided(_) => return true,
            Stage::Opening(opening) => {
                let target = opening.target.as_mut().map(|(target, _)| target);
                (&mut opening.route, target)
            }
            Stage::Open(reached) => (&mut reached.route, Some(&mut reached.target)),
        };
        let rule = route.rule.as_deref();
        let new = match target {
            Some(index) => {
                let Some(old) = route.group.endpoint(*index) else { return false };
                let found = routes.leading_to(rule, &old.target, route.private);
                found.map(|(new, found)| {
                    *index = found;
                    new
                })
            }
            None => routes.named(rule).filter(|_| !route.private),
        };
        let Some(new) = new.filter(|new| new.carries == route.carries) else { return false };
        *route = Arc::clone(new);
        // Their positions in the group may be others now.
        match &mut state.stage {
            Stage::Undecided(_) => {}
            Stage::Opening(opening) => opening.tried = Tried::default(),
            Stage::Open(reached) => reached.tried = None,
        }
        true
    }

    /// The rule and target of the listener of a flow that lead to that backend.
    pub(super) fn find_target(&self, flow: &Flow, backend: &Backend) -> Option<(Arc<UdpRoute>, usize)> {
        let (route, target) = self.at(flow).routes.leading_to(backend.rule.as_deref(), &backend.target, false)?;
        Some((Arc::clone(route), target))
    }
}
