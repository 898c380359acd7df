//! Logs the verdict on each packet, with its flow and the reason, through aya-log (feature `ebpf-log`).
//!
//! It watches from the side, so that the programs without it are the same to the byte. The number of messages per
//! second is limited over all processors and programs, and those withheld are counted for the daemon.
#![expect(
    unsafe_code,
    reason = "maps are read through pointers, and the verifier finds global functions by their names"
)]

use core::ptr::NonNull;

use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::btf_map;
use aya_log_ebpf::macro_support::{Level, level_enabled};
use rpxy_l4_common::bucket::{Charge, charge};
use rpxy_l4_common::map::{FlowKey, Socket, log_state};
use rpxy_l4_common::verdict::{Action, Counter};

use crate::clock;
use crate::maps::{PROGRAMS, XDP, add};

#[btf_map]
static LOG_NOTE: PerCpuArray<Note, 1> = PerCpuArray::new();
#[btf_map]
static LOG_STATE: Array<u64, { log_state::LEN }> = Array::new();

/// The packet that a processor works on. If XDP interrupts TC, the message of TC may lack its flow.
#[repr(C)]
struct Note {
    program: u32,
    /// Without a family until it is known.
    key: FlowKey,
}

/// Notes the program that has a packet.
#[inline(always)]
pub(crate) fn begin(program: u32) {
    if let Some(note) = the_note() {
        note.program = program;
        note.key.source.end = 0;
    }
}

/// Notes the flow of the packet, once its headers were read.
#[inline(always)]
pub(crate) fn note(key: &FlowKey) {
    if let Some(note) = the_note() {
        note.key = *key;
    }
}

/// Logs the outcome of the packet.
#[inline(always)]
pub(crate) fn tell(outcome: Counter) {
    if level_enabled(level(outcome)) {
        rpxy_l4_tell(outcome.index());
    }
}

/// Steered packets, and those that do not concern the daemon, are most of the traffic and have a level of their own.
#[inline(always)]
fn level(outcome: Counter) -> Level {
    if outcome.index() <= Counter::Foreign.index() { Level::Trace } else { Level::Debug }
}

/// A function of its own, since it needs the stack for itself; global, so that it is verified once. A global function
/// has to return a number.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn rpxy_l4_tell(outcome: u32) -> u32 {
    if !admits() {
        return 0;
    }
    let Some(Note { program, key: FlowKey { source, destination } }) = the_note() else { return 0 };
    let verdicts = if *program == XDP { &VERDICTS[0] } else { &VERDICTS[1] };
    let Some(verdict) = verdicts.get(outcome as usize) else { return 0 };
    // SAFETY: made of ASCII, below.
    let verdict = unsafe { core::str::from_utf8_unchecked(verdict) };
    let level = if outcome <= Counter::Foreign.index() { Level::Trace } else { Level::Debug };
    match source.family() {
        4 => {
            let (from, to) = (v4(source), v4(destination));
            let (from_port, to_port) = (port(source), port(destination));
            aya_log_ebpf::log!((), level, "{:i}:{} -> {:i}:{} {}", from, from_port, to, to_port, verdict);
        }
        6 => {
            let (from, to) = (source.address, destination.address);
            let (from_port, to_port) = (port(source), port(destination));
            aya_log_ebpf::log!((), level, "[{:i}]:{} -> [{:i}]:{} {}", from, from_port, to, to_port, verdict);
        }
        _ => aya_log_ebpf::log!((), level, "{}", verdict),
    }
    1
}

#[inline(always)]
fn v4(socket: &Socket) -> [u8; 4] {
    let [a, b, c, d, ..] = socket.address;
    [a, b, c, d]
}

#[inline(always)]
fn port(socket: &Socket) -> u16 {
    u16::from_be_bytes(socket.port())
}

#[inline(always)]
fn the_note<'a>() -> Option<&'a mut Note> {
    let slot = LOG_NOTE.get_ptr_mut(0).and_then(NonNull::new)?;
    // SAFETY: the slot belongs to this processor, where one program runs at a time; see `Note`.
    Some(unsafe { &mut *slot.as_ptr() })
}

/// Counts a message. Returns true if the rate allows it: a token bucket as in `limit`.
#[inline(always)]
fn admits() -> bool {
    let number = |index| LOG_STATE.get_ptr_mut(index).and_then(NonNull::new);
    let (Some(due), Some(asked)) = (number(log_state::DUE), number(log_state::MESSAGES)) else { return false };
    // SAFETY: the kernel gave the pointers out. Numbers in a map, aligned to 8 bytes; of charges that race, one may be
    // forgotten.
    unsafe {
        add(asked.as_ptr(), 1);
        let full = due.as_ptr().read_volatile();
        match charge(full, clock::precise(), log_state::INTERVAL, log_state::WINDOW, 1) {
            Charge::Refused => return false,
            Charge::Begin(due_now) => due.as_ptr().write_volatile(due_now),
            Charge::Add(more) => add(due.as_ptr(), more),
        }
    }
    true
}

/// Length of the texts below.
const WIDTH: usize = 40;

/// Program, action and reason, padded with blanks: texts of one size need no pointers, which an object cannot have in
/// its data, and no length that the verifier would have to follow.
static VERDICTS: [[[u8; WIDTH]; Counter::COUNT as usize]; PROGRAMS] = [verdicts("xdp "), verdicts("tc ")];

const fn verdicts(program: &str) -> [[u8; WIDTH]; Counter::COUNT as usize] {
    let mut all = [[b' '; WIDTH]; Counter::COUNT as usize];
    let mut index = 0;
    while index < all.len() {
        let counter = Counter::ALL[index];
        let at = put(&mut all[index], 0, program);
        let at = match counter.action() {
            // What it is counted under says it all.
            Action::Steer => at,
            action @ (Action::Pass | Action::Drop) => put(&mut all[index], at, action.name()) + 1,
        };
        put(&mut all[index], at, counter.name());
        index += 1;
    }
    all
}

/// Writes a text at a position, and returns where it ends.
const fn put(to: &mut [u8; WIDTH], at: usize, text: &str) -> usize {
    let text = text.as_bytes();
    assert!(text.is_ascii());
    let mut index = 0;
    while index < text.len() {
        to[at + index] = text[index];
        index += 1;
    }
    at + text.len()
}
