//! Load generator, backend and reference relay for the benchmarks.
//!
//! Both ends are one epoll thread over non-blocking sockets and do as little as they can, so that what lies between
//! them is the bottleneck: the backend streams a file with sendfile(2), the client discards bulk data in the kernel,
//! and a window of datagrams is handed over in one system call where the workload says so.
//! They run as processes of their own, so that the proxy's processor time can be told from theirs. They err towards
//! failing: a broken or stalled connection ends a run instead of flattering or spoiling a figure unseen.

use std::time::Duration;

pub mod barest;
pub mod connect;
pub mod download;
pub mod fetch;
pub mod idle;
pub mod ping;
mod poller;
pub mod sample;
pub mod serve;
pub mod splice;
pub mod udp_client;
pub mod udp_flood;
pub mod udp_flows;
pub mod udp_new;
pub mod udp_serve;
mod udp_socket;
mod udp_tag;
mod udp_turns;
pub mod udp_windows;
pub mod upload;

/// Message of a client and of the echo: 64 bytes that are a complete HTTP/1.1 request head, so that proxies
/// which route by content can carry the same load as those which do not.
pub const MESSAGE: &[u8; 64] = b"GET / HTTP/1.1\r\nHost: bench.example\r\nX-Pad: 0123456789abcdef\r\n\r\n";

/// Bytes of the datagrams of all UDP workloads but the windows.
pub const DATAGRAM: usize = 100;

/// A run in which nothing at all happens for this long is given up as failed.
pub const STALL: Duration = Duration::from_secs(5);

/// A client that speaks alone waits for so long after its first message, so that who looks at it first is done.
pub const SETTLE: Duration = Duration::from_millis(50);

/// A client sends load for this long before it counts.
pub const WARM_UP: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests;
#[cfg(test)]
mod udp_tests;
