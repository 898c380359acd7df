//! Test kit: hosts, processes, peers and the daemon under test, for the end-to-end tests and the benchmarks.
//!
//! Everything runs as a user would run it: real programs, real sockets, in network namespaces. The kit errs towards
//! failing loudly: what it starts must come up, and what it leaves behind is removed also after a panic.

pub mod admin;
pub mod background;
mod binary;
pub mod checksum;
pub mod daemon;
pub mod flow;
pub mod hello;
mod host;
pub mod initial;
pub mod nat;
pub mod offload_mode;
pub mod owned;
pub mod peers;
pub mod privilege;
pub mod process;
pub mod processor;
pub mod random;
pub mod socket;
pub mod terminal;
pub mod topology;
pub mod wait;
mod waiting;
mod watchdog;
pub mod wire;

#[cfg(test)]
mod tests;

use std::fmt::{Debug, Display};

/// Ends the calling test, at the caller's line, when something that it relies on fails.
pub trait OrFail<T> {
    /// The value, or a panic that says `what` failed and why.
    fn or_fail(self, what: impl Display) -> T;
}

impl<T, E: Debug> OrFail<T> for Result<T, E> {
    #[track_caller]
    fn or_fail(self, what: impl Display) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
}

impl<T> OrFail<T> for Option<T> {
    #[track_caller]
    fn or_fail(self, what: impl Display) -> T {
        match self {
            Some(value) => value,
            None => panic!("{what}: missing"),
        }
    }
}
