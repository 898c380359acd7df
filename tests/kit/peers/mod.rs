//! Servers behind the proxy, and helpers around the client programs.

pub mod browser;
pub mod dns;
pub mod dnsmasq;
pub mod ecn;
pub mod postgres;
pub mod programs;
pub mod quic;
pub mod server;
pub mod socks5;
pub mod udp;
pub mod wireguard;
