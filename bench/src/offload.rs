//! The suite `offload`: the kernel plane against kernel NAT, nginx and the daemon in userspace; and a flood of junk.

use super::{
    candidate::Candidate,
    setup::Setup,
    suite::Suite,
    udp,
    workload::{Idle, Units, Workload},
};

/// Both directions are forwarded: an exchange is two datagrams, for each of which a candidate is charged half.
const EXCHANGES: Units = Units { against: Candidate::RpxyTc, whole: true, ..udp::EXCHANGES };

const FORWARDING: &[Candidate] =
    &[Candidate::RpxyTc, Candidate::RpxyGeneric, Candidate::Rpxy, Candidate::Nat, Candidate::Nginx, Candidate::Direct];

const SMALL: Workload = Workload {
    name: "small",
    title: "Exchanges: 100 bytes, 64 flows, one datagram of each in flight",
    units: EXCHANGES,
    clients: 64,
    serial: false,
    only: FORWARDING,
    ..udp::PING
};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "offload",
    title: "The kernel plane",
    candidates: &[
        Candidate::RpxyTc,
        Candidate::RpxyGeneric,
        Candidate::Rpxy,
        Candidate::Nat,
        Candidate::Nginx,
        Candidate::Direct,
        Candidate::Nowhere,
    ],
    workloads: &[
        SMALL,
        Workload {
            name: "large",
            title: "Windows of single datagrams: 16 × 1,200 bytes, 8 flows; latencies are those of whole windows",
            units: Units { rate: "datagrams/s", ..EXCHANGES },
            mode: "windows-plain",
            clients: 8,
            ..SMALL
        },
        Workload {
            name: "trains",
            title: "Windows with GSO and GRO: 16 × 1,200 bytes, 8 flows; latencies are those of whole windows",
            units: Units { rate: "datagrams/s", ..EXCHANGES },
            only: FORWARDING,
            ..udp::WINDOWS
        },
        Workload {
            name: "flood",
            title: "Flood: 100 bytes of no protocol, which no rule takes, 50,000/s",
            units: Units { rate: "datagrams sent/s", latency: false, failed: "were not sent", ..EXCHANGES },
            mode: "flood",
            clients: 64,
            setup: Setup { unanswered: true, ..SMALL.setup },
            only: &[Candidate::RpxyTc, Candidate::RpxyGeneric, Candidate::Rpxy, Candidate::Nowhere],
            ..SMALL
        },
    ],
    idle: Idle { most: 1000, ..udp::SUITE.idle },
    rounds: "3",
    sysctls: udp::SUITE.sysctls,
    method: "CPU ratios are those of the rig's CPU, because kernels do the work. The load is that of the suite `udp`: every \
             datagram is answered, and both ways go through the candidate. In *flood* nothing is answered; *nowhere* \
             drops all of it where it is sent (nftables, egress), so that what the others take beyond it is what the \
             flood costs its victim.",
    shown: SMALL.setup,
    shown_note: "For the exchanges. In *flood* rpxy-l4 has a rule for WireGuard and no `udp_target`.",
};
