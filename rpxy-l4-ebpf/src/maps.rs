//! The maps of the object, and the only place where their memory is touched.
//!
//! Sizes are defaults, which the loader replaces. All but `SOURCES` are filled by the daemon alone. They are
//! preallocated where the kernel can do that, so that an entry once taken in can always be replaced, and a packet never
//! waits for memory. The price is that the kernel uses removed entries again at once: see
//! [`Flow::seal`](rpxy_l4_common::map::Flow::seal).
#![expect(unsafe_code, reason = "entries are read through pointers into the kernel's memory")]

use core::arch::asm;
use core::ops::Deref;
use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use rpxy_l4_common::mac1::{Initiation, MOST_KEYS, Mac1Key};
use rpxy_l4_common::map::{Flow, FlowEntry, FlowKey, Hop, HopKey, Listed, Listener, Prefix, Socket, SourceLimit};
use rpxy_l4_common::verdict::Counter;

#[btf_map]
static FLOWS: HashMap<FlowKey, FlowEntry, 65536> = HashMap::new();
#[btf_map]
static LISTENERS: HashMap<Socket, Listener, 16384> = HashMap::new();
#[btf_map]
static LOCAL: HashMap<[u8; 16], u8, 1024> = HashMap::new();
#[btf_map]
static BANNED: LpmTrie<[u8; 20], u8, 65536> = LpmTrie::new();
#[btf_map]
static ACCESS: LpmTrie<[u8; 20], u8, 65536> = LpmTrie::new();
#[btf_map]
static HOPS: Array<Hop, 1024> = Array::new();
#[btf_map]
static SOURCE_LIMIT: Array<SourceLimit, 1> = Array::new();
#[btf_map]
static SOURCES: LruHashMap<Socket, u64, 65536> = LruHashMap::new();
#[btf_map]
static MAC1_KEYS: Array<Mac1Key, MOST_KEYS> = Array::new();
#[btf_map]
static INITIATION: PerCpuArray<Initiation, 1> = PerCpuArray::new();
#[btf_map]
static COPIES: PerCpuArray<Scratch, PROGRAMS> = PerCpuArray::new();
#[btf_map]
static LEASE: Array<u64, 1> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();

/// The number of the XDP program in `COPIES`.
pub(crate) const XDP: u32 = 0;
/// The number of the TC programs, of which one is attached.
pub(crate) const TC: u32 = 1;
pub(crate) const PROGRAMS: usize = 2;

/// Copies of the entries that a program has read for one packet. Not on the stack, where they have no room beside the
/// hash of initiations. A processor runs one program at a time to its end (in a softirq, which is not interrupted by
/// another); XDP and TC have a slot each all the same.
#[repr(C)]
struct Scratch {
    flow: Flow,
    hop: Hop,
}

/// The slot of a program for copies.
#[derive(Clone, Copy)]
pub(crate) struct Copies(NonNull<Scratch>);

impl Copies {
    /// Returns the slot of a program, which is always there.
    #[inline(always)]
    pub(crate) fn of(program: u32) -> Option<Self> {
        COPIES.get_ptr_mut(program).and_then(NonNull::new).map(Self)
    }

    /// Returns the flow that the program has read last.
    #[inline(always)]
    pub(crate) fn flow<'s>(self) -> &'s Flow {
        // SAFETY: the slot belongs to this processor, where the program that has written it asks now.
        unsafe { &(*self.0.as_ptr()).flow }
    }

    /// Copies the entry of a flow, and returns its slot in the map as well.
    #[inline(always)]
    pub(crate) fn read_flow<'s>(self, key: &FlowKey) -> Option<(&'s Flow, FlowSlot)> {
        let slot = FLOWS.get_ptr_mut(key).and_then(NonNull::new)?;
        // SAFETY: the kernel gave the pointer out, and keeps the memory until this program ends.
        let flow = unsafe { copy(&raw const (*slot.as_ptr()).flow, &raw mut (*self.0.as_ptr()).flow) };
        Some((flow, FlowSlot(slot)))
    }

    /// Copies the entry of a next hop; it may be an empty one.
    #[inline(always)]
    pub(crate) fn read_hop<'s>(self, key: HopKey) -> Option<&'s Hop> {
        let slot = HOPS.get_ptr(key.into()).map(<*const Hop>::cast_mut).and_then(NonNull::new)?;
        // SAFETY: likewise.
        Some(unsafe { copy(slot.as_ptr(), &raw mut (*self.0.as_ptr()).hop) })
    }
}

/// Copies the value at `from`, word by word.
///
/// # Safety
///
/// Both are within entries, at multiples of 8 bytes, and of plain bytes, so that what is read is a value even while the
/// daemon replaces it. No earlier copy is used any more.
#[inline(always)]
pub(crate) unsafe fn copy<'s, T: Copy>(from: *const T, to: *mut T) -> &'s T {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let (source, target) = (from.cast::<u64>(), to.cast::<u64>());
    let mut word = 0;
    while word < size_of::<T>() / 8 {
        // SAFETY: both have as many words. Volatile, so that nothing is read a second time, or put off.
        unsafe { target.add(word).write_volatile(source.add(word).read_volatile()) };
        word += 1;
    }
    // SAFETY: all of it has been written.
    unsafe { &*to }
}

/// The entry of a flow in the map, which the kernel may use for another flow at any time.
#[derive(Clone, Copy)]
pub(crate) struct FlowSlot(NonNull<FlowEntry>);

impl FlowSlot {
    /// Adds to what the entry has counted.
    #[inline(always)]
    pub(crate) fn count(self, now: u64, packets: u64, bytes: u64) {
        let entry = self.0.as_ptr();
        // SAFETY: the fields lie within the entry, are aligned to 8 bytes, and are written by the programs only; the
        // kernel keeps the memory until this program ends.
        unsafe {
            (&raw mut (*entry).counted.last_seen).write_volatile(now);
            add(&raw mut (*entry).counted.packets, packets);
            add(&raw mut (*entry).counted.bytes, bytes);
        }
    }

    /// Adds one to the packets that arrived by another interface.
    #[inline(always)]
    pub(crate) fn count_elsewhere(self) {
        // SAFETY: likewise.
        unsafe { add(&raw mut (*self.0.as_ptr()).counted.elsewhere, 1) };
    }
}

/// Atomic addition, which the target has, although core says that it has no atomic operations at all.
///
/// # Safety
///
/// `to` points to a number in a map, aligned to 8 bytes.
#[inline(always)]
pub(crate) unsafe fn add(to: *mut u64, number: u64) {
    // SAFETY: one instruction that adds to the number at `to`.
    unsafe { asm!("lock *(u64 *)({to} + 0) += {number}", to = in(reg) to, number = in(reg) number) };
}

/// A setting of the daemon's in its array.
pub(crate) struct Setting<T>(NonNull<T>);

impl<T> Setting<T> {
    #[inline(always)]
    fn at(pointer: Option<*const T>) -> Option<Self> {
        pointer.and_then(|pointer| NonNull::new(pointer.cast_mut())).map(Self)
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the kernel gave the pointer out, and the slots of an array stay for ever. Every type in the maps is
        // plain bytes, so that a value is one even while the daemon replaces it.
        unsafe { self.0.as_ref() }
    }
}

/// Returns the limit of what source networks may begin.
#[inline(always)]
pub(crate) fn source_limit() -> Option<Setting<SourceLimit>> {
    Setting::at(SOURCE_LIMIT.get_ptr(0))
}

/// Returns one of the keys of WireGuard servers.
#[inline(always)]
pub(crate) fn mac1_key(index: u32) -> Option<Setting<Mac1Key>> {
    Setting::at(MAC1_KEYS.get_ptr(index))
}

/// Returns the time at which the lease of the daemon ends, in nanoseconds of CLOCK_MONOTONIC; 0 for never.
#[inline(always)]
pub(crate) fn lease_end() -> u64 {
    let lease = LEASE.get_ptr(0).and_then(|lease| NonNull::new(lease.cast_mut()));
    // SAFETY: the kernel gave the pointer out. One number, which the daemon replaces whole.
    lease.map_or(0, |lease| unsafe { lease.as_ptr().read_volatile() })
}

/// Returns the listener of exactly this socket address.
#[inline(always)]
pub(crate) fn listener(socket: &Socket) -> Option<Listener> {
    // SAFETY: the kernel gave the pointer out. It is one number, and all listeners have the same.
    LISTENERS.get_ptr_mut(socket).and_then(NonNull::new).map(|slot| unsafe { slot.as_ptr().read_volatile() })
}

/// Returns true if an address belongs to this machine.
#[inline(always)]
pub(crate) fn is_local(address: &[u8; 16]) -> bool {
    LOCAL.get_ptr(address).is_some()
}

/// Returns true if a source is in a banned network.
#[inline(always)]
pub(crate) fn is_banned(source: &Prefix) -> bool {
    const { assert!(size_of::<Prefix>() == size_of::<Key<[u8; 20]>>()) };
    // SAFETY: both are the number of bits and 20 bytes behind it, and the key may have any alignment.
    let key = unsafe { &*core::ptr::from_ref(source).cast::<Key<[u8; 20]>>() };
    BANNED.get(key).is_some()
}

/// Returns the value of the smallest network that a sender is in, of its access list.
#[inline(always)]
pub(crate) fn listed(sender: &Listed) -> Option<u8> {
    const { assert!(size_of::<Listed>() == size_of::<Key<[u8; 20]>>()) };
    // SAFETY: as above.
    let key = unsafe { &*core::ptr::from_ref(sender).cast::<Key<[u8; 20]>>() };
    ACCESS.get(key).copied()
}

/// Counts a packet under its outcome.
#[inline(always)]
pub(crate) fn count(outcome: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(outcome.index()) {
        // SAFETY: the slot belongs to this processor, where one program runs at a time; should another one interrupt it
        // (TC is not protected from XDP), a packet may go uncounted.
        unsafe { *slot += 1 };
    }
}

/// Returns the buffer of this processor for an initiation.
#[inline(always)]
pub(crate) fn initiation<'a>() -> Option<&'a mut Initiation> {
    let slot = INITIATION.get_ptr_mut(0).and_then(NonNull::new)?;
    // SAFETY: the slot belongs to this processor, where one program runs at a time; should another one interrupt it
    // (see `count`), an initiation may be dropped, and the client sends another one 5 s later.
    Some(unsafe { &mut *slot.as_ptr() })
}

/// The bucket of a source network: the time at which it is full again, in nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy)]
pub(crate) struct Bucket(NonNull<u64>);

impl Bucket {
    /// Returns the bucket of a network that has one.
    #[inline(always)]
    pub(crate) fn of(network: &Socket) -> Option<Self> {
        SOURCES.get_ptr_mut(network).and_then(NonNull::new).map(Self)
    }

    /// Makes a bucket; the least recently used one gives way. Fails without memory.
    #[inline(always)]
    pub(crate) fn insert(network: &Socket, due: u64) -> Result<(), i32> {
        SOURCES.insert(network, due, u64::from(BPF_ANY))
    }

    #[inline(always)]
    pub(crate) fn due(self) -> u64 {
        // SAFETY: the kernel gave the pointer out. Aligned to 8 bytes, and written by the programs only, whole.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn set_due(self, due: u64) {
        // SAFETY: as above.
        unsafe { self.0.as_ptr().write_volatile(due) };
    }

    #[inline(always)]
    pub(crate) fn add(self, more: u64) {
        // SAFETY: as above.
        unsafe { add(self.0.as_ptr(), more) };
    }
}
