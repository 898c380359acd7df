//! The XDP and TC programs of rpxy-l4: the kernel plane.
//!
//! The crate sees `rpxy-l4-common` and nothing else of the workspace: whatever kernel and daemon must agree on is
//! written once, there, and tested on the host. What is left is here in two parts. This library says which writes carry
//! out a decision; it compiles for the host as well, so that the lints and tests of the workspace cover it. The program
//! beside it (`main.rs`) is for the kernel alone: entry points, maps, packet access.
#![no_std]

pub mod write;
