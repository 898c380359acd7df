//! Properties of decrypted hellos and of key files, whatever is in them.

use crate::{
    Probe,
    ech::{Alert, ENCRYPTED_CLIENT_HELLO, PemError, inner, read_pem, write_pem},
    tls::ClientHello,
};

/// An outer hello of the usual kind, as a message; the plaintext refers to its extensions.
const OUTER: &[u8] = include_bytes!("../ech/testdata/go_hello_first.bin");

/// An inner hello is shorter than the outer hello that brought its plaintext, so that it fits in the same packets; it is
/// marked, a hello by itself, and has the outer hello's session ID.
pub fn ech_inner(plaintext: &[u8]) -> Result<ClientHello, Alert> {
    let Probe::Match(outer) = ClientHello::parse(OUTER.to_vec()) else { panic!("the outer hello") };
    let hello = inner::decode(plaintext, &outer)?;
    // The ciphertext, its tag and the fields around it stood in the outer hello beside the extensions referred to.
    let around = plaintext.len().saturating_add(16 + 4 + 10);
    let outer_len = outer.message().len().saturating_add(around);
    assert!(hello.message().len() < outer_len, "{} bytes from {outer_len}", hello.message().len());
    assert_eq!(ClientHello::parse(hello.message().to_vec()), Probe::Match(hello.clone()));
    assert_eq!(hello.extension(ENCRYPTED_CLIENT_HELLO), Some(&[1_u8][..]));
    assert_eq!(hello.session_id(), outer.session_id());
    Ok(hello)
}

/// The keys of a file are the same when they are written and read again. Returns how many there are.
pub fn ech_pem(data: &[u8]) -> Result<usize, PemError> {
    let keys = read_pem(&String::from_utf8_lossy(data))?;
    assert!(!keys.is_empty());
    for key in &keys {
        let again = write_pem(key).map(|text| read_pem(&text));
        assert!(matches!(again, Some(Ok(again)) if again.len() == 1 && again.first() == Some(key)));
    }
    Ok(keys.len())
}
