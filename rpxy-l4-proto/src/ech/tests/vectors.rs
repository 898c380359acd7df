//! Hellos of a Go client, with a HelloRetryRequest between them.

use sha2::{Digest as _, Sha256};

use super::{FirstHello, answer, keys, parsed};
use crate::{
    ech::{Alert, EchKey, EchKeys, parse_config_list},
    testing::hex,
};

const FIRST: &[u8] = include_bytes!("../testdata/go_hello_first.bin");
const SECOND: &[u8] = include_bytes!("../testdata/go_hello_second.bin");

/// A throw-away key.
pub(crate) fn vector_keys() -> EchKeys {
    let list = hex("0041 fe0d 003d 41 0020 0020 40df78025e9e6407aa990c3a1b662516985de9339f23fcf0d17a7ff760b6c45b
        0004 0001 0001 00 0e 7075626c69632e6578616d706c65 0000");
    let private_key = hex("882a8369614401e1a515ed1a8c0e8a0ffe522a3f70ee54fd6e6c76b6ed4e7747");
    let config = parse_config_list(&list).unwrap().configs.remove(0);
    keys(EchKey::new(config, &private_key))
}

fn digest(message: &[u8]) -> Vec<u8> {
    Sha256::digest(message).to_vec()
}

#[test]
fn both_hellos_decode_to_the_byte() {
    let FirstHello::Accepted { inner, mut context } = answer(&vector_keys(), FIRST) else { panic!("not accepted") };
    assert_eq!((inner.message().len(), inner.server_name()), (261, Some("private.example")));
    assert_eq!(digest(inner.message()), hex("23b79005bf66b023c6f7c00de5387c622ae990c645d0d38d25c154864a7f6ea9"));
    let second = context.second(&parsed(SECOND)).unwrap();
    assert_eq!(second.message().len(), 294);
    assert_eq!(digest(second.message()), hex("e1993ec769d7488f6eb671a81aeb6493818c2e51d763310e1e229c58c3004636"));
}

#[test]
fn a_changed_second_hello_is_a_decrypt_error() {
    let FirstHello::Accepted { mut context, .. } = answer(&vector_keys(), FIRST) else { panic!("not accepted") };
    let mut changed = SECOND.to_vec();
    // In the client's random.
    changed[10] ^= 1;
    assert_eq!(context.second(&parsed(&changed)).unwrap_err(), Alert::DecryptError);
}
