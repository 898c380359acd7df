//! rpxy-l4: a layer-4 reverse proxy and protocol multiplexer.
//!
//! One public port serves several protocols; each is recognised from its first bytes and sent to its own backends.
//! This library is the daemon; the binary of the same name only parses arguments and calls [`supervise::run`].
//! ARCHITECTURE.md at the top of the repository has the map of the modules and the rules that hold between them.
#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod config;
#[cfg(test)]
mod docs;
pub mod ech;
pub mod limit;
pub mod log;
pub mod metrics;
pub mod net;
pub mod offload;
pub mod resolve;
pub mod route;
pub mod supervise;
pub mod tcp;
pub mod udp;
