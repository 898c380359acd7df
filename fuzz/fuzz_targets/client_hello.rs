//! A TLS record stream, and the same bytes as a bare handshake message.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _answer = rpxy_l4_proto::properties::client_hello(data);
});
