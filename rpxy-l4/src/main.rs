//! The `rpxy-l4` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    rpxy_l4::run()
}
