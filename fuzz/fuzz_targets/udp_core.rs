//! The UDP core under an arbitrary sequence of events.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| {
    let _sessions = rpxy_l4::properties::udp_core(script);
});
