//! Plaintexts of inner hellos, and key files.

use super::Seeds;
use crate::{
    ech::{Kem, write_pem},
    testing::{
        Hello,
        ech::{SUITE, encoded, inner_extensions, key},
        hex,
    },
};

pub(super) fn ech_inner_seeds() -> Seeds {
    let plain = encoded(inner_extensions("private.example"));
    let with = |typ, body: &str| {
        let mut extensions = inner_extensions("private.example");
        extensions.retain(|(other, _)| *other != typ);
        extensions.push((typ, hex(body)));
        encoded(extensions)
    };
    vec![
        ("plain", plain.clone()),
        ("padded", [plain.as_slice(), &[0; 30]].concat()),
        ("padding_not_zero", [plain.as_slice(), &[0, 1]].concat()),
        ("outer_extensions", with(0xfd00, "08 000a 000d 0010 0033")),
        ("out_of_order", with(0xfd00, "04 0033 000a")),
        ("itself", with(0xfd00, "02 fe0d")),
        ("odd", with(0xfd00, "03 000a 00")),
        ("not_marked", with(0xfe0d, "00")),
        ("old_version", with(43, "04 0304 0303")),
        ("session_id", Hello::with(inner_extensions("private.example")).message()[4..].to_vec()),
        ("cut", plain[..60].to_vec()),
    ]
}

pub(super) fn ech_pem_seeds() -> Seeds {
    let file = |kem, id| write_pem(&key(kem, id, &[SUITE])).unwrap().as_bytes().to_vec();
    let (x25519, p256) = (file(Kem::X25519, 1), file(Kem::P256, 2));
    vec![
        ("both", [x25519.clone(), b"comment\n".to_vec(), p256].concat()),
        ("openssl", include_bytes!("../../ech/testdata/openssl_p256.pem").to_vec()),
        ("key_alone", x25519[..110].to_vec()),
        ("cut", x25519[..200].to_vec()),
        ("certificate", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_vec()),
        ("x25519", x25519),
    ]
}
