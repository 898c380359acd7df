//! The Initial packets of a client with Encrypted Client Hello; the property says how the input is taken apart.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _answer = rpxy_l4_proto::properties::initial_rewrite(data);
});
