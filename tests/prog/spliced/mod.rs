//! Spliced TCP: the host and the kernel agree on what becomes of any packet, in the programs of both ways.

mod host;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::env;
use std::hash::{BuildHasher as _, Hasher as _};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use rpxy_l4_common::map::FlowKey;
use rpxy_l4_common::tcp::counter::TcpCounter;
use rpxy_l4_common::tcp::flow::{Notes, Side, TcpFlow, may, state};
use rpxy_l4_common::tcp::name;

use crate::fixture::{ELSEWHERE, HERE, Net, V4, V6, address};
use crate::kernel::{Action, Kernel, TCP_IN, TCP_OUT};
use crate::maps::{key, socket};
use crate::packet::{ROUTER, STATION};

/// Repeats a run that failed.
const SEED_VARIABLE: &str = "RPXY_L4_TESTS_SEED";
/// Packets that are made up, each for both programs.
const CASES: u32 = 4096;
const SLOT: u32 = 3;
const CLIENT: u16 = 40_000;
const NEAR: u16 = 50_000;

/// What came out.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    action: Action,
    packet: Vec<u8>,
    counter: Option<TcpCounter>,
    sides: [Side; 2],
}

/// Both directions of a connection, and what is noted of it.
#[derive(Debug, Clone)]
struct Connection {
    flows: [(FlowKey, TcpFlow); 2],
    sides: [Side; 2],
}

/// A connection and a packet that has to do with it, or not.
#[derive(Debug, Clone)]
struct Case {
    connection: Connection,
    packet: Vec<u8>,
}

#[test]
fn host_and_kernel_agree_on_any_segment() {
    let Some(kernel) = Kernel::or_skip() else { return };
    let seed = env::var(SEED_VARIABLE)
        .map_or_else(|_| RandomState::new().build_hasher().finish(), |seed| seed.parse().unwrap());
    let config =
        Config { cases: CASES, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let (kernel, reached) = (RefCell::new(kernel), RefCell::new(BTreeSet::new()));
    let result = TestRunner::new(config).run(&cases(), |case| {
        let outcomes = compare(&mut kernel.borrow_mut(), &case);
        reached.borrow_mut().extend(outcomes.map_err(TestCaseError::fail)?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("repeat with {SEED_VARIABLE}={seed}\n{error}");
    }
    let reached = reached.into_inner();
    println!("{CASES} packets of seed {seed} reached {reached:?}");
    // What a test run cannot reach: tags beside the packet, a lease, and steps that the kernel refuses.
    let out_of_reach =
        [TcpCounter::VlanTagged, TcpCounter::Lapsed, TcpCounter::Refused, TcpCounter::Broken, TcpCounter::EntryChanged];
    for counter in TcpCounter::ALL.iter().filter(|counter| !out_of_reach.contains(counter)) {
        assert!(reached.contains(counter), "never {counter:?}");
    }
}

/// Runs a packet on both sides and in both programs; the outcomes, or how they differ.
fn compare(kernel: &mut Kernel, case: &Case) -> Result<Vec<TcpCounter>, String> {
    let Case { connection, packet } = case;
    for (key, flow) in &connection.flows {
        kernel.put(name::TCP_FLOWS, key.to_bytes(), flow.to_bytes());
    }
    let mut reached = Vec::new();
    for (program, expected) in
        [(TCP_IN, host::arrives(connection, packet)), (TCP_OUT, host::leaves(connection, packet))]
    {
        let notes = Notes { sides: connection.sides, ..Notes::default() };
        kernel.array::<[u8; 112]>(name::TCP_NOTES).set(SLOT, notes.to_bytes(), 0).unwrap();
        let before = kernel.sums(name::TCP_COUNTERS, TcpCounter::COUNT);
        let Some((action, mut packet)) = kernel.raw_run(program, packet, 0) else { continue };
        let expected = Outcome { packet: one_zero(expected.packet), ..expected };
        packet = one_zero(packet);
        let action = match action {
            2 => Action::Drop,
            7 => Action::Redirect,
            u32::MAX => Action::Pass,
            number => return Err(format!("{program} returned {number}")),
        };
        let after = kernel.sums(name::TCP_COUNTERS, TcpCounter::COUNT);
        let counted: Vec<_> = TcpCounter::ALL
            .iter()
            .zip(before.iter().zip(after))
            .flat_map(|(counter, (before, after))| (*before..after).map(|_| *counter))
            .collect();
        let notes = Notes::from_bytes(kernel.array(name::TCP_NOTES).get(&SLOT, 0).unwrap());
        let outcome = Outcome { action, packet, counter: counted.first().copied(), sides: notes.sides };
        if outcome != expected || counted.len() > 1 {
            return Err(format!("{program}\nhost:   {expected:02x?}\nkernel: {outcome:02x?}\n{counted:?}"));
        }
        let forwarded = notes.counted.iter().map(|side| side.packets).sum::<u64>();
        if forwarded != u64::from(outcome.counter == Some(TcpCounter::Forwarded)) {
            return Err(format!("{program}: {forwarded} packets counted"));
        }
        reached.extend(counted);
    }
    for (key, _) in &connection.flows {
        // A SYN where a connection has ended takes the entry away.
        let there = kernel.hash::<[u8; 40], [u8; 96]>(name::TCP_FLOWS).remove(&key.to_bytes()).is_ok();
        if !there && !reached.contains(&TcpCounter::NewConnection) {
            return Err("an entry is gone".to_owned());
        }
    }
    Ok(reached)
}

/// A packet of which a checksum of 0 has one form: all bits set mean the same (RFC 1071 section 2).
fn one_zero(mut packet: Vec<u8>) -> Vec<u8> {
    let (l4, protocol) = match packet.get(12..14) {
        Some([0x08, 0x00]) => (34, packet.get(23).copied()),
        Some([0x86, 0xdd]) => (54, packet.get(20).copied()),
        Some(_) | None => return packet,
    };
    let at = l4 + if protocol == Some(6) { 16 } else { 2 };
    if let Some(checksum) = packet.get_mut(at..at + 2)
        && checksum == [0xff; 2]
    {
        checksum.fill(0);
    }
    packet
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), 990..1_010_u32, 1_990..2_010_u32]
}

fn connection(net: Net) -> impl Strategy<Value = Connection> {
    let direction = || (number(), number(), any::<u32>(), any::<u32>(), -14..=14_i8, number());
    let window = || prop_oneof![Just(0), Just(64_000_u32), Just(1 << 30)];
    let side = || (number(), number(), window(), 0..=14_u8, 0..16_u8);
    let odd = prop_oneof![20 => Just(0_u8), 1 => 1..=3_u8];
    let state = prop_oneof![4 => Just(state::LIVE), 4 => state::CONNECTING..=state::ENDING];
    (state, 0..32_u8, [direction(), direction()], [side(), side()], odd).prop_map(
        move |(state, may, directions, sides, odd)| {
            let ends = [
                ((net.client, CLIENT), (net.ours, 443), (net.upstream, NEAR), (net.backend, 8443)),
                ((net.backend, 8443), (net.upstream, NEAR), (net.ours, 443), (net.client, CLIENT)),
            ];
            let mut side = 0;
            let flows = ends.map(|(from, to, source, destination)| {
                let (sequence, acknowledgement, timestamp, echo, window_shift, promised) = directions[side];
                let key = key(address(from.0, from.1), address(to.0, to.1));
                let flow = TcpFlow {
                    source: socket(address(source.0, source.1)),
                    destination: socket(address(destination.0, destination.1)),
                    interface: ELSEWHERE,
                    ingress: if odd == 1 { ELSEWHERE } else { HERE },
                    station: if odd == 2 { ROUTER } else { STATION },
                    state,
                    window_shift,
                    sequence,
                    acknowledgement,
                    timestamp,
                    echo,
                    slot: SLOT,
                    side: u8::try_from(side).unwrap(),
                    // A copy would leave the test run by the loopback interface.
                    may: may & !may::DOUBLE,
                    promised,
                    ..TcpFlow::default()
                };
                side += 1;
                let other = if net.name == V4.name { V6.upstream } else { V4.upstream };
                let mixed = TcpFlow { source: socket(address(other, NEAR)), ..flow };
                (key, if odd == 3 { mixed } else { flow }.stored(&key))
            });
            let sides = sides.map(|(next, acknowledged, largest_window, scale, seen)| Side {
                next,
                acknowledged,
                largest_window,
                scale,
                seen,
                ..Side::default()
            });
            Connection { flows, sides }
        },
    )
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let timestamps = [number(), number()]
        .prop_map(|[value, echo]| [&[8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat());
    let sack = vec(number(), 1..=4).prop_map(|edges| {
        let edges: Vec<u8> = edges.iter().flat_map(|edge| [edge.to_be_bytes(), edge.to_be_bytes()].concat()).collect();
        [&[5, u8::try_from(2 + edges.len()).unwrap()][..], &edges].concat()
    });
    let other = prop_oneof![Just(vec![4, 2]), Just(vec![1]), Just(vec![0]), vec(any::<u8>(), 1..6)];
    let each = prop_oneof![3 => timestamps, 2 => sack, 3 => other];
    vec(each, 0..4).prop_map(|parts| {
        let mut options = parts.concat();
        options.truncate(40);
        options.resize(options.len().next_multiple_of(4), 1);
        options
    })
}

fn cases() -> impl Strategy<Value = Case> {
    select(vec![V4, V6]).prop_flat_map(|net| {
        let fields =
            (number(), number(), any::<u16>(), select(vec![0x10_u8, 0x18, 0x11, 0x04, 0x14, 0x02, 0x12, 0xd0]));
        let payload = prop_oneof![1 => Just(vec![]), 3 => vec(any::<u8>(), 0..20)];
        let rest = (options(), payload, prop_oneof![9 => Just(64_u8), 1 => Just(1_u8)]);
        let broken = prop_oneof![6 => Just(None), 1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(Some)];
        let about = prop_oneof![5 => Just(0), 1 => 26..90_usize];
        (connection(net), 0..5_usize, fields, rest, broken, about).prop_map(
            move |(connection, way, fields, rest, broken, about)| {
                let ends = |key: &FlowKey, back: bool| {
                    if back { (key.destination, key.source) } else { (key.source, key.destination) }
                };
                // Towards us from either side, from us to either, or of another connection.
                let (mut source, destination) = ends(&connection.flows[way & 1].0, way & 2 != 0);
                if way == 4 {
                    source = source.with_port([1, 2]);
                }
                let mut packet = segment(&source, &destination, fields, &rest);
                if about > 0 {
                    // The same segment, sent back in part by somebody who found it too big.
                    packet = too_big(&source, &packet, about);
                }
                if let Some((at, byte)) = broken {
                    // Past the Ethernet header: a test run does not take every other.
                    let at = 14 + at.index(packet.len() - 14);
                    packet[at] = byte;
                }
                Case { connection, packet }
            },
        )
    })
}

/// ICMP about the first bytes of a segment that `to` has sent.
fn too_big(to: &rpxy_l4_common::map::Socket, segment: &[u8], quoted: usize) -> Vec<u8> {
    let v4 = to.family() == 4;
    let router = if v4 { vec![192, 0, 2, 254] } else { [&[0xfd][..], &[0; 14], &[9]].concat() };
    let receiver = &to.address[..router.len()];
    let quoted = &segment[14..segment.len().min(14 + quoted)];
    let kind = if v4 { [3, 4] } else { [2, 0] };
    let icmp = [&kind[..], &[0x12, 0x34, 0, 0, 5, 0x78], quoted].concat();
    let len = u16::try_from(icmp.len()).unwrap();
    let header = if v4 {
        [&[0x45, 0][..], &(20 + len).to_be_bytes(), &[0, 0, 0x40, 0, 64, 1, 0xab, 0xcd], &router, receiver].concat()
    } else {
        [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[58, 64], &router, receiver].concat()
    };
    [&segment[..14], &header, &icmp].concat()
}

type Fields = (u32, u32, u16, u8);

fn segment(
    source: &rpxy_l4_common::map::Socket,
    destination: &rpxy_l4_common::map::Socket,
    (sequence, acknowledgement, window, flags): Fields,
    (options, payload, ttl): &(Vec<u8>, Vec<u8>, u8),
) -> Vec<u8> {
    let v4 = source.family() == 4;
    let len = if v4 { 4 } else { 16 };
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let tcp = [
        &source.port()[..],
        &destination.port(),
        &sequence.to_be_bytes(),
        &acknowledgement.to_be_bytes(),
        &[words << 4, flags],
        &window.to_be_bytes(),
        &[0; 4],
        options,
        payload,
    ]
    .concat();
    let tcp_len = u16::try_from(tcp.len()).unwrap();
    let mut packet = [&STATION[..], &ROUTER].concat();
    if v4 {
        packet.extend([0x08, 0, 0x45, 0]);
        packet.extend((20 + tcp_len).to_be_bytes());
        packet.extend([0, 1, 0x40, 0, *ttl, 6, 0, 0]);
    } else {
        packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        packet.extend(tcp_len.to_be_bytes());
        packet.extend([6, *ttl]);
    }
    packet.extend(&source.address[..len]);
    packet.extend(&destination.address[..len]);
    if v4 {
        let sum = !sum(&packet[14..34]);
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let l4 = packet.len();
    packet.extend(tcp);
    set_checksum(&mut packet, l4, 0xffff);
    packet
}

/// The sum over a segment and its pseudo-header: 0xffff if the checksum is right.
fn checksum_error(packet: &[u8], l4: usize) -> u16 {
    let addresses = if l4 == 34 { &packet[26..34] } else { &packet[22..54] };
    let end = 14
        + if l4 == 34 {
            usize::from(u16::from_be_bytes([packet[16], packet[17]]))
        } else {
            40 + usize::from(u16::from_be_bytes([packet[18], packet[19]]))
        };
    let tcp = &packet[l4..end];
    let len = u16::try_from(tcp.len()).unwrap().to_be_bytes();
    sum(&[addresses, &[0, 6], &len, tcp].concat())
}

/// Sets the checksum so that the sum over everything is what it was before a change: 0xffff for a right one.
fn set_checksum(packet: &mut [u8], l4: usize, total: u16) {
    packet[l4 + 16..l4 + 18].fill(0);
    let rest = checksum_error(packet, l4);
    let (mut checksum, borrow) = total.overflowing_sub(rest);
    if borrow {
        checksum = checksum.wrapping_sub(1);
    }
    packet[l4 + 16..l4 + 18].copy_from_slice(&checksum.to_be_bytes());
}

/// The sum of RFC 1071, the slow way.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
