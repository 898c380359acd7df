//! Packets, their protection, and the hellos of flows.

mod captures;
mod crypto_stream;
mod frames;
mod packets;
mod probe;
mod protection;
mod rewrite;

use super::*;
use crate::testing::{
    hex,
    quic::{CHROMIUM, Initial, crypto, crypto_of, varint},
};

fn id(text: &str) -> ConnectionId {
    ConnectionId::new(&hex(text)).unwrap()
}
