//! Handing relayed connections over to the kernel plane, and what becomes of them there.
//!
//! The relay says when the moment has come; what follows is asked for by the connection's task, carried out by the thread
//! `splicer`, and undone where a condition is not met. While the connection is spliced its task waits for the end, and
//! costs nothing. Errs towards relaying.
//!
//! Dependencies between the submodules point one way, from top to bottom:
//!
//! | module | owns |
//! |---|---|
//! | `policy` | which connections are handed over, and when |
//! | `spliced` | a connection in the kernel plane, until its end |
//! | `splicer` | the thread that carries hand-overs out, and who waits for which end |
//! | `hand_over` | the steps of one hand-over and its conditions, without IO |

mod hand_over;
mod policy;
mod spliced;
mod splicer;

pub(super) use policy::{Attempts, Handed, acknowledge_at_once, foretell, hold_acknowledgements};
pub(crate) use splicer::Splicer;
