//! The object that the kernel loads: one XDP and one TC program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod programs;

/// The host has no use for the programs.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
