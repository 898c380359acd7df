//! From `EncodedClientHelloInner` to the hello that the backend gets (RFC 9849 sections 5.1 and 7.1).

use super::{
    Alert,
    outer::{ECH_OUTER_EXTENSIONS, ENCRYPTED_CLIENT_HELLO, INNER},
};
use crate::{Probe, reader::Reader, tls::ClientHello};

/// Extension type `supported_versions` (RFC 8446 section 4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;
/// TLS 1.2.
const TLS_1_2: u16 = 0x0303;

/// The inner hello of `outer`, from what was encrypted.
///
/// # Errors
///
/// The alert that RFC 9849 section 7.1 wants when the plaintext is not what a client makes.
pub(crate) fn decode(encoded: &[u8], outer: &ClientHello) -> Result<ClientHello, Alert> {
    let mut reader = Reader::new(encoded);
    let mut message = vec![1, 0, 0, 0];
    // Version and random; the session ID must be left out here, and comes from the outer hello.
    message.extend_from_slice(reader.take(2 + 32).ok_or(Alert::DecodeError)?);
    if reader.vec8().ok_or(Alert::DecodeError)?.is_empty() {
        push8(&mut message, outer.session_id())?;
    } else {
        return Err(Alert::IllegalParameter);
    }
    let cipher_suites = reader.vec16().ok_or(Alert::DecodeError)?;
    push16(&mut message, cipher_suites)?;
    push8(&mut message, reader.vec8().ok_or(Alert::DecodeError)?)?;
    let extensions = expand(reader.vec16().ok_or(Alert::DecodeError)?, outer)?;
    push16(&mut message, &extensions)?;
    if reader.rest().iter().any(|padding| *padding != 0) {
        return Err(Alert::IllegalParameter);
    }
    let [_, high, middle, low, body @ ..] = message.as_mut_slice() else { return Err(Alert::DecodeError) };
    let length = u32::try_from(body.len()).map_err(|_too_long| Alert::DecodeError)?;
    [_, *high, *middle, *low] = length.to_be_bytes();
    let Probe::Match(inner) = ClientHello::parse(message) else { return Err(Alert::IllegalParameter) };
    check(&inner)?;
    Ok(inner)
}

/// Puts the extensions of the outer hello in place of `ech_outer_extensions`. One pass over them: the references must be
/// in their order.
fn expand(extensions: &[u8], outer: &ClientHello) -> Result<Vec<u8>, Alert> {
    let mut reader = Reader::new(extensions);
    let mut expanded = Vec::with_capacity(extensions.len());
    let mut referenced = false;
    while !reader.is_empty() {
        let (typ, body) = reader.u16().zip(reader.vec16()).ok_or(Alert::DecodeError)?;
        if typ != ECH_OUTER_EXTENSIONS {
            push_extension(&mut expanded, typ, body)?;
            continue;
        }
        if std::mem::replace(&mut referenced, true) {
            return Err(Alert::IllegalParameter);
        }
        let mut body = Reader::new(body);
        let mut types = Reader::new(body.vec8().filter(|types| types.len() >= 2).ok_or(Alert::DecodeError)?);
        if !body.is_empty() {
            return Err(Alert::DecodeError);
        }
        let mut candidates = outer.extensions();
        while !types.is_empty() {
            let wanted = types.u16().ok_or(Alert::DecodeError)?;
            if wanted == ENCRYPTED_CLIENT_HELLO {
                return Err(Alert::IllegalParameter);
            }
            let found = candidates.find(|candidate| candidate.typ == wanted).ok_or(Alert::IllegalParameter)?;
            let body = outer.message().get(found.range.clone()).unwrap_or_default();
            push_extension(&mut expanded, wanted, body)?;
        }
    }
    Ok(expanded)
}

/// Checks the requirements of RFC 9849 section 7.1 on an inner hello.
fn check(inner: &ClientHello) -> Result<(), Alert> {
    let marked = inner.extension(ENCRYPTED_CLIENT_HELLO) == Some(&[INNER]);
    if !marked || inner.extension(ECH_OUTER_EXTENSIONS).is_some() || !is_tls_1_3_only(inner) {
        return Err(Alert::IllegalParameter);
    }
    Ok(())
}

/// TLS 1.2 has no way to confirm that the inner hello was taken. Greased versions are all above it.
fn is_tls_1_3_only(hello: &ClientHello) -> bool {
    let Some(body) = hello.extension(SUPPORTED_VERSIONS) else { return false };
    let mut reader = Reader::new(body);
    let Some(versions) = reader.vec8().filter(|versions| versions.len() >= 2) else { return false };
    let mut versions = Reader::new(versions);
    while !versions.is_empty() {
        if versions.u16().is_none_or(|version| version <= TLS_1_2) {
            return false;
        }
    }
    reader.is_empty()
}

fn push_extension(out: &mut Vec<u8>, typ: u16, body: &[u8]) -> Result<(), Alert> {
    out.extend_from_slice(&typ.to_be_bytes());
    push16(out, body)
}

fn push8(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Alert> {
    out.push(u8::try_from(bytes.len()).map_err(|_too_long| Alert::DecodeError)?);
    out.extend_from_slice(bytes);
    Ok(())
}

fn push16(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Alert> {
    let length = u16::try_from(bytes.len()).map_err(|_too_long| Alert::DecodeError)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
