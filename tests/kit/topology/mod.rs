//! Three hosts in a row, as network namespaces joined by veth pairs: client, gateway, backend.
//!
//! ```text
//! client  192.0.2.10, .11, .12      eth0 --- eth0  gateway  192.0.2.1
//!         192.0.2.128/25 (any)                              2001:db8:1::1
//!         2001:db8:1::10
//!
//! backend 198.51.100.10, .11, .12   eth0 --- eth1  gateway  198.51.100.1
//!         2001:db8:2::10, ::11, ::12                        2001:db8:2::1
//! ```
//!
//! Everything is made by `ip` commands, so that a failure can be repeated by hand. The gateway does not forward unless
//! told; client and backend have routes to each other for the case that it does. Every namespace belongs to one
//! process and one instance by its name, so tests run side by side; what a killed run has left is removed by the next.

mod addresses;
mod fleet;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    thread,
};

use anyhow::Context as _;

pub use self::addresses::{
    BACKENDS_V4, BACKENDS_V6, CLIENT_V4, CLIENT_V6, GATEWAY_INSIDE_V4, GATEWAY_INSIDE_V6, GATEWAY_V4, GATEWAY_V6,
    NOBODY_V4, at, at_v6, client_pool,
};
pub use self::fleet::{Fleet, GATEWAYS, SERVICE_V4};
pub use crate::host::Host;
use crate::host::ip_batch;
use crate::{
    checksum,
    offload_mode::OffloadMode,
    owned, privilege, socket,
    watchdog::Watched,
    wire::{Weather, Wire},
};

/// A port where nobody listens.
const DISCARD: u16 = 9;

/// The three hosts. Dropping it removes them, and fails the test when a wrong checksum has arrived at one of them.
#[derive(Debug)]
pub struct Topology {
    /// Host of the clients.
    pub client: Host,
    /// Host of the proxy.
    pub gateway: Host,
    /// Host of the servers.
    pub backend: Host,
    /// In the link between client and gateway, if there is one.
    wire: Option<Wire>,
    complete: bool,
    /// For a test alone: measurements may take as long as they are told to.
    _watched: Option<Watched>,
}

impl Topology {
    /// Builds the three hosts, or says on standard error that the calling test is skipped and why.
    ///
    /// # Panics
    ///
    /// When the machine should be able to and is not, and when [`privilege::REQUIRED_VARIABLE`] is set and it cannot.
    pub fn or_skip() -> Option<Self> {
        Self::made_or_skip(Self::new)
    }

    /// As [`Topology::or_skip`], with a [`Wire`] between client and gateway.
    ///
    /// # Panics
    ///
    /// As [`Topology::or_skip`].
    pub fn with_wire_or_skip(weather: Weather) -> Option<Self> {
        Self::made_or_skip(|| Self::with_wire(weather))
    }

    fn made_or_skip(make: impl FnOnce() -> anyhow::Result<Self>) -> Option<Self> {
        if let Some(missing) = privilege::missing() {
            privilege::skip(&format!("{missing}; run as root for network namespaces"));
            return None;
        }
        match make() {
            Ok(mut topology) => {
                topology._watched = Some(Watched::begin());
                Some(topology)
            }
            Err(error) => panic!("cannot build the network: {error:#}"),
        }
    }

    /// Builds the three hosts, their devices prepared for the offload mode of the running test.
    ///
    /// # Errors
    ///
    /// When an `ip` command fails, by lack of privilege above all.
    pub fn new() -> anyhow::Result<Self> {
        owned::remove_stale();
        Self::make(owned::instance(), None)
    }

    /// As [`Topology::new`], with a [`Wire`] between client and gateway.
    ///
    /// # Errors
    ///
    /// As [`Topology::new`].
    pub fn with_wire(weather: Weather) -> anyhow::Result<Self> {
        owned::remove_stale();
        let instance = owned::instance();
        let wire = Wire::new(instance, weather).context("wire")?;
        Self::make(instance, Some(wire))
    }

    fn make(instance: u32, wire: Option<Wire>) -> anyhow::Result<Self> {
        let host = |letter| Host::new(owned::namespace(instance, letter));
        let (client, gateway, backend) = (host('c'), host('g'), host('b'));
        // From here on a failure cleans up through Drop.
        let mut topology = Self { client, gateway, backend, wire, complete: false, _watched: None };
        topology.build()?;
        if let Some(mode) = OffloadMode::current() {
            checksum::prepare((&topology.client, "eth0"), &topology.gateway, (&topology.backend, "eth0"), mode)?;
            if mode != OffloadMode::Off {
                let inside = BACKENDS_V4.map(IpAddr::from).into_iter().chain(BACKENDS_V6.map(IpAddr::from));
                meet(&topology.gateway, inside.chain([CLIENT_V4.into(), CLIENT_V6.into()]));
            }
        }
        topology.complete = true;
        Ok(topology)
    }

    /// Lets the gateway forward packets between client and backend, as a router does.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forward(&self) -> anyhow::Result<()> {
        self.gateway.sysctl("ipv4/ip_forward", "1")?;
        self.gateway.sysctl("ipv6/conf/all/forwarding", "1")
    }

    /// Makes the backend swallow whatever is sent to `address`, one of its own, without a word.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn blackhole(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.backend.ip(&format!("addr del {address}/24 dev eth0"))?;
        // The neighbour stays resolvable, so that a connection attempt hangs instead of failing for want of ARP.
        let mac = self.backend.run(|| mac_of("eth0"))?;
        self.gateway.ip(&format!("neigh replace {address} lladdr {mac} dev eth1 nud permanent"))
    }

    /// The wire between client and gateway.
    pub fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    fn build(&self) -> anyhow::Result<()> {
        let Self { client, gateway, backend, .. } = self;
        let (c, g, b) = (client.name(), gateway.name(), backend.name());
        let link = match self.wire.as_ref().map(|wire| wire.host().name()) {
            None => format!("link add eth0 netns {c} type veth peer name eth0 netns {g}\n"),
            Some(w) => format!(
                "link add eth0 netns {c} type veth peer name c netns {w}\n\
                 link add eth0 netns {g} type veth peer name g netns {w}\n"
            ),
        };
        ip_batch(
            None,
            &format!(
                "netns add {c}\n\
                 netns add {g}\n\
                 netns add {b}\n\
                 {link}\
                 link add eth0 netns {b} type veth peer name eth1 netns {g}\n"
            ),
        )?;
        if let Some(wire) = &self.wire {
            wire.connect()?;
        }
        ip_batch(Some(client), &client_lines())?;
        ip_batch(
            Some(gateway),
            &format!(
                "link set lo up\n\
                 addr add {GATEWAY_V4}/24 dev eth0\n\
                 addr add {GATEWAY_V6}/64 dev eth0 nodad\n\
                 addr add {GATEWAY_INSIDE_V4}/24 dev eth1\n\
                 addr add {GATEWAY_INSIDE_V6}/64 dev eth1 nodad\n\
                 link set eth0 up\n\
                 link set eth1 up\n"
            ),
        )?;
        let mut lines = String::from("link set lo up\n");
        for address in BACKENDS_V4 {
            lines += &format!("addr add {address}/24 dev eth0\n");
        }
        for address in BACKENDS_V6 {
            lines += &format!("addr add {address}/64 dev eth0 nodad\n");
        }
        lines += &format!(
            "link set eth0 up\n\
             route add default via {GATEWAY_INSIDE_V4}\n\
             route add default via {GATEWAY_INSIDE_V6}\n"
        );
        ip_batch(Some(backend), &lines)?;

        // Without these, programs on the gateway would ask the machine's own name servers.
        let etc = gateway.etc();
        fs::create_dir_all(&etc).with_context(|| etc.display().to_string())?;
        fs::write(etc.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
        fs::write(etc.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
        Ok(())
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        remove(&[&self.client, &self.gateway, &self.backend], self.complete);
    }
}

/// The client's addresses and routes, for `ip -batch`.
fn client_lines() -> String {
    format!(
        "link set lo up\n\
         addr add {CLIENT_V4}/24 dev eth0\n\
         addr add 192.0.2.11/24 dev eth0\n\
         addr add 192.0.2.12/24 dev eth0\n\
         addr add {CLIENT_V6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add local 192.0.2.128/25 dev lo\n\
         route add default via {GATEWAY_V4}\n\
         route add default via {GATEWAY_V6}\n"
    )
}

/// Makes a gateway know its neighbours on the way to `addresses`, so that what is steered does not depend on when a daemon
/// hears of them.
fn meet(gateway: &Host, addresses: impl IntoIterator<Item = IpAddr>) {
    for address in addresses {
        // Nobody listens; the refusal comes from the neighbour.
        let _refused = socket::try_dial(gateway, None, SocketAddr::new(address, DISCARD));
    }
}

/// Removes hosts. Those of a test that did well are asked for wrong checksums first.
fn remove(hosts: &[&Host], complete: bool) {
    let verified = if complete && !thread::panicking() { checksum::verify(hosts) } else { Ok(()) };
    for host in hosts {
        owned::remove_namespace(host.name());
    }
    if let Err(error) = verified {
        panic!("{error:#}");
    }
}

fn mac_of(interface: &str) -> std::io::Result<String> {
    // /sys shows the devices of the namespace that mounted it, so the address is asked from `ip` instead.
    let output = Command::new("ip").args(["-o", "link", "show", interface]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_ascii_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).map(str::to_owned).ok_or_else(|| std::io::Error::other(format!("no address of {interface}: {text}")))
}
