//! What the poller's tokens stand for.

use crate::udp::core::SessionId;

/// A socket of a worker.
pub(super) enum Token {
    Listener(u32),
    Session(SessionId),
}

/// Marks tokens of listeners; no session's index gets that far.
const LISTENER: u64 = 1 << 63;

impl Token {
    pub(super) fn listener(number: u32) -> u64 {
        LISTENER | u64::from(number)
    }

    pub(super) fn session(session: SessionId) -> u64 {
        u64::from(session.index) << 32 | u64::from(session.generation)
    }

    pub(super) fn from_value(value: u64) -> Self {
        let [high, low] =
            [value >> 32, value & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        if value & LISTENER != 0 {
            Self::Listener(low)
        } else {
            Self::Session(SessionId { index: high, generation: low })
        }
    }
}
