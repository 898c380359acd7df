//! `cargo xtask bench offload`: the kernel plane side by side with kernel NAT, nginx and the daemon in userspace.
//!
//! The same program is also the backend and the client of the rig. It errs towards no figure rather than a wrong one:
//! what fails is reported and makes the exit code 1.

use std::process::ExitCode;

use rpxy_l4_bench::{arguments, load::udp_serve, offload::SUITE, udp_load};

fn main() -> ExitCode {
    arguments::main(&SUITE, udp_serve::serve, udp_load::drive)
}
