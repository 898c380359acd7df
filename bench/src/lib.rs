//! Side-by-side measurement of TCP and UDP relays in one rig of network namespaces.
//!
//! Every candidate carries the same load between the same two ends, alternating in rounds so that whatever drifts on
//! the machine hits all alike. Processor time is that of the candidate's own processes. Where a candidate cannot be
//! measured, the report says so and the run fails at its end; no figure is made up.

pub mod arguments;
pub mod candidate;
pub mod configuration;
pub mod conntrack;
pub mod far;
pub mod flood;
pub mod handovers;
pub mod load;
pub mod offload;
pub mod processor;
pub mod procfs;
pub mod report;
pub mod rig;
pub mod scale;
pub mod session;
pub mod settings;
pub mod setup;
pub mod spliced;
pub mod start;
pub mod suite;
pub mod tcp;
pub mod test_run;
pub mod udp;
pub mod udp_load;
pub mod workload;
