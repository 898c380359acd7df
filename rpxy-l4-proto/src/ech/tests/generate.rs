//! New configurations.

use crate::{
    ech::{CipherSuite, EchKey, GenerateError, Kem, Parameters, encode_config_list, generate, parse_config_list},
    testing::ech::SUITE,
};

fn parameters() -> Parameters {
    Parameters {
        public_name: "public.example".to_owned(),
        kem: Kem::X25519,
        cipher_suites: vec![SUITE, CipherSuite { kdf_id: 3, aead_id: 2 }],
        config_id: 0x41,
        maximum_name_length: 64,
    }
}

#[test]
fn a_configuration_reads_back_as_it_was_wanted() {
    for kem in [Kem::X25519, Kem::P256] {
        let key = generate(&Parameters { kem, ..parameters() }, &[3; 32]).unwrap();
        let list = encode_config_list([key.config()]).unwrap();
        let read = parse_config_list(&list).unwrap().configs;
        let [config] = &read[..] else { panic!("{read:?}") };
        assert_eq!(config, key.config());
        assert_eq!((config.kem_id, config.config_id, config.maximum_name_length), (kem.id(), 0x41, 64));
        assert_eq!(config.cipher_suites, parameters().cipher_suites);
        assert_eq!(EchKey::new(config.clone(), &key.private_key()).as_ref(), Some(&key), "{kem:?}");
    }
}

#[test]
fn the_key_is_as_random_as_its_material() {
    let of = |material| generate(&parameters(), &[material; 32]).unwrap();
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn parameters_that_no_configuration_has() {
    let named = |name: &str| Parameters { public_name: name.to_owned(), ..parameters() };
    for name in
        ["", "a..b", "a.example.", "192.0.2.1", "a.0x1f", "a.0X1F", "-a.b", "a-.b", "a_b.c", "a b", &"a.".repeat(127)]
    {
        assert_eq!(generate(&named(name), &[3; 32]), Err(GenerateError::PublicName), "{name:?}");
    }
    for count in [0, 1001] {
        let wanted = Parameters { cipher_suites: vec![SUITE; count], ..parameters() };
        assert_eq!(generate(&wanted, &[3; 32]), Err(GenerateError::CipherSuites), "{count}");
    }
}

#[test]
fn private_keys_are_in_no_debug_output() {
    let key = generate(&parameters(), &[3; 32]).unwrap();
    let secret = format!("{:?}", *key.private_key());
    let shown = format!("{key:?}");
    assert!(shown.contains("public.example") && !shown.contains(secret.trim_matches(['[', ']'])), "{shown}");
}

#[test]
fn keys_that_do_not_fit_their_configuration() {
    let key = generate(&parameters(), &[3; 32]).unwrap();
    let with = |kem_id| crate::ech::EchConfig { kem_id, ..key.config().clone() };
    let rows = [
        ("another key", with(0x20), vec![9; 32]),
        ("short", with(0x20), key.private_key()[1..].to_vec()),
        ("unknown mechanism", with(0x21), key.private_key().to_vec()),
        ("another mechanism", with(0x10), key.private_key().to_vec()),
    ];
    for (name, config, private_key) in rows {
        assert_eq!(EchKey::new(config, &private_key), None, "{name}");
    }
    let mut long = key.config().clone();
    long.raw.resize(70_000, 0);
    assert_eq!(EchKey::new(long, &key.private_key()), None, "longer than HPKE takes");
}
