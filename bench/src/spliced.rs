//! The suite `splice`: TCP that the kernel forwards, against the daemon's relay, HAProxy, kernel NAT and routing.

use std::time::Duration;

use super::{
    candidate::Candidate,
    far::Far,
    rig::Service,
    setup::Setup,
    suite::Suite,
    tcp,
    workload::{Idle, Units, Workload},
};

/// The kernel does the work: a candidate's share is what the whole rig takes.
const WHOLE: Units = Units { against: Candidate::RpxySpliced, whole: true, ..tcp::EXCHANGES };
const DOWNLOADS: Units = Units { rate: "downloads/s", time: "ms", time_factor: 1e3, ..WHOLE };

const PING: Workload = Workload { name: "ping-16", units: WHOLE, ..tcp::PING };
const BULK: Workload = Workload {
    name: "bulk-down",
    units: Units { against: Candidate::RpxySpliced, whole: true, ..tcp::BYTES },
    ..tcp::BULK
};

/// Those that differ for a client that is far.
const DOWNLOADERS: &[Candidate] = &[Candidate::RpxySpliced, Candidate::RpxyAuto, Candidate::Rpxy, Candidate::Direct];

/// Downloads of a size by a client that is so far from the gateway, with either congestion control, without and with loss.
macro_rules! downloads {
    ($size:literal, $mode:literal, $milliseconds:literal, $congestion:literal, $lost:literal, $name:literal, $loss:literal) => {
        Workload {
            name: concat!("get-", $size, "-", $milliseconds, "ms-", $congestion, $name),
            title: concat!("Download: ", $size, "B, ", $milliseconds, " ms, ", $congestion, $loss),
            units: DOWNLOADS,
            mode: $mode,
            clients: 1,
            setup: Setup { service: Service::Sized, ..PING.setup },
            only: DOWNLOADERS,
            far: Some(Far { round_trip: Duration::from_millis($milliseconds), lost: $lost, congestion: $congestion }),
            ..PING
        }
    };
}
macro_rules! cubic {
    ($s:literal, $m:literal, $ms:literal) => {
        downloads!($s, $m, $ms, "cubic", 0, "", "")
    };
}
macro_rules! cubic_loss {
    ($s:literal, $m:literal, $ms:literal) => {
        downloads!($s, $m, $ms, "cubic", 5, "-loss", ", 0.5 % loss")
    };
}
macro_rules! bbr {
    ($s:literal, $m:literal, $ms:literal) => {
        downloads!($s, $m, $ms, "bbr", 0, "", "")
    };
}
macro_rules! bbr_loss {
    ($s:literal, $m:literal, $ms:literal) => {
        downloads!($s, $m, $ms, "bbr", 5, "-loss", ", 0.5 % loss")
    };
}

/// The suite.
pub const SUITE: Suite = Suite {
    name: "splice",
    title: "TCP in the kernel",
    candidates: &[
        Candidate::RpxySpliced,
        Candidate::RpxyAuto,
        Candidate::Rpxy,
        Candidate::Nat,
        Candidate::Haproxy,
        Candidate::Direct,
    ],
    workloads: &[
        PING,
        Workload {
            name: "ping-1",
            title: "Request and response: 64 bytes, 1 connection",
            clients: 1,
            serial: true,
            ..PING
        },
        Workload {
            name: "connect",
            title: "Connections that end at once: connect, 64 bytes each way, close; 32 in flight",
            units: Units { rate: "connections/s", whole: false, against: Candidate::RpxyAuto, ..WHOLE },
            mode: "connect",
            clients: 32,
            only: &[Candidate::RpxyAuto, Candidate::Rpxy, Candidate::Nat, Candidate::Haproxy, Candidate::Direct],
            ..PING
        },
        // The difference of the daemon's times is what a hand-over costs it. Fewer than there are places: those of
        // connections that have ended rest.
        Workload {
            name: "hand-over",
            title: "Hand-overs: the same, 12,000 connections at the most, each spliced and ended at once",
            units: Units { rate: "connections/s", whole: false, ..WHOLE },
            mode: "connect-some",
            clients: 8,
            setup: Setup { room: 20_000, ..PING.setup },
            only: &[Candidate::RpxySpliced, Candidate::Rpxy],
            ..PING
        },
        BULK,
        Workload {
            name: "bulk-up",
            title: "Bulk: upload over 1 connection",
            mode: "upload",
            setup: Setup { service: Service::Sink, ..PING.setup },
            ..BULK
        },
        cubic!("100k", "fetch100k", 2),
        cubic_loss!("100k", "fetch100k", 2),
        bbr!("100k", "fetch100k", 2),
        bbr_loss!("100k", "fetch100k", 2),
        cubic!("100k", "fetch100k", 20),
        cubic_loss!("100k", "fetch100k", 20),
        bbr!("100k", "fetch100k", 20),
        bbr_loss!("100k", "fetch100k", 20),
        cubic!("100k", "fetch100k", 50),
        cubic_loss!("100k", "fetch100k", 50),
        bbr!("100k", "fetch100k", 50),
        bbr_loss!("100k", "fetch100k", 50),
        cubic!("100k", "fetch100k", 150),
        cubic_loss!("100k", "fetch100k", 150),
        bbr!("100k", "fetch100k", 150),
        bbr_loss!("100k", "fetch100k", 150),
        cubic!("1M", "fetch1m", 2),
        cubic_loss!("1M", "fetch1m", 2),
        bbr!("1M", "fetch1m", 2),
        bbr_loss!("1M", "fetch1m", 2),
        cubic!("1M", "fetch1m", 20),
        cubic_loss!("1M", "fetch1m", 20),
        bbr!("1M", "fetch1m", 20),
        bbr_loss!("1M", "fetch1m", 20),
        cubic!("1M", "fetch1m", 50),
        cubic_loss!("1M", "fetch1m", 50),
        bbr!("1M", "fetch1m", 50),
        bbr_loss!("1M", "fetch1m", 50),
        cubic!("1M", "fetch1m", 150),
        cubic_loss!("1M", "fetch1m", 150),
        bbr!("1M", "fetch1m", 150),
        bbr_loss!("1M", "fetch1m", 150),
        cubic!("50M", "fetch50m", 2),
        cubic_loss!("50M", "fetch50m", 2),
        bbr!("50M", "fetch50m", 2),
        bbr_loss!("50M", "fetch50m", 2),
        cubic!("50M", "fetch50m", 20),
        cubic_loss!("50M", "fetch50m", 20),
        bbr!("50M", "fetch50m", 20),
        bbr_loss!("50M", "fetch50m", 20),
        cubic!("50M", "fetch50m", 50),
        cubic_loss!("50M", "fetch50m", 50),
        bbr!("50M", "fetch50m", 50),
        bbr_loss!("50M", "fetch50m", 50),
        cubic!("50M", "fetch50m", 150),
        cubic_loss!("50M", "fetch50m", 150),
        bbr!("50M", "fetch50m", 150),
        bbr_loss!("50M", "fetch50m", 150),
    ],
    idle: Idle {
        title: "Memory: idle connections after one exchange",
        note: "; a relayed connection takes two of the daemon's, a spliced one takes one. *Kernel* is what all hosts have \
               allocated in slabs, the sockets of client and backend included, which *direct* shows alone",
        kernel: true,
        ..tcp::SUITE.idle
    },
    rounds: "3",
    sysctls: &[
        ("ipv4/ip_local_port_range", "10000 65535"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("ipv4/tcp_max_tw_buckets", "262144"),
        ("ipv4/tcp_max_syn_backlog", "4096"),
        ("ipv4/tcp_congestion_control", "reno"),
        // What one download has met must not decide about the next one.
        ("ipv4/tcp_no_metrics_save", "1"),
    ],
    method: "CPU ratios are those of the rig's CPU, but for *connect* and *hand-over*, where they are those of the daemon's own \
             time. Latencies of downloads are their durations, from connect(2) to the end. A candidate that is to splice and \
             has relayed instead gets no figure. *rpxy-l4-auto* splices where it expects to gain.\n\n\
             Downloads cross a wire between client and gateway that delays each frame and loses some: two bridges whose \
             other halves are a socket of the rig. The milliseconds are those of a round trip, the loss is that of each \
             direction. Congestion control is that of backend and gateway there, and Reno elsewhere.",
    shown: PING.setup,
    shown_note: "For the exchanges.",
};
