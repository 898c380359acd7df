//! Failures of a half of a relay.

use std::io;

/// The socket that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The source was cut off.
    Source,
    /// The sink takes no more, but its side of the stream is intact: it had sent its end before (EPIPE).
    SinkClosed,
    /// The sink was cut off. The kernel tells that only once, so reading from it may look like an orderly end.
    SinkReset,
}

impl Broken {
    /// The meaning of a failed write.
    pub(super) fn sink(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::SinkClosed } else { Self::SinkReset }
    }
}
