//! The object that the kernel loads. On the host it is an empty program.
//!
//! The entry points are thin: they describe the arrival of a packet, ask [`rpxy_l4_common::decide`], and carry the verdict
//! out. Each packet is counted once, under the number of its outcome.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

/// Calls a function of `log` in a build that has it, and is nothing in another.
#[cfg(target_arch = "bpf")]
macro_rules! log {
    ($($call:tt)+) => {
        #[cfg(feature = "ebpf-log")]
        crate::log::$($call)+;
    };
}

#[cfg(target_arch = "bpf")]
mod clock;
#[cfg(target_arch = "bpf")]
mod hook;
#[cfg(target_arch = "bpf")]
mod limit;
#[cfg(all(target_arch = "bpf", feature = "ebpf-log"))]
mod log;
#[cfg(target_arch = "bpf")]
mod lookup;
#[cfg(target_arch = "bpf")]
mod mac1;
#[cfg(target_arch = "bpf")]
mod many;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod tc;
#[cfg(target_arch = "bpf")]
mod tcp;
#[cfg(target_arch = "bpf")]
mod xdp;

/// Nothing in the programs can panic, so that the linker leaves this out.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for programs under the GPL only. The rest of the repository is under the MIT licence alone.
#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "the loader finds it by its section")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The host has no use for the programs.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
