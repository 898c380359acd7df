//! Five gateways with one service address behind a router, which spreads flows over them (ECMP).
//!
//! ```text
//!                                          +-- eth0  gateway 0  eth1 --+
//! client 192.0.2.10 eth0 --- eth0  router -+-- ..    203.0.113.1     --+- backend 198.51.100.10, .11, .12
//!        192.0.2.128/25                    +-- eth0  gateway 4  eth1 --+
//! ```
//!
//! The router chooses by addresses and ports, packet by packet, and knows nothing of flows: when a gateway goes, most
//! flows come to another one, also of those that were not with it.

use std::{fs, net::Ipv4Addr};

use anyhow::Context as _;

use super::{BACKENDS_V4, CLIENT_V4, GATEWAY_V4, client_lines, remove};
use crate::{
    OrFail as _, checksum,
    host::{Host, ip_batch},
    offload_mode::OffloadMode,
    owned, privilege,
    topology::meet,
    watchdog::Watched,
};

/// Number of gateways.
pub const GATEWAYS: usize = 5;

/// The address of the service, which every gateway has.
pub const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The hosts. Dropping it removes them, and fails the test when a wrong checksum has arrived at one of them.
#[derive(Debug)]
pub struct Fleet {
    /// Host of the clients.
    pub client: Host,
    /// Host between clients and gateways.
    pub router: Host,
    /// Hosts of the proxies.
    pub gateways: [Host; GATEWAYS],
    /// Host of the servers.
    pub backend: Host,
    complete: bool,
    _watched: Watched,
}

impl Fleet {
    /// Builds the hosts, or says on standard error that the calling test is skipped and why.
    ///
    /// # Panics
    ///
    /// As [`Topology::or_skip`](super::Topology::or_skip).
    pub fn or_skip() -> Option<Self> {
        if let Some(missing) = privilege::missing() {
            privilege::skip(&format!("{missing}; run as root for network namespaces"));
            return None;
        }
        owned::remove_stale();
        let instance = owned::instance();
        let host = |letter| Host::new(owned::namespace(instance, letter));
        let mut fleet = Self {
            client: host('c'),
            router: host('r'),
            gateways: ['0', '1', '2', '3', '4'].map(host),
            backend: host('b'),
            complete: false,
            _watched: Watched::begin(),
        };
        fleet.build().or_fail("cannot build the network");
        if let Some(mode) = OffloadMode::current() {
            fleet.prepare(mode).or_fail("cannot prepare the network");
        }
        fleet.complete = true;
        Some(fleet)
    }

    /// Returns the address of gateway number `n` as the backend sees it.
    pub fn inside(n: usize) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, subnet(n), 1)
    }

    /// Cuts the router's link to gateway number `n`, as if the machine were gone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn take_away(&self, n: usize) -> anyhow::Result<()> {
        self.router.ip(&format!("link set g{n} down"))
    }

    /// Returns the bytes that have passed between the router and gateway number `n`, both ways.
    ///
    /// # Errors
    ///
    /// When the router has no such link.
    pub fn carried_by(&self, n: usize) -> anyhow::Result<u64> {
        // The table shows the namespace of the thread that reads it.
        let table = self.router.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let link = format!("g{n}:");
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(&link)).context(link.clone())?;
        let mut columns = line.split_ascii_whitespace().map(str::parse);
        // Received bytes are the first of eight columns, sent ones the first of the next eight.
        let received: u64 = columns.next().context("received bytes")??;
        let sent: u64 = columns.nth(7).context("sent bytes")??;
        Ok(received + sent)
    }

    fn build(&self) -> anyhow::Result<()> {
        let (c, r, b) = (self.client.name(), self.router.name(), self.backend.name());
        let mut lines = format!("netns add {c}\nnetns add {r}\nnetns add {b}\n");
        lines += &format!("link add eth0 netns {c} type veth peer name eth0 netns {r}\n");
        for (n, gateway) in self.gateways.iter().enumerate() {
            let g = gateway.name();
            lines += &format!("netns add {g}\nlink add eth0 netns {g} type veth peer name g{n} netns {r}\n");
            lines += &format!("link add eth1 netns {g} type veth peer name g{n} netns {b}\n");
        }
        ip_batch(None, &lines)?;
        ip_batch(Some(&self.client), &client_lines())?;

        let mut router = format!("link set lo up\naddr add {GATEWAY_V4}/24 dev eth0\nlink set eth0 up\n");
        let mut backend = "link set lo up\n".to_owned();
        for address in BACKENDS_V4 {
            backend += &format!("addr add {address}/32 dev lo\n");
        }
        let mut ways = String::new();
        for (n, gateway) in self.gateways.iter().enumerate() {
            let subnet = subnet(n);
            router += &format!("addr add 198.18.{subnet}.1/30 dev g{n}\nlink set g{n} up\n");
            backend += &format!("addr add 198.19.{subnet}.2/30 dev g{n}\nlink set g{n} up\n");
            ways += &format!(" nexthop via 198.18.{subnet}.2");
            let inside = Self::inside(n);
            ip_batch(
                Some(gateway),
                &format!(
                    "link set lo up\n\
                     addr add {SERVICE_V4}/32 dev lo\n\
                     addr add 198.18.{subnet}.2/30 dev eth0\n\
                     addr add {inside}/30 dev eth1\n\
                     link set eth0 up\n\
                     link set eth1 up\n\
                     route add default via 198.18.{subnet}.1\n\
                     route add 198.51.100.0/24 via 198.19.{subnet}.2\n"
                ),
            )?;
        }
        router += &format!("route add {SERVICE_V4}/32{ways}\n");
        ip_batch(Some(&self.router), &router)?;
        ip_batch(Some(&self.backend), &backend)?;
        self.router.sysctl("ipv4/ip_forward", "1")?;
        // By addresses and ports, not by addresses alone.
        self.router.sysctl("ipv4/fib_multipath_hash_policy", "1")
    }

    fn prepare(&self, mode: OffloadMode) -> anyhow::Result<()> {
        for (n, gateway) in self.gateways.iter().enumerate() {
            let device = format!("g{n}");
            checksum::prepare((&self.router, &device), gateway, (&self.backend, &device), mode)?;
            if mode != OffloadMode::Off {
                meet(gateway, [CLIENT_V4.into(), BACKENDS_V4[0].into()]);
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let ends = [&self.client, &self.router, &self.backend];
        let hosts: Vec<_> = ends.into_iter().chain(&self.gateways).collect();
        remove(&hosts, self.complete);
    }
}

/// Third byte of a gateway's networks.
fn subnet(n: usize) -> u8 {
    u8::try_from(n).or_fail("number of a gateway")
}
