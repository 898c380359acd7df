//! One row of a table: a packet, and what becomes of it in either program.

use rpxy_l4_common::verdict::Counter;

use crate::fixture::{ELSEWHERE, HERE, NETS, Net, maps};
use crate::kernel::{Action, Kernel, Outcome, Program};
use crate::maps::Maps;
use crate::packet::Udp;

/// What is expected. Written down by hand, or summed up by [`crate::packet`]; never asked of what is tested.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) packet: Vec<u8>,
    /// Payload bytes of one datagram where the kernel keeps several in one buffer, as TC sees it; otherwise 0.
    pub(crate) segment: u32,
    /// Nothing where the program never meets such a packet.
    pub(crate) xdp: Option<Expected>,
    pub(crate) tc: Option<Expected>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Untouched, for this reason.
    Pass(Counter),
    /// Dropped, for this reason.
    Drop(Counter),
    /// Sent on by another interface: the frame that XDP sends. TC sends the same but for the Ethernet header, which the
    /// kernel writes later.
    Steer(Vec<u8>),
    /// Sent back by XDP to where it came from; by TC as above.
    Back(Vec<u8>),
}

impl Row {
    /// A packet with which both programs do the same.
    pub(crate) fn new(name: impl Into<String>, packet: Vec<u8>, expected: Expected) -> Self {
        Self { name: name.into(), packet, segment: 0, xdp: Some(expected.clone()), tc: Some(expected) }
    }

    /// A packet with which they do not.
    pub(crate) fn apart(name: impl Into<String>, packet: Vec<u8>, xdp: Expected, tc: Expected) -> Self {
        Self { name: name.into(), packet, segment: 0, xdp: Some(xdp), tc: Some(tc) }
    }

    /// Several datagrams in one buffer, which only TC meets.
    pub(crate) fn segments(name: impl Into<String>, packet: Vec<u8>, segment: u32, tc: Expected) -> Self {
        Self { name: name.into(), packet, segment, xdp: None, tc: Some(tc) }
    }

    /// A row for each family.
    pub(crate) fn both(name: &str, row: impl Fn(Net) -> (Udp, Expected)) -> impl Iterator<Item = Self> {
        NETS.into_iter().map(move |net| {
            let (udp, expected) = row(net);
            Self::new(format!("{}: {name}", net.name), udp.bytes(), expected)
        })
    }

    pub(crate) fn expected(&self, program: Program) -> Option<Outcome> {
        let expected = match program {
            Program::Xdp => self.xdp.clone()?,
            Program::Tc | Program::TcOne => self.tc.clone()?,
        };
        let packet = self.packet.clone();
        Some(match expected {
            Expected::Pass(counter) => Outcome { action: Action::Pass, packet, counter },
            Expected::Drop(counter) => Outcome { action: Action::Drop, packet, counter },
            Expected::Steer(sent) | Expected::Back(sent) if program == Program::Tc => Outcome {
                action: Action::Redirect,
                packet: [&packet[..12], &sent[12..]].concat(),
                counter: Counter::Steered,
            },
            Expected::Steer(packet) => Outcome { action: Action::Redirect, packet, counter: Counter::Steered },
            Expected::Back(packet) => Outcome { action: Action::Back, packet, counter: Counter::Steered },
        })
    }
}

/// Runs all rows in both programs, over the maps of [`crate::fixture`].
pub(crate) fn check(rows: impl IntoIterator<Item = Row>) {
    const { assert!(HERE != ELSEWHERE) };
    check_over(&maps(), rows);
}

/// The same over other maps.
pub(crate) fn check_over(maps: &Maps, rows: impl IntoIterator<Item = Row>) {
    let Some(mut kernel) = Kernel::or_skip() else { return };
    kernel.fill(maps);
    for row in rows {
        for program in Program::ALL {
            if let Some(expected) = row.expected(program) {
                let outcome = kernel.run(program, &row.packet, row.segment);
                assert_eq!(outcome, expected, "{} in {program:?}", row.name);
            }
        }
    }
}
