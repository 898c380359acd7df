//! What a client sends behind its first hello, and the same as the answer of a server.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _answer = rpxy_l4_proto::properties::second_hello(data);
});
