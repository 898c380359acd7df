//! Errors of a socket that nobody reads.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{io::Interest, net::TcpStream};

/// Tells when a socket breaks. A relay that reads from a socket learns that from reading; one that does not, because
/// the stream has ended or its bytes find no room on the other side, has to ask for it.
#[derive(Default)]
pub(super) struct Watch<'a> {
    /// Made when it is first needed, which is rare, and kept.
    error: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

impl<'a> Watch<'a> {
    /// Ready once `socket`, always the same one, has broken.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, socket: &'a TcpStream) -> Poll<()> {
        let error = self.error.get_or_insert_with(|| {
            Box::pin(async move {
                // Failing means that the runtime ends.
                drop(socket.ready(Interest::ERROR).await);
            })
        });
        let broken = error.as_mut().poll(cx);
        if broken.is_ready() {
            self.error = None;
        }
        broken
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("made", &self.error.is_some()).finish()
    }
}
