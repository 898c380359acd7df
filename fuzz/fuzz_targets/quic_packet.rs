//! A datagram with QUIC long headers, and the same bytes as the frames of an Initial packet.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _answer = rpxy_l4_proto::properties::quic_packet(data);
});
