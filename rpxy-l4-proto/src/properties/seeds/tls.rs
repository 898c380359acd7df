//! Streams around a HelloRetryRequest.

use super::Seeds;
use crate::testing::{Hello, handshake, hex, record};

pub(super) fn second_hello_seeds() -> Seeds {
    let hello = Hello::for_name("a.example", &["h2"]);
    let message = hello.message();
    let retry = hex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c");
    let server = |random: &[u8]| record(22, &handshake(2, &[&[3, 3], random, &[0; 6]].concat()));
    let front = [record(20, &[1]), record(23, &[22; 30])].concat();
    vec![
        ("hello", hello.record()),
        ("behind_early_data", [front.clone(), hello.record(), record(23, &[1])].concat()),
        ("behind_empty_records", [record(23, &[]), record(23, &[]), hello.record()].concat()),
        ("in_records", [front.clone(), record(22, &message[..40]), record(22, &message[40..])].concat()),
        ("interleaved", [record(22, &message[..40]), front.clone(), record(22, &message[40..])].concat()),
        ("trailing", record(22, &[&message[..], &[0]].concat())),
        ("early_data_only", front),
        ("hello_retry_request", server(&retry)),
        ("server_hello", server(&[7; 32])),
        ("alert", record(21, &[2, 40])),
    ]
}
