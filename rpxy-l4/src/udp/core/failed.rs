//! A socket that cannot be had: evidence against the target, or want of something here.

use std::time::Duration;

use super::{Command, Notice, OpenError, Output, SessionId, Sessions, state::Stage};
use crate::metrics::{DatagramDrop, SessionEnd};

impl Sessions {
    /// The socket of a session could not be connected to the address asked for.
    pub(crate) fn handle_open_failed(&mut self, session: SessionId, error: OpenError, now: Duration, out: &mut Output) {
        let retry = self.retry_of(session);
        let Some(state) = self.table.get_mut(session) else { return };
        let Stage::Opening(opening) = &mut state.stage else { return };
        let endpoint = opening.target.as_ref().and_then(|(target, _)| opening.route.group.endpoint(*target));
        let reason = match error {
            OpenError::Unreachable(error) => {
                if let Some(endpoint) = endpoint {
                    endpoint.account.connect_failed();
                    if let Some(address) = opening.address {
                        endpoint.missed(address, now, retry);
                    }
                }
                if opening.candidates.is_empty()
                    && let Some(endpoint) = endpoint
                {
                    endpoint.health.failed_because(&error);
                    if endpoint.failed(now, retry) {
                        let text = format!("{} cannot be reached: {error}; tried last for {retry:?}", endpoint.target);
                        out.commands.push_back(Command::Log(Notice::Down(text)));
                    }
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
}
