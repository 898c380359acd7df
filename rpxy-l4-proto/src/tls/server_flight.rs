//! The first message of a TLS server: whether it took the hello or wants another one.

use super::record::record_length;
use crate::Probe;

/// Handshake type `server_hello` (RFC 8446 section 4). A HelloRetryRequest has it, too.
const SERVER_HELLO: u8 = 2;
/// Offset of `random` in the message: behind type, length and version.
const RANDOM_AT: usize = 4 + 2;
/// As much of the message as has to be seen.
const SEEN: usize = RANDOM_AT + 32;

/// The `random` of a HelloRetryRequest: the SHA-256 of "HelloRetryRequest" (RFC 8446 section 4.1.3).
const HELLO_RETRY_REQUEST: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// The first message of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerFlight {
    /// The handshake goes on.
    ServerHello,
    /// The client is asked for a second hello.
    HelloRetryRequest,
}

/// Reads the start of a server's stream as it arrives. Keeps at most 43 bytes.
#[derive(Debug, Default)]
pub struct ServerFlightProbe {
    /// Bytes of the current record header.
    header: Vec<u8>,
    fragment_left: usize,
    message: Vec<u8>,
}

impl ServerFlightProbe {
    /// Goes on with the next `bytes` of the stream. [`Probe::NotThis`] is an alert, or no TLS.
    pub fn advance(&mut self, bytes: &[u8]) -> Probe<ServerFlight> {
        for byte in bytes {
            if self.fragment_left == 0 {
                self.header.push(*byte);
                match record_length(&self.header) {
                    Probe::Match(length) => {
                        self.fragment_left = usize::from(length);
                        self.header.clear();
                    }
                    Probe::NotThis | Probe::Unreadable => return Probe::NotThis,
                    Probe::NeedMore => {}
                }
                continue;
            }
            self.fragment_left = self.fragment_left.saturating_sub(1);
            self.message.push(*byte);
            if self.message.first() != Some(&SERVER_HELLO) {
                return Probe::NotThis;
            }
            if self.message.len() == SEEN {
                let random = self.message.get(RANDOM_AT..);
                let again = random == Some(&HELLO_RETRY_REQUEST);
                return Probe::Match(if again { ServerFlight::HelloRetryRequest } else { ServerFlight::ServerHello });
            }
        }
        Probe::NeedMore
    }
}
