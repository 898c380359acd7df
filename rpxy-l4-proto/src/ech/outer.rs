//! The `encrypted_client_hello` extension of a hello from the network (RFC 9849 section 5).

use super::{Alert, CipherSuite};
use crate::{reader::Reader, tls::ClientHello};

/// Extension type `encrypted_client_hello` (RFC 9849 section 5).
pub const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// Extension type `ech_outer_extensions`, which stands in inner hellos only (RFC 9849 section 5.1).
pub const ECH_OUTER_EXTENSIONS: u16 = 0xfd00;

/// `ECHClientHelloType` (RFC 9849 section 5).
const OUTER: u8 = 0;
pub(super) const INNER: u8 = 1;

/// The extension of a `ClientHelloOuter`.
#[derive(Debug)]
pub(super) struct Outer<'h> {
    pub(super) suite: CipherSuite,
    pub(super) config_id: u8,
    /// The encapsulated key; empty in a second hello.
    pub(super) enc: &'h [u8],
    /// The encrypted inner hello.
    pub(super) payload: &'h [u8],
    hello: &'h ClientHello,
    /// Offset of the payload in the message.
    payload_at: usize,
}

impl<'h> Outer<'h> {
    /// `None` when the hello has no such extension.
    ///
    /// # Errors
    ///
    /// It is malformed, is that of an inner hello, or stands beside `ech_outer_extensions`.
    pub(super) fn of(hello: &'h ClientHello) -> Result<Option<Self>, Alert> {
        let Some(extension) = hello.extensions().find(|extension| extension.typ == ENCRYPTED_CLIENT_HELLO) else {
            return Ok(None);
        };
        let range = extension.range.clone();
        let mut body = Reader::new(hello.message().get(range.clone()).unwrap_or_default());
        if body.u8() != Some(OUTER) || hello.extension(ECH_OUTER_EXTENSIONS).is_some() {
            // An inner hello in the clear would reach private backends that nobody decrypted it for.
            return Err(Alert::IllegalParameter);
        }
        let mut fields = || {
            let suite = CipherSuite { kdf_id: body.u16()?, aead_id: body.u16()? };
            let (config_id, enc) = (body.u8()?, body.vec16()?);
            let payload = body.vec16().filter(|payload| !payload.is_empty())?;
            body.is_empty().then_some((suite, config_id, enc, payload))
        };
        let (suite, config_id, enc, payload) = fields().ok_or(Alert::DecodeError)?;
        let payload_at = range.end.saturating_sub(payload.len());
        Ok(Some(Self { suite, config_id, enc, payload, hello, payload_at }))
    }

    /// `ClientHelloOuterAAD` (RFC 9849 section 5.2): the hello without its handshake header, zeros for the payload.
    pub(super) fn aad(&self) -> Vec<u8> {
        let mut aad = self.hello.message().get(4..).unwrap_or_default().to_vec();
        let start = self.payload_at.saturating_sub(4);
        if let Some(payload) = aad.get_mut(start..start.saturating_add(self.payload.len())) {
            payload.fill(0);
        }
        aad
    }
}
