//! Forwarding of established UDP flows in the kernel.
//!
//! The daemon decides; the programs of `rpxy-l4-ebpf` repeat the decision for every further datagram. When in doubt a
//! flow stays in userspace, and [`NotSteered`] says why. Only this module names aya.
//!
//! Dependencies between the submodules point one way, from top to bottom:
//!
//! | module | owns |
//! |---|---|
//! | `doctor` | the report of `rpxy-l4 doctor` |
//! | `kernel` | the running kernel plane: its state, and the thread that follows the network |
//! | `loader` | loading, attaching, pinning and inheriting the programs |
//! | `routes` | next hops and the flows that use them, kept current over rtnetlink |
//! | `maps` | the BPF maps and the encoding of their entries |
//! | `policy` | which datagrams a configuration lets the programs drop |
//! | `api` | what the rest of the daemon sees, with or without a kernel plane |
//! | `splice` | the same for spliced TCP |

mod api;
mod doctor;
mod kernel;
mod loader;
mod maps;
mod policy;
mod routes;
mod splice;

pub(crate) use api::{Installed, NotSteered, Off, Offload, Steered, Usage};
pub(crate) use doctor::doctor;
pub(crate) use kernel::{Kernel, by_addresses};
pub(crate) use loader::{Pinned, is_older_than, prepare_pins, unpin, warn_of_unowned};
pub(crate) use policy::{Guards, drops};
pub(crate) use routes::Netlink;
#[expect(unused_imports, reason = "the hand-over is being built on it")]
pub(crate) use splice::{
    Ending, Event, LegNumbers, NotSpliced, Pair, Place, Probe, Reservation, Side, Silence, Splice, SplicedUsage,
    SynShape, Tell, differences, sides,
};
