//! The plaintext of an inner hello.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _answer = rpxy_l4_proto::properties::ech_inner(data);
});
