//! What begins a session: initiations by their mac1, and handshakes by the network of their sender.

use rpxy_l4_common::mac1::{MOST_KEYS, Mac1Key};
use rpxy_l4_common::map::{SourceLimit, drop_class};
use rpxy_l4_common::verdict::Counter;

use crate::kernel::{Kernel, Program};
use crate::maps::{Maps, socket};
use crate::packet::Udp;
use crate::rows::{Expected, Row, check_over};

/// A real one, for the server with the public key below.
const INITIATION: &[u8; 148] = include_bytes!("../data/wireguard-initiation.bin");
const PUBLIC_KEY: [u8; 32] = [
    0x8b, 0xa3, 0x26, 0x7e, 0x96, 0x36, 0xb4, 0x4c, 0xc0, 0xda, 0x7b, 0x46, 0x48, 0x68, 0x8d, 0xf8, 0x3f, 0x42, 0x83,
    0xc0, 0x08, 0xb5, 0xd3, 0x5a, 0x60, 0xdb, 0xa8, 0xd5, 0x6e, 0x44, 0x59, 0x1c,
];

const CLIENTS: [(&str, &str); 2] =
    [("192.0.2.11:4433", "203.0.113.1:443"), ("[2001:db8:1::11]:4433", "[2001:db8:9::1]:443")];

fn maps(bits: u32) -> Maps {
    let listeners = CLIENTS.map(|(_, ours)| (socket(ours.parse().unwrap()), bits)).to_vec();
    Maps { listeners, ..Maps::default() }
}

fn udp(from: &str, to: &str, payload: &[u8]) -> Udp {
    Udp::new(from.parse().unwrap(), to.parse().unwrap(), payload)
}

fn key(number: usize) -> Mac1Key {
    Mac1Key::new(&[u8::try_from(number).unwrap(); 32])
}

#[test]
fn an_initiation_passes_by_any_of_the_keys() {
    let changed = |place: usize| {
        let mut datagram = INITIATION.to_vec();
        datagram[place] ^= 1;
        datagram
    };
    let (fits, others) = (Counter::NoFlow, Counter::DroppedWireGuardMac1);
    for count in [0, 1, MOST_KEYS] {
        for place in 0..=count {
            let mut keys: Vec<Mac1Key> = (0..count).map(key).collect();
            let expected = match keys.get_mut(place) {
                Some(own) => {
                    *own = Mac1Key::new(&PUBLIC_KEY);
                    Expected::Pass(fits)
                }
                None if count == 0 => Expected::Pass(fits),
                None => Expected::Drop(others),
            };
            let wrong = if count == 0 { Expected::Pass(fits) } else { Expected::Drop(others) };
            let maps = Maps { mac1_keys: keys, ..maps(drop_class::WIREGUARD_MAC1) };
            // The first and last bytes that the MAC covers, its own, and one behind it.
            let forged = [4, 63, 64, 115, 116, 131].map(|place| ("one bit", changed(place), wrong.clone()));
            let whole = [("as it is", INITIATION.to_vec(), expected.clone()), ("mac2", changed(132), expected)];
            let Some(mut kernel) = Kernel::or_skip() else { return };
            kernel.fill(&maps);
            for (name, payload, expected) in whole.into_iter().chain(forged) {
                for ((from, to), program) in CLIENTS.iter().flat_map(|c| Program::ALL.map(|program| (c, program))) {
                    let row = Row::new(name, udp(from, to, &payload).bytes(), expected.clone());
                    let outcome = kernel.run(program, &row.packet, 0);
                    assert_eq!(
                        Some(outcome),
                        row.expected(program),
                        "{name}, key {place} of {count}, {from}, {program:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn mac1_concerns_initiations_to_sockets_that_ask_for_it() {
    let keys = vec![key(1)];
    let other = |payload: &[u8]| udp(CLIENTS[0].0, CLIENTS[0].1, payload).bytes();
    let asking = Maps { mac1_keys: keys.clone(), ..maps(drop_class::WIREGUARD_MAC1) };
    let reserved = [&[1, 0, 9, 0], &INITIATION[4..]].concat();
    let foreign = udp(CLIENTS[0].0, "203.0.113.2:443", INITIATION).bytes();
    let tagged = Udp { vlan: vec![(0x8100, 7)], ..udp(CLIENTS[1].0, CLIENTS[1].1, INITIATION) }.bytes();
    check_over(
        &asking,
        [
            Row::new("an initiation", other(INITIATION), Expected::Drop(Counter::DroppedWireGuardMac1)),
            Row::new("in a VLAN", tagged, Expected::Drop(Counter::DroppedWireGuardMac1)),
            Row::new("filled reserved bytes", other(&reserved), Expected::Pass(Counter::NoFlow)),
            Row::new("shorter", other(&INITIATION[..147]), Expected::Pass(Counter::NoFlow)),
            Row::new(
                "a transport message",
                other(&[&[4, 0, 0, 0][..], &[0; 144]].concat()),
                Expected::Pass(Counter::NoFlow),
            ),
            Row::new("to somebody else", foreign, Expected::Pass(Counter::Foreign)),
        ],
    );
    let silent = Maps { mac1_keys: keys, ..maps(0) };
    check_over(&silent, [Row::new("not asked for", other(INITIATION), Expected::Pass(Counter::NoFlow))]);
}

#[test]
fn a_network_may_begin_so_many_handshakes() {
    let mask = |bits: u32| (u128::MAX << (128 - bits)).to_be_bytes();
    // As slow as it can be, 4 s for each: nothing is added while this runs.
    let limit = SourceLimit {
        interval: u32::MAX,
        zero: 0,
        window: 3 * u64::from(u32::MAX),
        mask_v4: mask(24),
        mask_v6: mask(56),
    };
    let initial = [&[0xc0, 0, 0, 0, 1, 0, 0][..], &[0; 1193]].concat();
    let handshake = [&[0xe0, 0, 0, 0, 1, 0, 0][..], &[0; 1193]].concat();
    let short = [&[0x41][..], &[0; 40]].concat();
    let (passed, limited) =
        ((crate::kernel::Action::Pass, Counter::NoFlow), (crate::kernel::Action::Drop, Counter::DroppedSourceLimited));
    let networks = [
        [CLIENTS[0], ("192.0.2.200:1", CLIENTS[0].1), ("192.0.3.11:4433", CLIENTS[0].1)],
        [CLIENTS[1], ("[2001:db8:1:ff::9]:1", CLIENTS[1].1), ("[2001:db8:1:100::9]:1", CLIENTS[1].1)],
    ];
    for [one, same, another] in networks {
        // What is sent, from and to where, and what becomes of it.
        let steps = [
            ("the first", &initial[..], one, passed),
            ("an initiation", INITIATION, one, passed),
            ("no handshake of its own", &handshake, one, passed),
            ("the last", &initial, same, passed),
            ("over", &initial, one, limited),
            ("over, from another address", INITIATION, same, limited),
            ("what may be under way", &short, one, passed),
            ("another network", &initial, another, passed),
            ("over still", &initial, one, limited),
        ];
        for program in Program::ALL {
            let Some(mut kernel) = Kernel::or_skip() else { return };
            kernel.fill(&Maps { source_limit: Some(limit), ..maps(drop_class::SOURCE_LIMIT) });
            for (step, payload, (from, to), expected) in steps {
                let outcome = kernel.run(program, &udp(from, to, payload).bytes(), 0);
                assert_eq!((outcome.action, outcome.counter), expected, "{step} from {from}, {program:?}");
            }
        }
        // Those in one buffer are allowed together, even if the bucket never holds as many.
        let Some(mut kernel) = Kernel::or_skip() else { return };
        kernel.fill(&Maps { source_limit: Some(limit), ..maps(drop_class::SOURCE_LIMIT) });
        for (step, count, expected) in [("five at once", 5, passed), ("five more", 5, limited), ("one", 1, limited)] {
            let packet = udp(one.0, one.1, &INITIATION.repeat(count)).bytes();
            let outcome = kernel.run(Program::Tc, &packet, u32::try_from(INITIATION.len()).unwrap());
            assert_eq!((outcome.action, outcome.counter), expected, "{step} from {}", one.0);
        }
    }
}

#[test]
fn a_program_that_its_daemon_has_left_behind_does_nothing() {
    let Some(mut kernel) = Kernel::or_skip() else { return };
    kernel.fill(&Maps { mac1_keys: vec![key(1)], ..maps(drop_class::ALL) });
    let packet = udp(CLIENTS[0].0, CLIENTS[0].1, &[0; 40]).bytes();
    let counter = |kernel: &Kernel, program| kernel.run(program, &packet, 0).counter;
    // XDP is always held by a link.
    for (row, end, tc) in [
        ("for ever", 0, Counter::DroppedUnknown),
        ("over", 1, Counter::Lapsed),
        ("not yet", u64::MAX, Counter::DroppedUnknown),
    ] {
        kernel.set_lease(end);
        assert_eq!(
            (counter(&kernel, Program::Tc), counter(&kernel, Program::Xdp)),
            (tc, Counter::DroppedUnknown),
            "{row}"
        );
    }
}
