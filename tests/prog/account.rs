//! What is steered is accounted in the entry of its flow, and nothing else is.

use std::net::SocketAddr;

use rpxy_l4_common::verdict::Counter;

use crate::fixture::{NETS, address, from, maps, to};
use crate::kernel::{Kernel, Program};
use crate::maps::key;

#[test]
fn steered_packets_are_accounted_in_their_flow() {
    let Some(mut kernel) = Kernel::or_skip() else { return };
    kernel.fill(&maps());
    for net in NETS {
        let key = key(address(net.client, from::QUIC), address(net.ours, to::OURS));
        assert_eq!(kernel.account(&key), [0; 4]);
        let (mut packets, mut bytes) = (0, 0);
        for program in Program::ALL {
            // (name, payload, datagrams that are accounted)
            let rows = [("short header", &[0x47; 30][..], 1), ("empty", &[], 0), ("long header", &[0xc3; 30], 0)];
            for (name, payload, accounted) in rows {
                kernel.run(program, &net.packet(from::QUIC, to::OURS, payload).bytes(), 0);
                packets += accounted;
                bytes += 30 * accounted;
                let [last_seen, steered, summed, _] = kernel.account(&key);
                assert!(last_seen > 0);
                assert_eq!((steered, summed), (packets, bytes), "{}, {program:?}, {name}", net.name);
            }
        }
        kernel.run(Program::Tc, &net.packet(from::QUIC, to::OURS, &[0x47; 70]).bytes(), 30);
        let [_, steered, summed, _] = kernel.account(&key);
        assert_eq!((steered, summed), (packets + 3, bytes + 70), "{}, a buffer of three", net.name);
        let elsewhere = crate::maps::key(address(net.client, from::ANOTHER_WAY), address(net.ours, to::OURS));
        for (count, program) in (1..).zip(Program::ALL) {
            kernel.run(program, &net.packet(from::ANOTHER_WAY, to::OURS, b"datagram").bytes(), 0);
            assert_eq!(kernel.account(&elsewhere), [0, 0, 0, count], "{}, {program:?}, another way", net.name);
        }
        let untouched: SocketAddr = address(net.client, from::OPEN);
        assert_eq!(kernel.account(&crate::maps::key(untouched, address(net.ours, to::OURS))), [0; 4]);
    }
}

#[test]
fn without_btf_only_what_has_to_be_looked_at_goes_to_the_daemon() {
    let Some(mut kernel) = Kernel::or_skip() else { return };
    kernel.fill(&maps());
    // (name, port, payload, bytes of one datagram, outcome)
    let rows = [
        ("one datagram", from::QUIC, 70, 0, Counter::Steered),
        ("several of an open flow", from::OPEN, 70, 30, Counter::Steered),
        ("several of a QUIC flow", from::QUIC, 70, 30, Counter::Segments),
        ("one first datagram", from::STRANGER, 70, 0, Counter::NoFlow),
    ];
    for net in NETS {
        for (row, port, len, segment, expected) in rows {
            let packet = net.packet(port, to::OURS, &vec![0x47; len]).bytes();
            let outcome = kernel.run(Program::TcOne, &packet, segment);
            assert_eq!(outcome.counter, expected, "{}: {row}", net.name);
            if segment == 0 {
                assert_eq!(outcome, kernel.run(Program::Tc, &packet, segment), "{}: {row}", net.name);
            }
        }
    }
}
