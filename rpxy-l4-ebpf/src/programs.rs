//! p
#![allow(unsafe_code)]
use aya_ebpf::{bindings::{TC_ACT_OK, xdp_action::XDP_PASS}, macros::{classifier, xdp}, programs::{TcContext, XdpContext}};

#[xdp]
pub fn rpxy_l4_xdp(_: XdpContext) -> u32 { crate::maps::count(0); XDP_PASS }
#[classifier]
pub fn rpxy_l4_tc(_: TcContext) -> i32 { crate::maps::count(1); TC_ACT_OK as i32 }

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
