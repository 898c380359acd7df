//! A ClientHello that servers of TLS 1.2 and 1.3 take, and the ServerHello that answers it (RFC 8446 section 4.1).
//!
//! The handshake ends there: it shows that the server speaks TLS and has something to serve the name with. No key is
//! agreed on, so none has to be secret.

use rpxy_l4_proto::tls::handshake_records;

use super::Judgement;
use crate::route::Random;

/// TLS 1.2 as both sides state it whatever they speak (RFC 8446 section 4.1.2).
const LEGACY_VERSION: [u8; 2] = [3, 3];
/// Those of TLS 1.3 (RFC 8446 appendix B.4), then those of 1.2 that servers still have.
const SUITES: [u16; 17] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc009, 0xc013, 0xc00a, 0xc014, 0x009c,
    0x009d, 0x002f, 0x0035,
];
/// The longest message that is read, in bytes; a ServerHello with a hybrid key share has some 1,200.
const MOST: usize = 4096;

/// A ClientHello for `name`, and the answer to it.
pub(super) fn question(name: Option<&str>, random: &Random) -> (Vec<u8>, ServerHello) {
    const CLIENT_HELLO: u8 = 1;
    /// In front of the first hello some servers want TLS 1.0 (RFC 8446 section 5.1).
    const RECORD_VERSION: u8 = 1;
    let session = bytes(random);
    let mut body = LEGACY_VERSION.to_vec();
    body.extend(bytes(random));
    vec8(&mut body, &session);
    vec16(&mut body, &SUITES.map(u16::to_be_bytes).concat());
    vec8(&mut body, &[0]);
    vec16(&mut body, &extensions(name, &bytes(random)));
    let mut message = vec![CLIENT_HELLO, 0];
    vec16(&mut message, &body);
    (handshake_records(&message, RECORD_VERSION), ServerHello { session, record: Vec::new(), message: Vec::new() })
}

/// The extensions, each as its type and content.
fn extensions(name: Option<&str>, key: &[u8; 32]) -> Vec<u8> {
    const X25519: [u8; 2] = [0, 29];
    let mut all = Vec::new();
    let mut add = |typ: u16, content: &[u8]| {
        all.extend(typ.to_be_bytes());
        vec16(&mut all, content);
    };
    if let Some(name) = name {
        // RFC 6066 section 3: a list of one entry of type host_name.
        let mut entry = vec![0];
        vec16(&mut entry, name.as_bytes());
        let mut list = Vec::new();
        vec16(&mut list, &entry);
        add(0, &list);
    }
    // supported_groups: x25519, secp256r1, secp384r1.
    add(10, &[0, 6, 0, 29, 0, 23, 0, 24]);
    // ec_point_formats: uncompressed (RFC 8422 section 5.1.2).
    add(11, &[1, 0]);
    // signature_algorithms: ECDSA, PSS and PKCS1 with SHA-256, SHA-384 and SHA-512, Ed25519.
    add(13, &[0, 20, 4, 3, 5, 3, 6, 3, 8, 4, 8, 5, 8, 6, 4, 1, 5, 1, 6, 1, 8, 7]);
    // extended_master_secret (RFC 7627), renegotiation_info (RFC 5746).
    add(23, &[]);
    add(0xff01, &[0]);
    // supported_versions: 1.3, 1.2.
    add(43, &[4, 3, 4, 3, 3]);
    // key_share: any 32 bytes are a public key of X25519 (RFC 7748 section 5).
    add(51, &[&[0, 36], &X25519[..], &[0, 32], key].concat());
    all
}

/// 32 bytes that differ each time.
fn bytes(random: &Random) -> [u8; 32] {
    let mut bytes = [0; 32];
    for part in bytes.chunks_exact_mut(8) {
        part.copy_from_slice(&random.next().to_be_bytes());
    }
    bytes
}

/// What we build is shorter than its length field allows.
fn vec8(out: &mut Vec<u8>, content: &[u8]) {
    out.push(u8::try_from(content.len()).unwrap_or(u8::MAX));
    out.extend(content);
}

fn vec16(out: &mut Vec<u8>, content: &[u8]) {
    out.extend(u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(content);
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
                    && SUITES.contains(&suite)
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
