//! Types and decisions shared by the daemon of rpxy-l4 and its eBPF programs.
//!
//! Compiled for the kernel and for the host: no std, no allocator, no panic, no unsafe code.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

pub mod bucket;
pub mod bytes;
#[macro_use]
mod counters;
pub mod datagram;
pub mod decide;
pub mod mac1;
pub mod map;
#[macro_use]
pub mod packet;
#[cfg(any(test, feature = "properties"))]
#[doc(hidden)]
pub mod properties;
pub mod rewrite;
mod seal;
pub mod tcp;
pub mod verdict;

#[cfg(test)]
mod testing;

#[cfg(test)]
extern crate std;
