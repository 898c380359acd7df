//! maps
#![allow(unsafe_code)]
use aya_ebpf::btf_maps::{HashMap, PerCpuArray, LpmTrie};
use aya_ebpf::macros::btf_map;
use rpxy_l4_common::map::{Flow, FlowKey, Hop, HopKey, Listener, Socket};

#[btf_map]
static FLOWS: HashMap<FlowKey, Flow, 1024> = HashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, 64> = PerCpuArray::new();

pub fn count(index: u32) {
    if let Some(slot) = COUNTERS.get_ptr_mut(index) {
        unsafe { *slot += 1 }
    }
}
