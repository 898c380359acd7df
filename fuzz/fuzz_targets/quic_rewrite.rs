//! The payload of an Initial packet in which another hello is put in the place of the client's.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _answer = rpxy_l4_proto::properties::quic_rewrite(data);
});
