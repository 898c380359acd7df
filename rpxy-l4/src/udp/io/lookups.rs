//! Lookups of targets for sessions, on the control runtime.

use tokio::runtime::Handle;

use crate::{
    resolve::Lookup,
    udp::{
        core::SessionId,
        mailbox::{Control, Mailbox},
    },
};

/// The runtime that waits for names, and the worker that waits for their answers.
#[derive(Debug)]
pub(super) struct Lookups {
    runtime: Handle,
    answers: Mailbox,
}

impl Lookups {
    pub(super) fn new(runtime: Handle, answers: Mailbox) -> Self {
        Self { runtime, answers }
    }

    /// The mailbox of the worker itself.
    pub(super) fn own_mailbox(&self) -> Mailbox {
        self.answers.clone()
    }

    /// Waits for what `lookup` finds; [`Control::Resolved`] follows.
    pub(super) fn begin(&self, session: SessionId, lookup: Lookup) {
        let answers = self.answers.clone();
        self.runtime.spawn(async move {
            drop(lookup.first().await);
            answers.send(Control::Resolved(session));
        });
    }
}
