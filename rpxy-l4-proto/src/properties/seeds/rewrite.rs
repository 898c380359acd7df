//! Payloads of Initial packets. Which bytes the CRYPTO frames carry does not matter: they are replaced.

use super::Seeds;
use crate::testing::{Hello, hex, quic::crypto};

pub(super) fn quic_rewrite_seeds() -> Seeds {
    let bytes = [5; 500];
    let second = Hello::for_name("public.example", &[]).message();
    // The outer hello of the property has 419 bytes, the inner one 220.
    let outer = 419;
    vec![
        ("in_the_inner", crypto(0, &bytes[..150])),
        ("over_its_end", crypto(200, &bytes[..100])),
        ("behind_its_end", crypto(300, &bytes[..90])),
        ("several", [crypto(90, &bytes[..60]), hex("01 00 02 05 00 00 00"), crypto(0, &bytes[..90])].concat()),
        ("long_integers", [hex("06 c000000000000010 80000020"), bytes[..32].to_vec()].concat()),
        ("empty_crypto", [crypto(3, &[]), vec![0; 20]].concat()),
        ("second_hello", crypto(outer, &second)),
        ("second_hello_cut", crypto(outer, &second[..60])),
        ("no_second_hello", crypto(outer, &bytes[..60])),
        ("acknowledgement", hex("02 05 00 00 05 1c 0a 06 02 6e6f")),
        ("malformed", hex("06 40 ff 01 02")),
        ("too_short", vec![1]),
    ]
}
