//! What rpxy-l4's daemon and its eBPF programs agree on, so that one definition serves both.
//!
//! Compiled for the kernel and for the host: no std, no allocator, no panic, no unsafe code.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

pub mod datagram;
pub mod map;
#[cfg(any(test, feature = "properties"))]
#[doc(hidden)]
pub mod properties;

#[cfg(test)]
extern crate std;
