//! Lookups of names for sessions, on the control runtime.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::{
    resolve::Name,
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

    /// Has `name` looked up; [`Control::Resolved`] follows.
    pub(super) fn begin(&self, session: SessionId, name: Arc<Name>) {
        let answers = self.answers.clone();
        self.runtime.spawn(async move {
            drop(name.addresses().await);
            answers.send(Control::Resolved(session));
        });
    }
}
