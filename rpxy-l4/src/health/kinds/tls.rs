//! A ClientHello that servers of TLS 1.2 and 1.3 take, and the ServerHello that answers it (RFC 8446 section 4.1).
//!
//! The handshake ends there: it shows that the server speaks TLS and has something to serve the name with. No key is
//! agreed on, so none has to be secret.

use rpxy_l4_proto::tls::{Offer, client_hello, handshake_records};

use super::Judgement;
use crate::route::Random;

/// TLS 1.2 as both sides state it whatever they speak (RFC 8446 section 4.1.2).
const LEGACY_VERSION: [u8; 2] = [3, 3];
/// The longest message that is read, in bytes; a ServerHello with a hybrid key share has some 1,200.
const MOST: usize = 4096;

/// A ClientHello for `name`, and the answer to it.
pub(super) fn question(name: Option<&str>, random: &Random) -> (Vec<u8>, ServerHello) {
    /// In front of the first hello some servers want TLS 1.0 (RFC 8446 section 5.1).
    const RECORD_VERSION: u8 = 1;
    let session = bytes(random);
    let offer = Offer {
        server_name: name,
        alpn: &[],
        random: bytes(random),
        session_id: &session,
        key_share: bytes(random),
        transport_parameters: None,
    };
    // A name of the configuration is short enough.
    let message = client_hello(&offer).unwrap_or_default();
    (handshake_records(&message, RECORD_VERSION), ServerHello { session, record: Vec::new(), message: Vec::new() })
}

/// 32 bytes that differ each time.
fn bytes(random: &Random) -> [u8; 32] {
    let mut bytes = [0; 32];
    for part in bytes.chunks_exact_mut(8) {
        part.copy_from_slice(&random.next().to_be_bytes());
    }
    bytes
}

/// Reads the answer as it arrives.
#[derive(Debug)]
pub(super) struct ServerHello {
    session: [u8; 32],
    /// The record that is not complete yet.
    record: Vec<u8>,
    /// The message, out of its records.
    message: Vec<u8>,
}

impl ServerHello {
    /// Passes for a ServerHello, or a HelloRetryRequest, which is one in form, that chooses what was offered.
    pub(super) fn arrived(&mut self, bytes: &[u8]) -> Judgement {
        const ALERT: u8 = 21;
        const HANDSHAKE: u8 = 22;
        for byte in bytes {
            self.record.push(*byte);
            let (content_type, fragment) = match self.record.as_slice() {
                [ALERT | HANDSHAKE]
                | [ALERT | HANDSHAKE, 3]
                | [ALERT | HANDSHAKE, 3, _]
                | [ALERT | HANDSHAKE, 3, _, _] => {
                    continue;
                }
                [content_type @ (ALERT | HANDSHAKE), 3, _, high, low, fragment @ ..] => {
                    let length = usize::from(u16::from_be_bytes([*high, *low]));
                    if length == 0 || length > 1 << 14 {
                        return failed("a record of no valid length");
                    }
                    if fragment.len() < length {
                        continue;
                    }
                    (*content_type, fragment)
                }
                _ => return failed("the answer is not TLS"),
            };
            if content_type == ALERT {
                return match fragment {
                    [_, description] => Judgement::Failed(format!("alert {description}{}", meaning(*description))),
                    _ => failed("an alert of no valid length"),
                };
            }
            self.message.extend(fragment);
            self.record.clear();
            match self.judge() {
                Judgement::NeedMore if self.message.len() <= MOST => {}
                Judgement::NeedMore => return failed("a hello of no valid length"),
                judgement @ (Judgement::Passed | Judgement::Failed(_)) => return judgement,
            }
        }
        Judgement::NeedMore
    }

    fn judge(&self) -> Judgement {
        const SERVER_HELLO: u8 = 2;
        match self.message.as_slice() {
            [] | [SERVER_HELLO] | [SERVER_HELLO, _] | [SERVER_HELLO, _, _] => Judgement::NeedMore,
            [SERVER_HELLO, high, middle, low, body @ ..] => {
                let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
                match body.get(..length) {
                    Some(body) if self.is_ours(body) => Judgement::Passed,
                    Some(_) => failed("a ServerHello that chooses what was not offered"),
                    None if length > MOST => failed("a hello of no valid length"),
                    None => Judgement::NeedMore,
                }
            }
            _ => failed("the answer is not a ServerHello"),
        }
    }

    /// Returns whether the body of a ServerHello answers ours (RFC 8446 section 4.1.3, RFC 5246 section 7.4.1.3).
    fn is_ours(&self, body: &[u8]) -> bool {
        const RANDOM: usize = 32;
        let read = || {
            let (version, rest) = body.split_first_chunk::<2>()?;
            let (session_length, rest) = rest.get(RANDOM..)?.split_first()?;
            let (session, rest) = rest.split_at_checked(usize::from(*session_length))?;
            let ([high, low, compression], extensions) = rest.split_first_chunk::<3>()?;
            let whole = match extensions {
                [] => true,
                [high, low, content @ ..] => content.len() == usize::from(u16::from_be_bytes([*high, *low])),
                [_] => false,
            };
            let suite = u16::from_be_bytes([*high, *low]);
            let is_1_3 = suite >> 8 == 0x13;
            Some(
                *version == LEGACY_VERSION
                    && Offer::has_suite(suite)
                    && *compression == 0
                    && whole
                    && session.len() <= 32
                    && (!is_1_3 || session == self.session),
            )
        };
        read().unwrap_or(false)
    }
}

fn failed(what: &str) -> Judgement {
    Judgement::Failed(what.to_owned())
}

/// The alerts that a server may have for a hello (RFC 8446 section 6).
fn meaning(description: u8) -> &'static str {
    match description {
        40 => " (handshake failure)",
        47 => " (illegal parameter)",
        50 => " (decode error)",
        70 => " (protocol version)",
        80 => " (internal error)",
        112 => " (unrecognized name)",
        120 => " (no application protocol)",
        _ => "",
    }
}
