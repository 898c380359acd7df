//! The suite `tcp`: exchanges, connections, bulk data and idle connections.

use super::{
    candidate::Candidate,
    rig::Service,
    setup::Setup,
    suite::Suite,
    workload::{Idle, Units, Workload},
};

/// Closing connections count against a candidate's own limits too.
const ROOM: usize = 1000;

/// Units of exchanges.
pub(super) const EXCHANGES: Units = Units {
    rate: "exchanges/s",
    rate_factor: 1.0,
    time: "µs",
    time_factor: 1e6,
    latency: true,
    failed: "connections ended early",
    against: Candidate::Rpxy,
    whole: false,
};

const CONNECTIONS: Units = Units { rate: "connections/s", ..EXCHANGES };

/// Operations are bytes.
pub(super) const BYTES: Units =
    Units { rate: "Gbit/s", rate_factor: 8e-9, time: "s/GB", time_factor: 1e9, latency: false, ..EXCHANGES };

pub(super) const PING: Workload = Workload {
    name: "ping",
    title: "Request and response: 64 bytes, 16 connections",
    units: EXCHANGES,
    mode: "ping",
    clients: 16,
    setup: Setup { service: Service::Echo, room: ROOM, processes: 1, unanswered: false },
    prepared: false,
    once: false,
    only: &[],
    untuned: false,
    far: None,
    serial: false,
};

const CONNECT: Workload = Workload {
    name: "connect",
    title: "Connect rate: connect, 64 bytes each way, close; 32 in flight",
    units: CONNECTIONS,
    mode: "connect",
    clients: 32,
    ..PING
};

pub(super) const BULK: Workload = Workload {
    name: "bulk-1",
    title: "Bulk: download over 1 connection",
    units: BYTES,
    mode: "download",
    clients: 1,
    setup: Setup { service: Service::Source, ..PING.setup },
    ..PING
};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "tcp",
    title: "TCP",
    candidates: &[
        Candidate::Rpxy,
        Candidate::RpxyRouted,
        Candidate::Baseline,
        Candidate::Haproxy,
        Candidate::Nginx,
        Candidate::Sslh,
        Candidate::Barest,
        Candidate::Splice,
        Candidate::Nat,
        Candidate::Direct,
    ],
    workloads: &[
        PING,
        CONNECT,
        Workload {
            name: "connect-untuned",
            title: "Connect rate with the system's own settings: the same, 24,000 connections at the most",
            mode: "connect-some",
            setup: Setup { service: Service::Untuned, ..PING.setup },
            untuned: true,
            ..CONNECT
        },
        BULK,
        Workload { name: "bulk-4", title: "Bulk: download over 4 connections", clients: 4, ..BULK },
    ],
    idle: Idle {
        service: Service::Echo,
        most: 10_000,
        descriptors: 2,
        one: "connection",
        title: "Memory: idle relayed connections",
        note: "and each relayed connection takes two; sslh-select cannot go beyond the 1024 of select(2)",
        kernel: false,
    },
    rounds: "5",
    // What the hosts need to open and close many connections without running out of ports. Listening ports are below
    // the range of ephemeral ones.
    //
    // Reno is in every kernel and free to choose in every namespace. What a machine has for default may pace, which
    // would measure the pacing.
    sysctls: &[
        ("ipv4/ip_local_port_range", "10000 65535"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("ipv4/tcp_max_tw_buckets", "262144"),
        ("ipv4/tcp_max_syn_backlog", "4096"),
        ("ipv4/tcp_congestion_control", "reno"),
    ],
    method: "The backend sends bulk data with sendfile(2) and the client discards it in the kernel, so that neither \
             copies. Congestion control is Reno everywhere.\n\n\
             Most workloads run on tuned hosts. What changes the connect rate is `tcp_tw_reuse = 1`, which is not what \
             systems have: ports of closed connections are used again after a second instead of a minute. Without it, a \
             host makes some 28,000 connections a minute to one address and port (`ip_local_port_range`), whoever \
             relays them, and then connect(2) fails with EADDRNOTAVAIL. *connect-untuned* keeps the system's settings and \
             ends before that, at 24,000 connections; a candidate's next round waits until its ports are free.",
    shown: BULK.setup,
    shown_note: "For the bulk workloads. The others differ in ports, in the connections allowed, and in HAProxy's \
                 `splice-response`.",
};
