//! Datagrams that only unit tests send, beside those of the property tests.

pub(super) use crate::udp::core::packets::*;

pub(super) const HANDSHAKE: u8 = 2;
pub(super) const RETRY: u8 = 3;
pub(super) const SERVER_INITIAL: u8 = 0;
pub(super) const ZERO_RTT: u8 = 1;

/// A client's later Initial, with an acknowledgement: to the ID that the server chose, under the keys of the first one.
pub(super) fn later_initial(client: &[u8], server: &[u8], first: &[u8]) -> Vec<u8> {
    Sender { to: server, number: 7, ..Sender::new(client, first) }.initial(vec![2, 0, 0, 0, 0])
}

/// One datagram with a whole hello, after a Retry: the server has chosen `server` and `token`.
pub(super) fn with_token(client: &[u8], server: &[u8], name: &str, token: &[u8]) -> Vec<u8> {
    let stream = hello(name, "h3", 300);
    Sender { token, ..Sender::new(client, server) }.crypto(&stream, &[(0, stream.len())])
}
