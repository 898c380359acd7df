//! What leaves, against segments built anew.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::bytes::Bytes;
use crate::rewrite::checksum::{fold, update};
use crate::tcp::options::find;
use crate::tcp::translate::{Change, Packet, translate};

/// A packet in memory.
pub(super) struct Memory(pub(super) Vec<u8>);

impl Bytes for Memory {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.as_slice().read(offset)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Packet for Memory {
    fn write<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()> {
        *self.0.get_mut(offset..)?.first_chunk_mut()? = value;
        Some(())
    }

    fn write_uncovered(&mut self, offset: usize, value: u8) -> Option<()> {
        self.write(offset, [value])
    }
}

/// The frame as it leaves, by the code under test.
fn translated(bytes: &[u8], flow: &TcpFlow) -> Vec<u8> {
    let mut leaves = Memory(bytes.to_vec());
    let key = &mut FlowKey::default();
    let segment = parse(&bytes, Link::Ethernet, key).unwrap();
    let change = translate(&mut leaves, &segment, find(&bytes, segment.options), flow).unwrap();
    leaves.write(segment.l4 + 16, change.applied(segment.checksum).to_be_bytes()).unwrap();
    leaves.0
}

/// What the checksum is told.
fn change(bytes: &[u8], flow: &TcpFlow) -> (Change, u16) {
    with_segment(bytes, |segment| {
        let change = translate(&mut Memory(bytes.to_vec()), segment, find(&bytes, segment.options), flow).unwrap();
        (change, segment.checksum)
    })
}

/// A segment with its options in a form that can be translated the slow way.
#[derive(Debug, Clone)]
struct Sent {
    frame: Frame,
    /// No operations before the options, so that they stand at any offset.
    shift: usize,
    timestamps: Option<(u32, u32)>,
    blocks: Vec<u32>,
}

impl Sent {
    fn frame(&self) -> Frame {
        let mut options = vec![1; self.shift];
        if let Some((value, echo)) = self.timestamps {
            options.extend(&timestamps(value, echo)[2..]);
        }
        if !self.blocks.is_empty() {
            options.extend(&sack(&self.blocks)[2..]);
        }
        options.resize(options.len().next_multiple_of(4), 0);
        Frame { options, ..self.frame.clone() }
    }

    /// What arrives, built anew.
    fn expected(&self, flow: &TcpFlow) -> Frame {
        let frame = &self.frame;
        let window = match (frame.flags & flag::SYN != 0, flow.window_shift) {
            (true, _) => frame.window,
            (false, shift @ ..0) => frame.window >> -i32::from(shift),
            (false, shift) => u16::try_from(u64::from(frame.window) << shift).unwrap_or(u16::MAX),
        };
        let acknowledges = frame.flags & flag::ACK != 0;
        let acknowledgement = frame.acknowledgement.wrapping_add(if acknowledges { flow.acknowledgement } else { 0 });
        let frame = Frame {
            source: flow.source,
            destination: flow.destination,
            ttl: frame.ttl - 1,
            sequence: frame.sequence.wrapping_add(flow.sequence),
            acknowledgement,
            window,
            ..frame.clone()
        };
        let timestamps = self.timestamps.map(|(value, echo)| {
            (value.wrapping_add(flow.timestamp), if echo == 0 { 0 } else { echo.wrapping_add(flow.echo) })
        });
        let blocks = self.blocks.iter().map(|edge| edge.wrapping_add(flow.acknowledgement)).collect();
        Self { frame, timestamps, blocks, shift: self.shift }.frame()
    }
}

#[test]
fn a_translated_segment_is_the_one_that_would_have_been_built() {
    let sent = |frame: Frame| Sent { frame, shift: 0, timestamps: None, blocks: vec![] };
    let with = |timestamps, blocks: &[u32], shift| Sent {
        frame: Frame { payload: b"payload".to_vec(), ..Frame::v4() },
        shift,
        timestamps,
        blocks: blocks.to_vec(),
    };
    let rows = [
        ("IPv4", sent(Frame::v4())),
        ("IPv6", sent(Frame::v6())),
        ("odd payload", sent(Frame { payload: b"hello".to_vec(), ..Frame::v6() })),
        ("FIN", sent(Frame { flags: flag::ACK | flag::FIN, ..Frame::v4() })),
        ("RST without ACK: the acknowledgement stays", sent(Frame { flags: flag::RST, ..Frame::v4() })),
        ("SYN: the window is not scaled", sent(Frame { flags: flag::SYN, ..Frame::v4() })),
        ("urgent data: the pointer counts from the segment", sent(Frame { urgent: 3, flags: 0x30, ..Frame::v4() })),
        ("congestion bits", sent(Frame { flags: 0xd0, ..Frame::v4() })),
        ("no window", sent(Frame { window: 0, ..Frame::v4() })),
        ("a window that becomes the largest", sent(Frame { window: 0x4000, ..Frame::v4() })),
        ("numbers that wrap", sent(Frame { sequence: u32::MAX, acknowledgement: u32::MAX, ..Frame::v4() })),
        ("TTL 255", sent(Frame { ttl: 255, ..Frame::v4() })),
        ("timestamps", with(Some((7, 8)), &[], 2)),
        ("timestamps without an echo", with(Some((7, 0)), &[], 2)),
        ("timestamps at an odd place", with(Some((7, 8)), &[], 1)),
        ("four blocks", with(None, &[1, 2, 3, 4, 5, 6, 7, 8], 2)),
        ("blocks at an odd place", with(None, &[1, 2], 3)),
        ("a block below the acknowledgement (RFC 2883)", with(None, &[10, 20], 2)),
        ("timestamps and blocks", with(Some((u32::MAX, u32::MAX)), &[1, u32::MAX, 5, 6], 0)),
    ];
    for (row, sent) in rows {
        let flow = flow_for(&sent.frame);
        assert_eq!(translated(&sent.frame().bytes(), &flow), sent.expected(&flow).bytes(), "{row}");
    }
}

#[test]
fn options_that_cannot_be_read_stay_as_they_are() {
    let options = [&[30, 0][..], &timestamps(7, 8)[2..]].concat();
    let frame = Frame { options: options.clone(), ..Frame::v4() };
    let leaves = translated(&frame.bytes(), &flow_for(&frame));
    assert_eq!(leaves[54..66], options);
}

#[test]
fn both_directions_undo_each_other() {
    let frame = Frame { options: [timestamps(7, 8), sack(&[30, 40])].concat(), ..Frame::v4() };
    let there = TcpFlow { window_shift: 0, ..flow_for(&frame) };
    let back = TcpFlow {
        source: frame.source,
        destination: frame.destination,
        sequence: there.sequence.wrapping_neg(),
        acknowledgement: there.acknowledgement.wrapping_neg(),
        timestamp: there.timestamp.wrapping_neg(),
        echo: there.echo.wrapping_neg(),
        ..there
    }
    .stored(&FlowKey { source: there.source, destination: there.destination });
    let returned = translated(&translated(&frame.bytes(), &there), &back);
    assert_eq!(returned, Frame { ttl: 62, ..frame }.bytes());
}

/// `bpf_l4_csum_replace` with a size of 0 (net/core/utils.c, `inet_proto_csum_replace_by_diff`).
fn l4_csum_replace(field: u16, change: u32, pseudo: bool, partial: bool) -> u16 {
    let add = |a: u32, b: u32| {
        let (sum, carry) = a.overflowing_add(b);
        sum + u32::from(carry)
    };
    match (partial, pseudo) {
        (false, _) => !fold(add(change, !u32::from(field))),
        (true, true) => fold(add(change, u32::from(field))),
        (true, false) => field,
    }
}

fn any_sent() -> impl Strategy<Value = (Sent, TcpFlow)> {
    let number = || prop_oneof![any::<u32>(), Just(0), Just(u32::MAX)];
    let head = (number(), number(), any::<u8>(), any::<u16>(), any::<u16>(), 2..=255_u8);
    let options = (0..4_usize, option::of((number(), number())), vec((number(), number()), 0..=3));
    let flow = (number(), number(), number(), number(), -14..=14_i8);
    (select(vec![4, 6]), head, options, vec(any::<u8>(), 0..40), flow).prop_map(
        |(family, head, (shift, timestamps, blocks), payload, flow)| {
            let (sequence, acknowledgement, flags, window, urgent, ttl) = head;
            let (plus_sequence, plus_acknowledgement, timestamp, echo, window_shift) = flow;
            let frame = if family == 4 { Frame::v4() } else { Frame::v6() };
            let frame = Frame { ttl, sequence, acknowledgement, flags, window, urgent, payload, ..frame };
            let flow = TcpFlow {
                sequence: plus_sequence,
                acknowledgement: plus_acknowledgement,
                timestamp,
                echo,
                window_shift,
                ..flow_for(&frame)
            };
            let blocks = blocks.into_iter().flat_map(|(left, right)| [left, right]).collect();
            (Sent { frame, shift: if timestamps.is_some() { shift % 3 } else { shift }, timestamps, blocks }, flow)
        },
    )
}

proptest! {
    #[test]
    fn any_segment_leaves_as_if_built_anew((sent, flow) in any_sent()) {
        let (leaves, expected) = (translated(&sent.frame().bytes(), &flow), sent.expected(&flow).bytes());
        // 0 and 0xffff are the same sum, and a segment is never all zeros: it has one way to be written only.
        prop_assert_eq!(leaves, expected);
    }

    #[test]
    fn helpers_of_the_kernel_come_to_the_same_checksum((sent, flow) in any_sent()) {
        let frame = sent.frame();
        let bytes = frame.bytes();
        let (change, checksum) = change(&bytes, &flow);
        let whole = l4_csum_replace(checksum.to_be(), change.of_addresses(), true, false);
        let whole = l4_csum_replace(whole, change.of_words(), false, false);
        prop_assert_eq!(u16::from_be(whole), change.applied(checksum));
        let partial = l4_csum_replace(frame.pseudo_sum().to_be(), change.of_addresses(), true, true);
        let partial = u16::from_be(l4_csum_replace(partial, change.of_words(), false, true));
        prop_assert_eq!(partial, sent.expected(&flow).pseudo_sum());
    }

    #[test]
    fn a_wrong_checksum_stays_wrong((sent, flow) in any_sent(), by in 1..0xffff_u16) {
        let mut bytes = sent.frame().bytes();
        let at = sent.frame.l4() + 16;
        let wrong = update(u16::from_be_bytes([bytes[at], bytes[at + 1]]), by);
        bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
        let (leaves, right) = (translated(&bytes, &flow), sent.expected(&flow).bytes());
        prop_assert_ne!(&leaves[at..at + 2], &right[at..at + 2]);
    }

    #[test]
    fn no_frame_is_written_beyond_its_headers(bytes in vec(any::<u8>(), 0..128), start in any::<bool>()) {
        let mut bytes = bytes;
        if start {
            // Most random frames are no TCP.
            let good = Frame { options: vec![1; 20], ..Frame::v4() }.bytes();
            let len = good.len().min(bytes.len()).min(54);
            bytes[..len].copy_from_slice(&good[..len]);
        }
        let key = &mut FlowKey::default();
        let packet = bytes.as_slice();
        if let Ok(segment) = parse(&packet, Link::Ethernet, key) {
            let flow = flow_for(&Frame::v4());
            let leaves = translated(packet, &flow);
            let payload = segment.options.offset + segment.options.len;
            prop_assert_eq!(&leaves[payload..], &bytes[payload..]);
            prop_assert_eq!(&leaves[..segment.l3], &bytes[..segment.l3]);
        }
    }
}
