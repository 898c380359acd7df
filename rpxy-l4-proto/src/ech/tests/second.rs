//! The hello after a HelloRetryRequest.

use super::{FirstHello, answer, keys, outer, parsed};
use crate::{
    ech::{Alert, CipherSuite, Kem},
    testing::{
        ech::{Client, SUITE, encoded, inner_extensions, key},
        hex, vec16,
    },
};

fn plaintext() -> Vec<u8> {
    encoded(inner_extensions("private.example"))
}

/// A client whose first hello was accepted, and the context.
fn accepted() -> (Client, super::super::Context) {
    let ours = key(Kem::X25519, 7, &[SUITE, CipherSuite { kdf_id: 1, aead_id: 3 }]);
    let mut client = Client::new(&ours, SUITE);
    let message = client.hello(&outer(), &plaintext());
    let FirstHello::Accepted { context, .. } = answer(&keys([ours]), &message) else { panic!("not accepted") };
    (client, context)
}

#[test]
fn second_hellos() {
    type Change = fn(&mut Client) -> Vec<u8>;
    let rows: [(&str, Change, Result<&str, Alert>); 9] = [
        ("C15, C18, C19: the same context", |client| client.hello(&outer(), &plaintext()), Ok("private.example")),
        (
            "C20: another name",
            |client| client.hello(&outer(), &encoded(inner_extensions("other.example"))),
            Ok("other.example"),
        ),
        ("C16: without the extension", |_| outer().message(), Err(Alert::MissingExtension)),
        (
            "C17: another suite",
            |client| {
                client.suite.aead_id = 3;
                client.hello(&outer(), &plaintext())
            },
            Err(Alert::IllegalParameter),
        ),
        (
            "C17: another number",
            |client| {
                client.config_id = 8;
                client.hello(&outer(), &plaintext())
            },
            Err(Alert::IllegalParameter),
        ),
        (
            "C17: an encapsulated key",
            |client| {
                client.enc = vec![5; 32];
                client.hello(&outer(), &plaintext())
            },
            Err(Alert::IllegalParameter),
        ),
        (
            "C18: sealed by somebody else",
            |client| {
                let mut hello = outer();
                let body = [hex("00 0001 0001"), vec![client.config_id], vec16(&[]), vec16(&[6; 144])].concat();
                hello.extensions.get_or_insert_default().push((0xfe0d, body));
                hello.message()
            },
            Err(Alert::DecryptError),
        ),
        (
            "C2: an inner hello",
            |_| {
                let mut hello = outer();
                hello.extensions.get_or_insert_default().push((0xfe0d, vec![1]));
                hello.message()
            },
            Err(Alert::IllegalParameter),
        ),
        (
            "C19: the same rules for the plaintext",
            |client| client.hello(&outer(), &[plaintext(), vec![1]].concat()),
            Err(Alert::IllegalParameter),
        ),
    ];
    for (name, second, expected) in rows {
        let (mut client, mut context) = accepted();
        let result = context.second(&parsed(&second(&mut client)));
        let result = result.map(|inner| inner.server_name().unwrap_or_default().to_owned());
        assert_eq!(result, expected.map(str::to_owned), "{name}");
    }
}

#[test]
fn c18_the_first_hello_does_not_open_twice() {
    let (_, mut context) = accepted();
    let ours = key(Kem::X25519, 7, &[SUITE]);
    let mut again = Client::new(&ours, SUITE);
    again.enc.clear();
    let first_again = again.hello(&outer(), &plaintext());
    assert_eq!(context.second(&parsed(&first_again)).unwrap_err(), Alert::DecryptError, "sequence number 0");
}
