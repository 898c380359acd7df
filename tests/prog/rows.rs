//! One row of a table: maps, a packet, and what becomes of it in either program.

use crate::kernel::{Action, Kernel, Outcome, Program};
use crate::maps::Maps;
use rpxy_l4_common::verdict::Counter;

/// What is expected.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) packet: Vec<u8>,
    pub(crate) expected: Expected,
}

/// What becomes of a packet.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// Untouched, for this reason.
    Pass(Counter),
    /// Dropped, for this reason.
    Drop(Counter),
    /// Sent on: the frame that XDP sends, and by which way. TC sends the same but for the Ethernet header, which the
    /// kernel writes later.
    Steer(Action, Vec<u8>),
}

/// Runs all rows in both programs, each with maps of its own.
pub(crate) fn check(maps: &Maps, rows: &[Row]) {
    for row in rows {
        for program in Program::ALL {
            let Some(mut kernel) = Kernel::or_skip() else { return };
            kernel.fill(maps);
            let outcome = kernel.run(program, &row.packet);
            assert_eq!(outcome, row.expected(program), "{} in {program:?}", row.name);
        }
    }
}

impl Row {
    pub(crate) fn new(name: &'static str, packet: Vec<u8>, expected: Expected) -> Self {
        Self { name, packet, expected }
    }

    pub(crate) fn expected(&self, program: Program) -> Outcome {
        let packet = self.packet.clone();
        match self.expected.clone() {
            Expected::Pass(counter) => Outcome { action: Action::Pass, packet, counter },
            Expected::Drop(counter) => Outcome { action: Action::Drop, packet, counter },
            Expected::Steer(action, sent) => {
                let (action, packet) = match program {
                    Program::Xdp => (action, sent),
                    Program::Tc => (Action::Redirect, [&packet[..12], &sent[12..]].concat()),
                };
                Outcome { action, packet, counter: Counter::Steered }
            }
        }
    }
}
