//! Servers behind the proxy, and helpers around the client programs.

pub mod dns;
pub mod programs;
pub mod server;
pub mod socks5;
