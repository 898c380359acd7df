//! A frame that ends before its headers and lengths say is left alone, wherever it ends; what is behind is padding.

use rpxy_l4_common::verdict::Counter;

use crate::fixture::{NETS, from, to};
use crate::kernel::{Action, Kernel, Outcome, Program};
use crate::rows::{Expected, Row, check};

/// The shortest frame that a test run takes: an Ethernet header and one byte.
const FIRST_CUT: usize = 15;

#[test]
fn a_frame_that_is_cut_at_any_byte_is_left_alone() {
    let Some(mut kernel) = Kernel::or_skip() else { return };
    kernel.fill(&crate::fixture::maps());
    for net in NETS {
        for tags in [&[][..], &[(0x8100, 7)], &[(0x88a8, 7), (0x8100, 7)]] {
            let mut udp = net.packet(from::BACK, to::OURS, b"datagram");
            udp.vlan = tags.to_vec();
            let (whole, ip_header) = (udp.bytes(), udp.l3() + udp.header_len());
            for cut in FIRST_CUT..whole.len() {
                for program in Program::ALL {
                    // The network stack drops packets without a whole IP header before TC would see them; so do newer
                    // test runs, where no tag hides it.
                    let taken = kernel.try_run(program, &whole[..cut], 0);
                    let name = format!("{}, {} tags, {cut} bytes, {program:?}", net.name, tags.len());
                    match taken {
                        Some(outcome) => {
                            let packet = whole[..cut].to_vec();
                            let expected = Outcome { action: Action::Pass, packet, counter: Counter::Truncated };
                            assert_eq!(outcome, expected, "{name}");
                        }
                        None => {
                            assert!(program == Program::Tc && tags.is_empty() && cut < ip_header, "{name} not taken");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_behind_the_ip_packet_stays_there() {
    check([1, 18, 46].into_iter().flat_map(|padding| {
        NETS.into_iter().map(move |net| {
            let udp = net.packet(from::OPEN, to::OURS, b"d");
            let padded = |frame: Vec<u8>| [frame, vec![0xee; padding]].concat();
            let name = format!("{}: {padding} bytes of padding", net.name);
            Row::new(name, padded(udp.bytes()), Expected::Steer(padded(net.sent(&udp).bytes())))
        })
    }));
}
