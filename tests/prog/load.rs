//! The object as a whole: the verifier takes it.

use crate::kernel::{Kernel, Program, TCP_IN, TCP_OUT};

/// The kernel gives up at a million. What it walks through grows faster than the program: this much is half of that.
const MOST_VERIFIED: u32 = 500_000;

#[test]
fn the_verifier_takes_the_programs_with_room_to_spare() {
    let Some(kernel) = Kernel::or_skip() else { return };
    for program in [Program::Xdp.name(), Program::Tc.name(), Program::TcOne.name(), TCP_IN, TCP_OUT] {
        let verified = kernel.verified(program);
        println!("{program}: {verified} instructions verified");
        assert!(verified < MOST_VERIFIED, "{program}: {verified} instructions verified");
    }
}
