//! The maps of the object, and the only place where their memory is touched.
//!
//! Sizes are defaults, which the loader replaces. All but `SOURCES` are filled by the daemon alone. They are preallocated where the
//! kernel can do that, so that an entry once taken in can always be replaced, and a packet never waits for memory. The
//! price is that the kernel uses removed entries again at once: see [`Flow::seal`](rpxy_l4_common::map::Flow::seal).
#![expect(unsafe_code, reason = "entries are read through pointers into the kernel's memory")]

use core::arch::asm;
use core::ops::Deref;
use core::ptr::NonNull;

use aya_ebpf::bindings::{__sk_buff, BPF_ANY};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;
use rpxy_l4_common::bucket::{Charge, charge};
use rpxy_l4_common::bytes::{Bytes, Span};
use rpxy_l4_common::datagram::WIREGUARD_INITIATION_LEN;
use rpxy_l4_common::decide::{Found, Maps, Steer};
use rpxy_l4_common::mac1::{Initiation, MOST_KEYS, Mac1Key};
use rpxy_l4_common::map::{Flow, FlowEntry, FlowKey, Hop, HopKey, Listener, Prefix, Socket, SourceLimit};
use rpxy_l4_common::verdict::Counter;

use crate::many;

#[btf_map]
static FLOWS: HashMap<FlowKey, FlowEntry, 65536> = HashMap::new();
#[btf_map]
static LISTENERS: HashMap<Socket, Listener, 1024> = HashMap::new();
#[btf_map]
static LOCAL: HashMap<[u8; 16], u8, 1024> = HashMap::new();
#[btf_map]
static BANNED: LpmTrie<[u8; 20], u8, 65536> = LpmTrie::new();
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
static COPIES: PerCpuArray<Copies, PROGRAMS> = PerCpuArray::new();
#[btf_map]
static LEASE: Array<u64, 1> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();

/// Whether the daemon has not put off the end of its lease.
#[inline(always)]
pub(crate) fn has_lapsed() -> bool {
    let Some(lease) = LEASE.get_ptr(0).and_then(|lease| NonNull::new(lease.cast_mut())) else { return false };
    // SAFETY: the kernel gave the pointer out. One number, which the daemon replaces whole.
    let end = unsafe { lease.as_ptr().read_volatile() };
    // SAFETY: a helper that reads a clock.
    end != 0 && unsafe { bpf_ktime_get_coarse_ns() } > end
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

/// Accounts a packet that was steered in the entry of its flow.
#[inline(always)]
pub(crate) fn account<H>(steer: &Steer<'_, Entry<'_>, H>) {
    let place = steer.flow.place.as_ptr();
    // SAFETY: a helper that reads a clock. The fields lie within the entry, are aligned to 8 bytes, and are written by
    // nobody but the programs; the kernel keeps the memory until this program ends.
    unsafe {
        (&raw mut (*place).counted.last_seen).write_volatile(bpf_ktime_get_coarse_ns());
        add(&raw mut (*place).counted.packets, steer.datagrams as u64);
        add(&raw mut (*place).counted.bytes, steer.packet.payload.len as u64);
    }
}

/// Atomic addition, which the target has, although core says that it has no atomic operations at all.
///
/// # Safety
///
/// `place` points to a number in a map, aligned to 8 bytes.
#[inline(always)]
unsafe fn add(place: *mut u64, number: u64) {
    // SAFETY: one instruction that adds to the number at `place`.
    unsafe { asm!("lock *(u64 *)({place} + 0) += {number}", place = in(reg) place, number = in(reg) number) };
}

/// A flow as it was read, and where its entry lies in the map. The kernel may use that place for another entry at any
/// time, so that everything is decided by the copy, once it is known to be whole.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'s> {
    copy: &'s Flow,
    place: NonNull<FlowEntry>,
}

impl Deref for Entry<'_> {
    type Target = Flow;

    #[inline(always)]
    fn deref(&self) -> &Flow {
        self.copy
    }
}

/// A setting of the daemon's, where it lies in its array.
struct Setting<T>(NonNull<T>);

impl<T> Deref for Setting<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the kernel gave the pointer out, and an array's places are for ever. Every type in the maps is plain
        // bytes, so that a value is one even while the daemon replaces it.
        unsafe { self.0.as_ref() }
    }
}

/// Programs that have a place of their own for copies.
pub(crate) const PROGRAMS: usize = 2;

/// What a program has read of the maps for one packet. Not on the stack, where it has no room beside the hash of
/// initiations. A processor runs one program at a time to its end (in a softirq, which is not interrupted by another);
/// XDP and TC have a place each all the same.
#[repr(C)]
struct Copies {
    flow: Flow,
    hop: Hop,
}

/// The look-ups of one decision, which asks for one flow and one hop.
pub(crate) struct Kernel {
    copies: NonNull<Copies>,
    /// Where the packet is, for the program that has one.
    buffer: Option<*mut __sk_buff>,
}

impl Kernel {
    /// With the place of a program for copies.
    #[inline(always)]
    pub(crate) fn of(program: u32, buffer: Option<*mut __sk_buff>) -> Option<Self> {
        COPIES.get_ptr_mut(program).and_then(NonNull::new).map(|copies| Self { copies, buffer })
    }
}

/// Copies the value at `from`, word by word.
///
/// # Safety
///
/// Both places are within entries, at multiples of 8 bytes, and of plain bytes, so that what is read is a value even
/// while the daemon replaces it. No earlier copy is used any more.
#[inline(always)]
unsafe fn copy<'s, T: Copy>(from: *const T, to: *mut T) -> &'s T {
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

impl<'s> Maps for &'s Kernel {
    type Flow = Entry<'s>;
    type Hop = &'s Hop;

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<Self::Flow> {
        let place = FLOWS.get_ptr_mut(key).and_then(NonNull::new)?;
        // SAFETY: the kernel gave the pointer out, and keeps the memory until this program ends.
        let copy = unsafe { copy(&raw const (*place.as_ptr()).flow, &raw mut (*self.copies.as_ptr()).flow) };
        Some(Entry { copy, place })
    }

    #[inline(always)]
    fn hop(&self, key: HopKey) -> Option<Self::Hop> {
        let place = HOPS.get_ptr(key).map(<*const Hop>::cast_mut).and_then(NonNull::new)?;
        // SAFETY: likewise.
        let hop = unsafe { copy(place.as_ptr(), &raw mut (*self.copies.as_ptr()).hop) };
        (hop.interface != 0).then_some(hop)
    }

    #[inline(always)]
    fn is_whole_flow(&self, key: &FlowKey, flow: &Self::Flow) -> bool {
        flow.is_whole(key)
    }

    #[inline(always)]
    fn is_whole_hop(&self, key: HopKey, hop: &Self::Hop) -> bool {
        hop.is_whole(key)
    }

    #[inline(always)]
    fn listener(&self, socket: &Socket) -> Option<Listener> {
        // SAFETY: the kernel gave the pointer out. It is one number, and all listeners have the same.
        LISTENERS.get_ptr_mut(socket).and_then(NonNull::new).map(|place| unsafe { place.as_ptr().read_volatile() })
    }

    #[inline(always)]
    fn is_local(&self, address: &[u8; 16]) -> bool {
        LOCAL.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_banned(&self, source: &Prefix) -> bool {
        const { assert!(size_of::<Prefix>() == size_of::<Key<[u8; 20]>>()) };
        // SAFETY: both are the number of bits and 20 bytes behind it, and the key may have any alignment.
        let key = unsafe { &*core::ptr::from_ref(source).cast::<Key<[u8; 20]>>() };
        BANNED.get(key).is_some()
    }

    #[inline(always)]
    fn gate_each<B: Bytes>(&self, _: &B, _: &Self::Flow, payload: Span, segment: usize) -> Result<(), Counter> {
        let Some(buffer) = self.buffer else { return Err(Counter::Segments) };
        many::gate(buffer, payload, segment)
    }

    #[inline(always)]
    fn first_each<B: Bytes>(&self, _: &B, bits: u32, payload: Span, segment: usize) -> Found {
        let Some(buffer) = self.buffer else { return Found::Passed(Counter::Segments) };
        many::first(buffer, bits, payload, segment)
    }

    #[inline(always)]
    fn fits_mac1<B: Bytes>(&self, bytes: &B, payload: Span) -> bool {
        !read_initiation(bytes, payload.offset) || rpxy_l4_fits_any_key()
    }

    #[inline(always)]
    fn admits(&self, source: &Socket, handshakes: u32) -> bool {
        admits(source, handshakes)
    }
}

/// The flow that a program has read last.
#[inline(always)]
pub(crate) fn flow_of<'s>(program: u32) -> Option<&'s Flow> {
    let copies = COPIES.get_ptr_mut(program).and_then(NonNull::new)?;
    // SAFETY: the place belongs to this processor, where the program that has written it asks now.
    Some(unsafe { &(*copies.as_ptr()).flow })
}

/// What one processor reads of an initiation.
#[inline(always)]
fn initiation<'a>() -> Option<&'a mut Initiation> {
    let place = INITIATION.get_ptr_mut(0).and_then(NonNull::new)?;
    // SAFETY: the place belongs to this processor, where one program runs at a time; should another one interrupt it
    // (see `count`), an initiation may be dropped, and the client sends another one 5 s later.
    Some(unsafe { &mut *place.as_ptr() })
}

/// Reads an initiation; whether all of it can be read. A function of its own: it needs the stack for itself.
#[inline(never)]
fn read_initiation<B: Bytes>(bytes: &B, offset: usize) -> bool {
    let payload = Span { offset, len: WIREGUARD_INITIATION_LEN };
    initiation().and_then(|initiation| initiation.read(bytes, payload)).is_some()
}

/// Whether the initiation that was read is made for one of the keys. A function of its own, and one for both programs:
/// it needs the stack for itself. Being global, it is verified once and not on every way that leads to it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn rpxy_l4_fits_any_key() -> bool {
    let Some(initiation) = initiation() else { return true };
    for index in (0..).take(MOST_KEYS) {
        let Some(key) = MAC1_KEYS.get_ptr(index).and_then(|key| NonNull::new(key.cast_mut())).map(Setting) else {
            return true;
        };
        if key.used == 0 {
            return index == 0;
        }
        if initiation.is_for(&key) {
            return true;
        }
    }
    false
}

/// Charges handshakes to the network of their sender. No lock: where two processors begin a bucket at once, one of them
/// is forgotten, and so are buckets that had to make room.
#[inline(always)]
fn admits(source: &Socket, handshakes: u32) -> bool {
    let limit = SOURCE_LIMIT.get_ptr(0).and_then(|limit| NonNull::new(limit.cast_mut())).map(Setting);
    let Some(limit) = limit.filter(|limit| limit.interval > 0) else { return true };
    let network = limit.network(source);
    // SAFETY: a helper that reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let bucket = SOURCES.get_ptr_mut(network).and_then(NonNull::new);
    // SAFETY: aligned to 8 bytes, and written by nobody but the programs, whole.
    let due = bucket.map_or(0, |bucket| unsafe { bucket.as_ptr().read_volatile() });
    match (charge(due, now, limit.interval, limit.window, limit.charged(handshakes)), bucket) {
        (Charge::Refused, _) => return false,
        (Charge::Begin(due) | Charge::Add(due), None) => {
            // Without memory for it there is no limit.
            if SOURCES.insert(network, due, u64::from(BPF_ANY)).is_err() {
                return true;
            }
        }
        // SAFETY: as above.
        (Charge::Begin(due), Some(bucket)) => unsafe { bucket.as_ptr().write_volatile(due) },
        // SAFETY: as above.
        (Charge::Add(more), Some(bucket)) => unsafe { add(bucket.as_ptr(), more) },
    }
    true
}
