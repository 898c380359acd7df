//! Connection IDs that tell their server in clear, in the plaintext form of QUIC-LB.

use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};

/// A first byte with configuration 0 in its three highest bits, the server, a nonce.
const LENGTH: usize = 1 + 8 + 8;

/// An endpoint whose connection IDs tell `server`, as `quic_server_id` wants them.
pub fn telling(server: [u8; 8]) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(move || Box::new(TellingIds { server, count: 0 }));
    config
}

/// Generator of a server's IDs.
#[derive(Debug)]
struct TellingIds {
    server: [u8; 8],
    count: u64,
}

impl ConnectionIdGenerator for TellingIds {
    fn generate_cid(&mut self) -> ConnectionId {
        // Not to be guessed is what real ones are for; tests have nobody who guesses. The finaliser of splitmix64.
        self.count += 1;
        let mut word = self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [first, ..] = word.to_be_bytes();
        ConnectionId::new(&[&[first & 0b0001_1111], self.server.as_slice(), &word.to_be_bytes()].concat())
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
