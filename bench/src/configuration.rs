//! Configuration of the candidates: their files, command lines and rules.
//!
//! Each is set up as its manual advises for plain relaying on two processors, with logging off. What is told here goes
//! into the report word by word.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    candidate::Candidate,
    rig::{Rig, Service},
    setup::Setup,
};

/// Processors' worth of threads or workers that each multi-threaded candidate gets.
const THREADS: usize = 2;

/// Where a daemon that may splice tells what it has done, on the gateway.
pub(super) const METRICS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9901);

impl Setup {
    /// Threads of each rpxy-l4.
    pub fn threads(&self) -> usize {
        (THREADS / self.processes).max(1)
    }

    /// Connections or flows that each process has to allow: closing ones count too, and the division is not even.
    fn allowed(&self) -> usize {
        let share = if self.processes == 1 { self.room } else { self.room / self.processes * 5 / 4 };
        share + 100
    }
}

impl Candidate {
    /// Its configuration or rule for `setup`, for the report too; empty where there is none.
    pub fn configuration(self, setup: Setup) -> String {
        let service = setup.service;
        let (front, back) = (Rig::front(self.index(), service), Rig::back(self.index(), service));
        let allowed = setup.allowed();
        match self {
            Self::Rpxy
            | Self::RpxyRouted
            | Self::Baseline
            | Self::RpxyTc
            | Self::RpxyGeneric
            | Self::RpxySpliced
            | Self::RpxyAuto => self.daemon_configuration(setup, allowed),
            Self::Haproxy => {
                // For bulk the best that it has: faster here than `splice-auto`, which does not always splice.
                let option = if service == Service::Source { "    option splice-response\n" } else { "" };
                format!(
                    "global\n    nbthread {THREADS}\n    maxconn {allowed}\n\ndefaults\n    mode tcp\n{option}    \
                     timeout connect 5s\n    timeout client 5m\n    timeout server 5m\n\nlisten bench\n    \
                     bind {front}\n    server backend {back}\n",
                )
            }
            // A worker may get more than its share of the connections, each of which takes two of its slots.
            Self::Nginx => {
                let (workers, slots) = (setup.processes.max(THREADS), 2 * allowed);
                let (kind, timeout) = if service.is_udp() {
                    ("udp reuseport rcvbuf=4m", "\n        proxy_timeout 60s;")
                } else {
                    ("reuseport backlog=4096", "")
                };
                format!(
                    "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nuser root;\ndaemon off;\n\
                     worker_processes {workers};\npid nginx.pid;\nerror_log stderr error;\n\
                     events {{ worker_connections {slots}; }}\nstream {{\n    access_log off;\n    server {{\n        \
                     listen {front} {kind};\n        proxy_pass {back};{timeout}\n    }}\n}}\n",
                )
            }
            Self::Sslh => format!("sslh-select -f -n -p {front} --http {back} --anyprot {back}\n"),
            Self::Barest | Self::Splice | Self::Direct => String::new(),
            Self::Nowhere => format!(
                "add table netdev bench; \
                 add chain netdev bench out {{ type filter hook egress device eth0 priority 0; }}; \
                 add rule netdev bench out udp dport {} drop\n",
                front.port()
            ),
            Self::Nat => {
                let (address, port) = (front.ip(), front.port());
                let (protocol, masquerade) = if service.is_udp() {
                    let to = format!("ip daddr {} udp dport {}", back.ip(), back.port());
                    let chain = "add chain ip bench postrouting { type nat hook postrouting priority srcnat; };";
                    ("udp", format!(" {chain} add rule ip bench postrouting {to} masquerade;"))
                } else {
                    ("tcp", String::new())
                };
                format!(
                    "add table ip bench; \
                     add chain ip bench prerouting {{ type nat hook prerouting priority dstnat; }}; \
                     add rule ip bench prerouting ip daddr {address} {protocol} dport {port} dnat to {back};\
                     {masquerade}\n"
                )
            }
        }
    }

    /// Its key `tcp_splice`, where it has the programs for that.
    pub(super) fn splice_policy(self) -> Option<&'static str> {
        [(Self::RpxySpliced, "first"), (Self::RpxyAuto, "auto")]
            .into_iter()
            .find_map(|(candidate, policy)| (self == candidate).then_some(policy))
    }

    /// The table of the kernel plane, where there is one.
    fn kernel_plane(self) -> String {
        let of_udp = |mode| format!("[ebpf]\nmode = \"{mode}\"\nearly_drop = true\n");
        if self.splice_policy().is_some() {
            "[ebpf]\nmode = \"tc\"\ntcp = \"auto\"\n".to_owned()
        } else if self == Self::RpxyTc {
            of_udp("tc")
        } else if self == Self::RpxyGeneric {
            of_udp("xdp-generic")
        } else {
            String::new()
        }
    }

    /// The configuration of rpxy-l4, with rules for every protocol that could be meant or without any.
    fn daemon_configuration(self, setup: Setup, allowed: usize) -> String {
        let (front, back) = (Rig::front(self.index(), setup.service), Rig::back(self.index(), setup.service));
        let shared = if setup.processes > 1 { "reuse_port = true\n" } else { "" };
        let general = format!(
            "listen_port = {}\nlisten_address_v4 = \"{}\"\n{shared}workers = {}\n",
            front.port(),
            front.ip(),
            setup.threads()
        );
        // One client makes all connections.
        let places = format!("tcp_max_connections = {allowed}\ntcp_max_connections_per_source = 0\n");
        let rule = |name: &str, protocol: &str| {
            format!("\n[protocols.{name}]\nprotocol = \"{protocol}\"\ntarget = [\"{back}\"]\n")
        };
        match (setup.service.is_udp(), self == Self::RpxyRouted) {
            (false, false) => {
                let policy = self.splice_policy().map_or_else(String::new, |policy| {
                    format!("tcp_splice = \"{policy}\"\nmetrics_listen = \"{METRICS}\"\n")
                });
                format!("{general}{places}tcp_target = [\"{back}\"]\n{policy}{}", self.kernel_plane())
            }
            (false, true) => format!("{general}{places}{}", rule("web", "http")),
            (true, _) if setup.unanswered => {
                // With a rule for QUIC, anything might be a short header with its fixed bit clear.
                let rule = rule("wireguard", "wireguard");
                format!("{general}udp_max_connections = {allowed}\n{}{rule}", self.kernel_plane())
            }
            (true, routed) => {
                let rules = if routed { rule("quic", "quic") + &rule("wireguard", "wireguard") } else { String::new() };
                format!(
                    "{general}udp_max_connections = {allowed}\nudp_idle_lifetime = 600\nudp_target = [\"{back}\"]\n\
                     {}{rules}",
                    self.kernel_plane()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tcp, udp};

    #[test]
    fn both_suites_are_told_apart_in_every_configuration() {
        // (candidate, words for TCP alone, words for UDP alone)
        let rows = [
            (Candidate::Rpxy, "tcp_target", "udp_target"),
            (Candidate::RpxyRouted, "\"http\"", "\"wireguard\""),
            (Candidate::Nginx, "backlog", " udp reuseport "),
            (Candidate::Nat, "tcp dport", "masquerade"),
        ];
        for (candidate, of_tcp, of_udp) in rows {
            let tcp = candidate.configuration(tcp::SUITE.shown);
            let udp = candidate.configuration(udp::SUITE.shown);
            assert!(tcp.contains(of_tcp) && !tcp.contains(of_udp), "{candidate:?}: {tcp}");
            assert!(udp.contains(of_udp) && !udp.contains(of_tcp), "{candidate:?}: {udp}");
        }
    }

    #[test]
    fn several_processes_share_the_port_and_the_threads() {
        // (processes, threads of each rpxy-l4, is the port shared, nginx's workers)
        let rows = [(1, 2, false, 2), (2, 1, true, 2), (4, 1, true, 4)];
        for (processes, threads, shared, workers) in rows {
            let setup = Setup { processes, ..udp::SUITE.shown };
            let daemon = Candidate::Rpxy.configuration(setup);
            assert!(daemon.contains(&format!("\nworkers = {threads}\n")), "{processes}: {daemon}");
            assert_eq!(daemon.contains("reuse_port = true"), shared, "{processes}");
            let nginx = Candidate::Nginx.configuration(setup);
            assert!(nginx.contains(&format!("worker_processes {workers};")), "{processes}: {nginx}");
        }
    }
}
