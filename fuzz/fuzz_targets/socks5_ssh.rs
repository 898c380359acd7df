//! A stream for the two probes that look at a few bytes only.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _answer = rpxy_l4_proto::properties::socks5_ssh(data);
});
