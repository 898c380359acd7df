//! A UDP payload that may be WireGuard.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rpxy_l4_proto::wireguard::Message;

fuzz_target!(|data: &[u8]| {
    let message = rpxy_l4_proto::properties::wireguard(data);
    let is_initiation = matches!(message, Some(Message::Initiation { .. }));
    assert!(is_initiation || !rpxy_l4_common::properties::mac1(data));
});
