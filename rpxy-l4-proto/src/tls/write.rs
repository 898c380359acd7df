//! Writes a ClientHello that servers of TLS 1.2 and 1.3 take (RFC 8446 section 4.1.2), or those of QUIC.

use super::MAX_HELLO;

/// TLS 1.2 as both sides state it whatever they speak (RFC 8446 section 4.1.2).
const LEGACY_VERSION: [u8; 2] = [3, 3];
/// Those of TLS 1.3 (RFC 8446 appendix B.4).
const SUITES_1_3: [u16; 3] = [0x1301, 0x1302, 0x1303];
/// Those of 1.2 that servers still have.
const SUITES_1_2: [u16; 14] =
    [0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc009, 0xc013, 0xc00a, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035];

/// What a client offers.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The server name.
    pub server_name: Option<&'a str>,
    /// ALPN protocol names, 1 to 255 bytes each.
    pub alpn: &'a [&'a [u8]],
    /// The random.
    pub random: [u8; 32],
    /// The session ID, 32 bytes at most.
    pub session_id: &'a [u8],
    /// A public key of X25519, which any 32 bytes are (RFC 7748 section 5).
    pub key_share: [u8; 32],
    /// Transport parameters of QUIC, which has TLS 1.3 alone (RFC 9001 section 8.2).
    pub transport_parameters: Option<&'a [u8]>,
}

impl Offer<'_> {
    /// Returns whether the cipher suite is one of those offered.
    #[must_use]
    pub fn has_suite(suite: u16) -> bool {
        SUITES_1_3.contains(&suite) || SUITES_1_2.contains(&suite)
    }
}

/// Returns the message with this offer, handshake header included; `None` if a part is longer than its length field can
/// tell, or the whole longer than [`MAX_HELLO`].
#[must_use]
pub fn client_hello(offer: &Offer<'_>) -> Option<Vec<u8>> {
    const CLIENT_HELLO: u8 = 1;
    let mut suites: Vec<u8> = SUITES_1_3.map(u16::to_be_bytes).concat();
    if offer.transport_parameters.is_none() {
        suites.extend(SUITES_1_2.map(u16::to_be_bytes).concat());
    }
    let mut body = LEGACY_VERSION.to_vec();
    body.extend(offer.random);
    vec8(&mut body, offer.session_id)?;
    vec16(&mut body, &suites)?;
    // No compression.
    vec8(&mut body, &[0])?;
    vec16(&mut body, &extensions(offer)?)?;
    let mut message = vec![CLIENT_HELLO, 0];
    vec16(&mut message, &body)?;
    (message.len() <= MAX_HELLO).then_some(message)
}

/// The extensions, each as its type and content.
fn extensions(offer: &Offer<'_>) -> Option<Vec<u8>> {
    const X25519: [u8; 2] = [0, 29];
    let mut all = Vec::new();
    let mut add = |typ: u16, content: &[u8]| {
        all.extend(typ.to_be_bytes());
        vec16(&mut all, content)
    };
    if let Some(name) = offer.server_name {
        // RFC 6066 section 3: a list of one entry of type host_name.
        let mut entry = vec![0];
        vec16(&mut entry, name.as_bytes())?;
        let mut list = Vec::new();
        vec16(&mut list, &entry)?;
        add(0, &list)?;
    }
    // supported_groups: x25519, secp256r1, secp384r1.
    add(10, &[0, 6, 0, 29, 0, 23, 0, 24])?;
    // signature_algorithms: ECDSA, PSS and PKCS1 with SHA-256, SHA-384 and SHA-512, Ed25519.
    add(13, &[0, 20, 4, 3, 5, 3, 6, 3, 8, 4, 8, 5, 8, 6, 4, 1, 5, 1, 6, 1, 8, 7])?;
    if !offer.alpn.is_empty() {
        // RFC 7301 section 3.1.
        let mut names = Vec::new();
        for name in offer.alpn {
            vec8(&mut names, name)?;
        }
        let mut list = Vec::new();
        vec16(&mut list, &names)?;
        add(16, &list)?;
    }
    match offer.transport_parameters {
        None => {
            // ec_point_formats: uncompressed (RFC 8422 section 5.1.2).
            add(11, &[1, 0])?;
            // extended_master_secret (RFC 7627), renegotiation_info (RFC 5746).
            add(23, &[])?;
            add(0xff01, &[0])?;
            // supported_versions: 1.3, 1.2.
            add(43, &[4, 3, 4, 3, 3])?;
        }
        Some(parameters) => {
            add(43, &[2, 3, 4])?;
            // psk_key_exchange_modes: psk_dhe_ke.
            add(45, &[1, 1])?;
            add(57, parameters)?;
        }
    }
    add(51, &[&[0, 36], &X25519[..], &[0, 32], &offer.key_share].concat())?;
    Some(all)
}

fn vec8(out: &mut Vec<u8>, content: &[u8]) -> Option<()> {
    out.push(u8::try_from(content.len()).ok()?);
    out.extend(content);
    Some(())
}

fn vec16(out: &mut Vec<u8>, content: &[u8]) -> Option<()> {
    out.extend(u16::try_from(content.len()).ok()?.to_be_bytes());
    out.extend(content);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Probe, tls::ClientHello};

    fn offer<'a>(name: Option<&'a str>, alpn: &'a [&'a [u8]]) -> Offer<'a> {
        let (random, key_share) = ([1; 32], [2; 32]);
        Offer { server_name: name, alpn, random, session_id: &[3; 32], key_share, transport_parameters: None }
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "a".repeat(255);
        for (case, name, alpn) in [
            ("nothing", None, &[] as &[&[u8]]),
            ("a name", Some("a.example"), &[]),
            ("ALPN", None, &[b"h2", b"http/1.1"]),
            ("both", Some("a.example"), &[b"h2"]),
            ("a long name", Some(&*long), &[&[b'x'; 255]]),
        ] {
            for parameters in [None, Some(&[1, 2, 3][..])] {
                let offer = Offer { transport_parameters: parameters, ..offer(name, alpn) };
                let Probe::Match(hello) = ClientHello::parse(client_hello(&offer).unwrap()) else { panic!("{case}") };
                assert_eq!(hello.server_name(), name, "{case}");
                assert_eq!(hello.alpn().collect::<Vec<_>>(), alpn, "{case}");
                assert_eq!(hello.extension(57), parameters, "{case}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let long = "a".repeat(1 << 16);
        assert_eq!(client_hello(&offer(Some(&long), &[])), None);
        assert_eq!(client_hello(&offer(None, &[&[b'x'; 256]])), None);
    }
}
