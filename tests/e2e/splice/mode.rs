//! Relayed and spliced: the two ways of a connection, which must look alike from both ends.

use std::net::SocketAddr;

use rpxy_l4_tests::{
    daemon::{self, Daemon},
    privilege,
    topology::{GATEWAY_V4, GATEWAY_V6, Topology},
};

use crate::support::{at, at_v6};

/// Who carries the connections of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The daemon.
    Relayed,
    /// The kernel, as soon as the client has said something.
    Spliced,
}

/// Makes the tests `relayed` and `spliced` of each function that takes a [`Mode`].
macro_rules! both_modes {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            use crate::splice::mode::Mode;

            #[test]
            fn relayed() {
                super::$test(Mode::Relayed);
            }

            #[test]
            fn spliced() {
                if Mode::Spliced.is_there() {
                    super::$test(Mode::Spliced);
                }
            }
        }
    )+ };
}
pub(super) use both_modes;

/// The metrics of the daemon.
const ENDPOINT: u16 = 9100;

/// A service of the backend, in front of which the daemon listens on a port of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service(pub(super) u16);

impl Service {
    const FRONT: u16 = 1000;

    /// Where the backend serves it.
    pub(super) fn back(self, v6: bool) -> SocketAddr {
        if v6 { at_v6(self.0) } else { at(self.0) }
    }

    /// Where clients find it.
    pub(super) fn front(self, v6: bool) -> SocketAddr {
        // A listener of its own leads to the backend's address of each family.
        let port = self.0 + Self::FRONT + u16::from(v6) * Self::FRONT;
        if v6 { (GATEWAY_V6, port).into() } else { (GATEWAY_V4, port).into() }
    }
}

impl Mode {
    /// Returns true when the daemon has this mode; says on standard error that the test is skipped when it has not.
    pub(super) fn is_there(self) -> bool {
        if self == Self::Relayed || privilege::missing().is_some() {
            return true;
        }
        if let Some(missing) = daemon::missing_object() {
            privilege::skip(&missing);
            return false;
        }
        true
    }

    /// A configuration that leads to `services`, with `ebpf` in its table `[ebpf]` where there is one.
    pub(super) fn config(self, services: &[Service], ebpf: &str) -> String {
        let (top, table) = match self {
            Self::Relayed => ("", String::new()),
            Self::Spliced => ("tcp_splice = \"first\"\n", format!("[ebpf]\nmode = \"tc\"\ntcp = \"auto\"\n{ebpf}\n")),
        };
        let mut text = format!(
            "listen_port = 9\nlisten_ipv6 = true\naccess_log_format = \"json\"\nmetrics_listen = \"0.0.0.0:{ENDPOINT}\"\n\
             tcp_max_connections_per_source = 0\ntcp_target = \"{}\"\n{top}{table}",
            at(9)
        );
        for service in services {
            for v6 in [false, true] {
                let (front, back) = (service.front(v6), service.back(v6));
                let name = front.port();
                text += &format!("[listeners.p{name}]\nlisten_port = {name}\ntcp_target = \"{back}\"\n");
            }
        }
        text
    }

    /// Starts the daemon in front of `services`.
    #[track_caller]
    pub(super) fn start(self, net: &Topology, services: &[Service]) -> Daemon {
        Daemon::start(&net.gateway, &self.config(services, ""))
    }

    /// Number of connections that the kernel carried to their end.
    pub(super) fn count_spliced(self, daemon: &Daemon) -> usize {
        let line = |line: &String| line.contains("\"finish\"") && line.contains("\"plane\":\"kernel\"");
        let spliced = daemon.process().lines().iter().filter(|text| line(text)).count();
        assert!(self == Self::Spliced || spliced == 0, "{spliced} connections were spliced");
        spliced
    }

    /// Returns true when no connection is under way, by the access log.
    pub(super) fn has_seen_every_end(daemon: &Daemon) -> bool {
        let count = |event: &str| daemon.lines_with(&format!("\"event\":\"{event}\"")).len();
        count("finish") == count("start")
    }
}
