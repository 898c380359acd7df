//! Whether the kernel may take a session over, as far as can be told before there is one.

use std::net::IpAddr;

use crate::{
    offload::{self, NotSteered},
    route::Datagrams,
};

/// What speaks against steering by the addresses alone; routes and room are found out when a session is there.
pub(super) fn speaks_against(client: IpAddr, backend: IpAddr) -> Option<NotSteered> {
    let loopback = [client, backend].iter().any(|address| address.to_canonical().is_loopback());
    offload::by_addresses(&[client, backend]).or(loopback.then_some(NotSteered::Loopback))
}

pub(super) fn words(reason: NotSteered) -> &'static str {
    match reason {
        NotSteered::Family => "of another family than the client (family)",
        NotSteered::Loopback => "client or backend is on this machine (loopback)",
        NotSteered::Address => "link-local, or not of one host (address)",
        NotSteered::Off | NotSteered::NoRoute | NotSteered::Full | NotSteered::Interface | NotSteered::Failed => {
            reason.name()
        }
    }
}

pub(super) fn steered(carries: Datagrams) -> &'static str {
    match carries {
        Datagrams::Any => {
            "the kernel takes over after the backend's first answer, if routes lead there and its table has room"
        }
        Datagrams::Quic => {
            "the kernel takes over short headers after the backend's first answer, if routes lead there and its table has \
             room; handshakes stay with the daemon"
        }
        Datagrams::WireGuard => {
            "the kernel takes over transport messages after the backend's first answer, if routes lead there and its table \
             has room; handshakes stay with the daemon"
        }
    }
}
