//! The maps of spliced connections, and the only place where their memory is touched.
#![expect(unsafe_code, reason = "entries are read through pointers into the kernel's memory")]

use core::ptr::NonNull;

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, Queue};
use aya_ebpf::macros::btf_map;
use rpxy_l4_common::map::FlowKey;
use rpxy_l4_common::tcp::counter::TcpCounter;
use rpxy_l4_common::tcp::decide::TcpMaps;
use rpxy_l4_common::tcp::flow::{Notes, Side, TcpFlow, seen::FIN};
use rpxy_l4_common::tcp::follow::{Meaning, follow, is_finished};
use rpxy_l4_common::tcp::segment::Segment;
use rpxy_l4_common::tcp::sequence::is_after;

use crate::maps::{add, copy};

#[btf_map]
static TCP_FLOWS: HashMap<FlowKey, TcpFlow, 65536> = HashMap::new();
#[btf_map]
static TCP_NOTES: Array<Notes, 65536> = Array::new();
#[btf_map]
static TCP_ENDED: Queue<u32, 65536> = Queue::new();
#[btf_map]
static TCP_COPIES: PerCpuArray<Scratch, PROGRAMS> = PerCpuArray::new();
#[btf_map]
static TCP_COUNTERS: PerCpuArray<u64, { TcpCounter::COUNT as usize }> = PerCpuArray::new();

/// The number of the program for what arrives in `TCP_COPIES`.
pub(super) const ARRIVING: u32 = 0;
/// The number of the other one.
pub(super) const LEAVING: u32 = 1;
const PROGRAMS: usize = 2;

/// Counts a packet under its outcome.
#[inline(always)]
pub(super) fn count(outcome: TcpCounter) {
    if let Some(slot) = TCP_COUNTERS.get_ptr_mut(outcome.index()) {
        // SAFETY: the slot belongs to this processor; should another program interrupt this one, a packet may go
        // uncounted.
        unsafe { *slot += 1 };
    }
}

/// The slot of a program for the copy of an entry.
#[derive(Clone, Copy)]
pub(super) struct Kernel(NonNull<Scratch>);

/// Copies of what a program has read for one packet.
#[repr(C, align(8))]
struct Scratch {
    key: FlowKey,
    flow: TcpFlow,
    sides: [Side; 2],
}

impl Kernel {
    /// Returns the slot of a program, which is always there.
    #[inline(always)]
    pub(super) fn of(program: u32) -> Option<Self> {
        TCP_COPIES.get_ptr_mut(program).and_then(NonNull::new).map(Self)
    }

    /// Returns the place for the addresses of the packet.
    #[inline(always)]
    pub(super) fn key<'s>(&self) -> &'s mut FlowKey {
        // SAFETY: the slot belongs to this processor, and nothing else refers to this part of it.
        unsafe { &mut (*self.0.as_ptr()).key }
    }
}

impl<'s> TcpMaps for &'s Kernel {
    type Flow = &'s TcpFlow;

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<&'s TcpFlow> {
        let slot = TCP_FLOWS.get_ptr_mut(key).and_then(NonNull::new)?;
        // SAFETY: the kernel gave the pointer out, and keeps the memory until this program ends; the copy is this
        // processor's.
        Some(unsafe { copy(slot.as_ptr(), &raw mut (*self.0.as_ptr()).flow) })
    }

    #[inline(always)]
    fn follow(&self, flow: &&'s TcpFlow, segment: &Segment<'_>) -> Option<Meaning> {
        let notes = notes(flow.slot)?.as_ptr();
        let scratch = self.0.as_ptr();
        // SAFETY: the kernel gave the pointers out; the copies are this processor's, one for each side. Numbers that another
        // processor is writing may be of two segments, which their next one puts right.
        unsafe {
            copy(&raw const (*notes).sides, &raw mut (*scratch).sides);
            let [client, backend] = &mut (*scratch).sides;
            Some(if flow.side == 0 {
                follow(segment, flow, client, backend)
            } else {
                follow(segment, flow, backend, client)
            })
        }
    }
}

#[inline(always)]
fn notes(slot: u32) -> Option<NonNull<Notes>> {
    TCP_NOTES.get_ptr_mut(slot).and_then(NonNull::new)
}

/// Removes the entry of packets with these addresses: they belong to a new connection.
#[inline(always)]
pub(super) fn forget(kernel: &Kernel) {
    let _absent = TCP_FLOWS.remove(kernel.key());
}

/// Notes a packet that was forwarded, with what [`TcpMaps::follow`] has noted of its sender.
#[inline(always)]
pub(super) fn note(kernel: &Kernel, flow: &TcpFlow, payload: u64, meaning: Meaning, now: u64) {
    let Some(notes) = notes(flow.slot) else { return };
    let notes = notes.as_ptr();
    // SAFETY: the kernel gave the pointer out, and the slots of an array stay for ever. Counts are added to in one
    // instruction each.
    unsafe {
        if !matches!(meaning, Meaning::Nothing) {
            // The sender's alone: the other one is noted by its own packets.
            let scratch = kernel.0.as_ptr();
            if flow.side == 0 {
                advance(&raw const (*scratch).sides[0], &raw mut (*notes).sides[0]);
            } else {
                advance(&raw const (*scratch).sides[1], &raw mut (*notes).sides[1]);
            }
            (&raw mut (*notes).last_seen).write_volatile(now);
        }
        let counted = if flow.side == 0 { &raw mut (*notes).counted[0] } else { &raw mut (*notes).counted[1] };
        add(&raw mut (*counted).packets, 1);
        add(&raw mut (*counted).bytes, payload);
        // The last two acknowledgements may cross on two processors, neither of which has found what the other one was about
        // to note. The additions above are barriers: whoever notes later finds it now.
        let has_ended =
            matches!(meaning, Meaning::Ended) || matches!(meaning, Meaning::Alive) && has_finished(kernel, notes, flow);
        if has_ended {
            let ended = &raw mut (*notes).ended;
            if ended.read_volatile() == 0 {
                // Should there be no room, the daemon finds it by itself, later.
                let _told = TCP_ENDED.push(flow.slot, 0);
            }
            ended.write_volatile(now);
        }
    }
}

/// Whether both sides have finished, by what is noted now.
#[inline(always)]
unsafe fn has_finished(kernel: &Kernel, notes: *const Notes, flow: &TcpFlow) -> bool {
    let scratch = kernel.0.as_ptr();
    // SAFETY: of the caller, the notes stay; the copies are this processor's.
    unsafe {
        let client = (&raw const (*notes).sides[0].seen).read_volatile();
        let backend = (&raw const (*notes).sides[1].seen).read_volatile();
        if client & backend & FIN == 0 {
            return false;
        }
        copy(&raw const (*notes).sides, &raw mut (*scratch).sides);
        let [client, backend] = &(*scratch).sides;
        if flow.side == 0 { is_finished(client, backend, flow) } else { is_finished(backend, client, flow) }
    }
}

/// Notes what `found` has beyond what is there already. Packets of one side may be on several processors: nothing that
/// one of them has noted is taken back by another that has read the notes before it.
#[inline(always)]
unsafe fn advance(found: *const Side, noted: *mut Side) {
    // SAFETY: of the caller, both are whole and stay. Each field is read and written alone.
    unsafe {
        if is_after((*found).next, (&raw const (*noted).next).read_volatile()) {
            (&raw mut (*noted).next).write_volatile((*found).next);
        }
        if is_after((*found).acknowledged, (&raw const (*noted).acknowledged).read_volatile()) {
            (&raw mut (*noted).acknowledged).write_volatile((*found).acknowledged);
        }
        if (*found).largest_window > (&raw const (*noted).largest_window).read_volatile() {
            (&raw mut (*noted).largest_window).write_volatile((*found).largest_window);
        }
        let seen = (&raw const (*noted).seen).read_volatile();
        if (*found).seen & FIN != 0 && (*found).end != (&raw const (*noted).end).read_volatile() {
            (&raw mut (*noted).end).write_volatile((*found).end);
        }
        if (*found).seen & !seen != 0 {
            (&raw mut (*noted).seen).write_volatile((*found).seen | seen);
        }
    }
}

/// Notes the timestamps of a probe towards a side.
#[inline(always)]
pub(super) fn probed(slot: u32, side: u8, clock: u32, echo: u32) {
    let Some(notes) = notes(slot) else { return };
    // SAFETY: as above.
    unsafe {
        let noted = if side == 0 { &raw mut (*notes.as_ptr()).sides[0] } else { &raw mut (*notes.as_ptr()).sides[1] };
        (&raw mut (*noted).clock).write_volatile(clock);
        (&raw mut (*noted).echo).write_volatile(echo);
        let seen = &raw mut (*noted).seen;
        seen.write_volatile(seen.read_volatile() | rpxy_l4_common::tcp::flow::seen::PROBE);
    }
}
