//! The XDP and TC programs of rpxy-l4: the kernel's half of the UDP plane.
//!
//! There is no program in here yet, so the daemon relays every datagram in userspace. The crate fixes the direction of
//! dependencies: it sees `rpxy-l4-common` and nothing else of the workspace, so that whatever kernel and daemon must
//! agree on is written once, there, and tested on the host. It stays `no_std` and free of an allocator, as the kernel
//! demands, and compiles for the host, so that the lints of the workspace cover it without the eBPF toolchain.
#![no_std]

/// What the programs and the daemon agree on.
pub use rpxy_l4_common as common;
