//! The backend of a session: as the affinity table knows it, and under another configuration.

use std::sync::Arc;

use super::{
    Flow, SessionId, Sessions,
    state::{Session, Stage},
};
use crate::{
    route::{Tried, UdpRoute},
    udp::affinity::Backend,
};

impl Sessions {
    /// What the affinity table shall know of a session's backend; the same value for all its IDs.
    pub(super) fn backend(&mut self, session: SessionId) -> Option<Arc<Backend>> {
        let Stage::Open(reached) = &mut self.get_mut(session)?.stage else { return None };
        if reached.backend.is_none() {
            let target = reached.route.group.endpoint(reached.target)?.target.clone();
            let rule = reached.route.rule.clone();
            reached.backend = Some(Arc::new(Backend { rule, target, address: reached.address }));
        }
        reached.backend.clone()
    }

    /// The session that a flow has with that backend already.
    pub(super) fn session_with(&self, flow: &Flow, backend: &Backend) -> Option<SessionId> {
        let same = |id: &SessionId| {
            let reached = self.get(*id).and_then(Session::reached);
            reached.is_some_and(|reached| reached.address == backend.address && reached.route.rule == backend.rule)
        };
        self.flows.get(flow)?.all().find(same)
    }

    /// Binds a session to the configuration in effect; false when its rule or its target is gone.
    pub(super) fn adopt(&mut self, session: SessionId) -> bool {
        let Some(state) = self.slab.get_mut(super::place(session)) else { return false };
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
                let found = self.snapshot.routes.leading_to(rule, &old.target, route.private);
                found.map(|(new, found)| {
                    *index = found;
                    new
                })
            }
            None => self.snapshot.routes.named(rule).filter(|_| !route.private),
        };
        let Some(new) = new.filter(|new| new.carries == route.carries) else { return false };
        *route = Arc::clone(new);
        // Their places in the group may be others now.
        match &mut state.stage {
            Stage::Undecided(_) => {}
            Stage::Opening(opening) => opening.tried = Tried::default(),
            Stage::Open(reached) => reached.tried = None,
        }
        true
    }

    pub(super) fn find_target(&self, backend: &Backend) -> Option<(Arc<UdpRoute>, usize)> {
        let (route, target) = self.snapshot.routes.leading_to(backend.rule.as_deref(), &backend.target, false)?;
        Some((Arc::clone(route), target))
    }
}
