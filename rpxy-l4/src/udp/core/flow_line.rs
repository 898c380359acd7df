//! One line about each session, for an operator.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use super::{SessionId, Sessions, evidence::Rank, state::Stage};
use crate::{net::udp::Local, route::Selection};

/// One session as `rpxy-l4 flows` shows it. Made by the worker, written out elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FlowLine {
    /// The session.
    #[serde(skip)]
    pub session: SessionId,
    /// The client.
    pub client: SocketAddr,
    /// The address that the client used, where the listening socket has several.
    #[serde(serialize_with = "address")]
    pub local: Option<Local>,
    /// The address that is listened on; filled in by the worker.
    pub listener: Option<SocketAddr>,
    /// The listener's name; none if a reload has just removed it.
    pub listener_name: Option<Arc<str>>,
    /// The target as the file writes it; none while it is being looked for.
    pub target: Option<Arc<str>>,
    /// The backend; none while it is being looked for.
    pub backend: Option<SocketAddr>,
    /// The stage: `undecided`, `opening` or `open`.
    pub stage: &'static str,
    /// The protocol, as in the access log.
    pub carries: &'static str,
    /// The rule; none for the default targets and while undecided.
    pub rule: Option<Arc<str>>,
    /// Since its first datagram.
    #[serde(rename = "age_ms", serialize_with = "milliseconds")]
    pub age: Duration,
    /// Since its last datagram in either direction.
    #[serde(rename = "idle_ms", serialize_with = "milliseconds")]
    pub idle: Duration,
    /// Payload bytes from the client.
    pub bytes_up: u64,
    /// Payload bytes from the backend.
    pub bytes_down: u64,
    /// The backend has answered.
    pub answered: bool,
    /// The client has sent an ID that only its server can have told it, so that its address is not forged.
    pub confirmed: bool,
    /// The plane that forwards it: `userspace` or `kernel`.
    pub plane: &'static str,
    /// The reason why it is not the kernel, or not for all.
    pub reason: Option<&'static str>,
}

impl Sessions {
    /// Payload bytes of a session that passed through the daemon, up and down.
    #[must_use]
    pub(crate) fn bytes(&self, session: SessionId) -> Option<(u64, u64)> {
        self.table.get(session).map(|state| (state.bytes_up, state.bytes_down))
    }

    /// Lines about `limit` sessions at most, of those that are selected, each with the number of its listening socket.
    pub(crate) fn flow_lines(
        &self,
        limit: usize,
        selection: &Selection,
        now: Duration,
    ) -> impl Iterator<Item = (u32, FlowLine)> {
        let selected = self.table.iter().filter(move |(_, state)| {
            let rule = state.route().and_then(|route| route.rule.as_deref());
            selection.includes(Some(state.flow.client.ip()), rule, state.target().map(|target| &**target))
        });
        selected.take(limit).map(move |(session, state)| {
            let (stage, backend) = match &state.stage {
                Stage::Undecided(_) => ("undecided", None),
                Stage::Opening(opening) => ("opening", opening.address),
                Stage::Open(reached) => ("open", Some(reached.address)),
            };
            let line = FlowLine {
                session,
                client: state.flow.client,
                local: state.flow.local,
                listener: None,
                listener_name: Some(&self.at(&state.flow).name).filter(|name| !name.is_empty()).cloned(),
                target: state.target().cloned(),
                backend,
                stage,
                carries: state.carries().name(),
                rule: state.route().and_then(|route| route.rule.clone()),
                age: now.saturating_sub(state.born),
                idle: now.saturating_sub(state.last_seen),
                bytes_up: state.bytes_up,
                bytes_down: state.bytes_down,
                answered: state.evidence.is_answered(),
                confirmed: state.rank() == Rank::Secret,
                plane: "userspace",
                reason: None,
            };
            (state.flow.listener, line)
        })
    }
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[expect(clippy::ref_option, reason = "the form that serde asks for")]
fn address<S: Serializer>(local: &Option<Local>, serializer: S) -> Result<S::Ok, S::Error> {
    local.map(|local| local.address).serialize(serializer)
}
