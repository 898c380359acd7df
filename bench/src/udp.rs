//! The suite `udp`: exchanges, windows, large tables of flows, new flows and idle flows.

use super::{
    candidate::Candidate,
    rig::Service,
    setup::Setup,
    suite::Suite,
    tcp,
    workload::{Idle, Units, Workload},
};

/// Flows of the workload with most of them. The gateway has one address and 64,512 ports towards the backend.
const MOST_FLOWS: usize = 50_000;

/// Processes for that many flows: enough for 20,000 descriptors in each and an uneven division.
const MANY_PROCESSES: usize = 4;

pub(super) const EXCHANGES: Units = Units { failed: "datagrams were lost", ..tcp::EXCHANGES };

pub(super) const PING: Workload = Workload {
    name: "ping-1",
    title: "Ping-pong: 100 bytes, 1 flow",
    units: EXCHANGES,
    mode: "ping",
    clients: 1,
    setup: Setup { service: Service::Datagrams, room: 1000, processes: 1, unanswered: false },
    prepared: false,
    once: false,
    only: &[],
    untuned: false,
    far: None,
    serial: true,
};

pub(super) const WINDOWS: Workload = Workload {
    name: "windows",
    title: "Windows with GSO and GRO: 16 × 1,200 bytes, 8 flows; latencies are those of whole windows",
    units: Units { rate: "datagrams/s", ..EXCHANGES },
    mode: "windows",
    clients: 8,
    setup: Setup { service: Service::Segments, ..PING.setup },
    serial: false,
    ..PING
};

const TABLE: Workload = Workload {
    name: "flows-1",
    title: "One exchange at a time over 1 flow in the table: 100 bytes",
    mode: "table",
    prepared: true,
    ..PING
};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "udp",
    title: "UDP",
    candidates: &[
        Candidate::Rpxy,
        Candidate::RpxyRouted,
        Candidate::Baseline,
        Candidate::Nginx,
        Candidate::Nat,
        Candidate::Direct,
    ],
    workloads: &[
        PING,
        Workload { name: "ping-64", title: "Ping-pong: 100 bytes, 64 flows", clients: 64, serial: false, ..PING },
        WINDOWS,
        Workload {
            name: "windows-plain",
            title: "Windows of single datagrams, no GSO and no GRO: 16 × 1,200 bytes, 8 flows; latencies are those of \
                    whole windows",
            mode: "windows-plain",
            setup: PING.setup,
            ..WINDOWS
        },
        TABLE,
        Workload {
            name: "flows-1000",
            title: "One exchange at a time over a random one of 1,000 flows: 100 bytes",
            clients: 1000,
            ..TABLE
        },
        Workload {
            name: "flows-10000",
            title: "One exchange at a time over a random one of 10,000 flows: 100 bytes",
            clients: 10_000,
            setup: Setup { room: 10_000, ..PING.setup },
            ..TABLE
        },
        Workload {
            name: "flows-50000",
            title: "One exchange at a time over a random one of 50,000 flows: 100 bytes; 4 processes, one round",
            clients: MOST_FLOWS,
            setup: Setup { room: MOST_FLOWS, processes: MANY_PROCESSES, ..PING.setup },
            once: true,
            ..TABLE
        },
        Workload {
            name: "new-flows",
            title: "New flows: 100 bytes each way, 32 in flight, up to 30,000 flows; 2 processes",
            units: Units { rate: "flows/s", ..EXCHANGES },
            mode: "new",
            clients: 30_000,
            setup: Setup { room: 30_000, processes: 2, ..PING.setup },
            serial: false,
            ..PING
        },
    ],
    idle: Idle {
        service: Service::Datagrams,
        most: 10_000,
        descriptors: 1,
        one: "flow",
        title: "Memory: idle flows",
        note: "and each flow takes one",
        kernel: false,
    },
    rounds: "3",
    // The gateway needs a port towards the backend for each flow.
    sysctls: &[("ipv4/ip_local_port_range", "1024 65535")],
    method: "A flow is a client address and port; every datagram carries its flow and a number, and the client ends a \
             run as failed when a reply arrives at another flow. What does not come back within 100 ms counts as lost \
             and is not waited for any longer. \
             In *windows*, both ends do as QUIC stacks do: one sendmsg(2) hands 16 datagrams to the kernel with \
             UDP_SEGMENT, and UDP_GRO gives them back as one. Between namespaces such a train stays whole, unless the \
             candidate takes it apart. In *windows-plain*, both ends send and receive one datagram a system call. \
             The other workloads send single datagrams too.\n\n\
             Where one datagram at a time is on its way (*ping-1* and *flows*), client, candidate and backend are kept \
             on one processor: nothing could run at the same time, and waking another processor would cost more than \
             what is measured, now and then.\n\n\
             In the workloads *flows*, all flows have made an exchange before the measurement begins, and one \
             datagram is on its way at a time. Up to 10,000 flows go through one process (nginx: two workers). A \
             process may not have descriptors for 50,000: there, four rpxy-l4 with one worker each share the port \
             (`reuse_port`), and nginx has four workers. In *new-flows* two rpxy-l4 with one worker each share it, \
             against nginx's two workers; no flow ends before all have begun, because idle lifetimes are longer.",
    shown: PING.setup,
    shown_note: "For the ping-pong workloads. The others differ in ports, in the flows allowed, and in processes and \
                 workers as said above. nginx listens with a receive buffer of 4 MiB, because with the default one it \
                 loses datagrams of windows.",
};
