//! What is a packet, what opens, and what the datagrams of a flow add up to.

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
