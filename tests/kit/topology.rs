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

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

pub use crate::host::Host;
use crate::{
    checksum,
    host::{ETC_DIRECTORY, RUN_DIRECTORY},
    plane::Plane,
    privilege, socket,
};
use anyhow::{Context as _, bail};

/// The client's first address; `.11` and `.12` follow.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The client's address in IPv6.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// The gateway as the client sees it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The gateway as the client sees it, in IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The gateway as the backend sees it.
pub const GATEWAY_INSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The gateway as the backend sees it, in IPv6.
pub const GATEWAY_INSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// The backend's addresses.
pub const BACKENDS_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(198, 51, 100, 10), Ipv4Addr::new(198, 51, 100, 11), Ipv4Addr::new(198, 51, 100, 12)];
/// The backend's addresses in IPv6.
pub const BACKENDS_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11),
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x12),
];
/// An address on the backend's network where nobody lives. Nothing answers, not even ARP; see
/// [`Topology::blackhole`] for a silent drop.
pub const NOBODY_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

/// A port of the first backend address.
pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from((BACKENDS_V4[0], port))
}

/// A port of the first backend address in IPv6.
pub fn at_v6(port: u16) -> SocketAddr {
    SocketAddr::from((BACKENDS_V6[0], port))
}

/// Further addresses of the client, `n` from 0 to 125: the client answers for all of 192.0.2.128/25.
pub fn client_pool(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 128 + n % 126)
}

/// A port where nobody listens.
const DISCARD: u16 = 9;
const NAME_PREFIX: &str = "rx";

/// The three hosts. Dropping it removes them, and fails the test when a wrong checksum has arrived at one of them.
#[derive(Debug)]
pub struct Topology {
    /// Where clients run.
    pub client: Host,
    /// Where the proxy runs.
    pub gateway: Host,
    /// Where servers run.
    pub backend: Host,
    complete: bool,
}

impl Topology {
    /// Builds the three hosts, or says on standard error that the calling test is skipped and why.
    ///
    /// # Panics
    ///
    /// When the machine should be able to and is not, and when [`privilege::REQUIRED_VARIABLE`] is set and it cannot.
    pub fn or_skip() -> Option<Self> {
        if let Some(missing) = privilege::missing() {
            privilege::skip(&format!("{missing}; run as root for network namespaces"));
            return None;
        }
        match Self::new() {
            Ok(topology) => Some(topology),
            Err(error) => panic!("cannot build the network: {error:#}"),
        }
    }

    /// Builds the three hosts, their devices prepared for the plane of the running test.
    ///
    /// # Errors
    ///
    /// When an `ip` command fails, by lack of privilege above all.
    pub fn new() -> anyhow::Result<Self> {
        static STALE: Once = Once::new();
        static INSTANCE: AtomicU32 = AtomicU32::new(0);
        STALE.call_once(remove_stale);

        let instance = INSTANCE.fetch_add(1, Ordering::Relaxed);
        let host = |letter: char| Host::new(format!("{NAME_PREFIX}{}-{instance}-{letter}", std::process::id()));
        // From here on a failure cleans up through Drop.
        let mut topology = Self { client: host('c'), gateway: host('g'), backend: host('b'), complete: false };
        topology.build()?;
        if let Some(plane) = Plane::current() {
            checksum::prepare(&topology, plane)?;
            if plane != Plane::Userspace {
                topology.meet();
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

    /// Makes the gateway know its neighbours, so that what is steered does not depend on when a daemon hears of them.
    fn meet(&self) {
        let inside = BACKENDS_V4.map(IpAddr::from).into_iter().chain(BACKENDS_V6.map(IpAddr::from));
        for address in inside.chain([CLIENT_V4.into(), CLIENT_V6.into()]) {
            // Nobody listens; the refusal comes from the neighbour.
            let _refused = socket::try_dial(&self.gateway, None, SocketAddr::new(address, DISCARD));
        }
    }

    fn build(&self) -> anyhow::Result<()> {
        let Self { client, gateway, backend, .. } = self;
        let (c, g, b) = (client.name(), gateway.name(), backend.name());
        ip_batch(
            None,
            &format!(
                "netns add {c}\n\
                 netns add {g}\n\
                 netns add {b}\n\
                 link add eth0 netns {c} type veth peer name eth0 netns {g}\n\
                 link add eth0 netns {b} type veth peer name eth1 netns {g}\n"
            ),
        )?;
        ip_batch(
            Some(client),
            &format!(
                "link set lo up\n\
                 addr add {CLIENT_V4}/24 dev eth0\n\
                 addr add 192.0.2.11/24 dev eth0\n\
                 addr add 192.0.2.12/24 dev eth0\n\
                 addr add {CLIENT_V6}/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add local 192.0.2.128/25 dev lo\n\
                 route add default via {GATEWAY_V4}\n\
                 route add default via {GATEWAY_V6}\n"
            ),
        )?;
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
        let hosts = [&self.client, &self.gateway, &self.backend];
        let verified = if self.complete && !thread::panicking() { checksum::verify(&hosts) } else { Ok(()) };
        for host in hosts {
            remove(host.name());
        }
        if let Err(error) = verified {
            panic!("{error:#}");
        }
    }
}

/// Removes namespaces of processes that are no more, and ends what still runs in them.
fn remove_stale() {
    let Ok(entries) = fs::read_dir(RUN_DIRECTORY) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(NAME_PREFIX)
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    // Best effort throughout: this runs in Drop, perhaps while a panic unwinds, and the next run tries again.
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_ascii_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
    let _ignored = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    let _ignored = fs::remove_dir_all(Path::new(ETC_DIRECTORY).join(name));
}

fn mac_of(interface: &str) -> std::io::Result<String> {
    // /sys shows the devices of the namespace that mounted it, so the address is asked from `ip` instead.
    let output = Command::new("ip").args(["-o", "link", "show", interface]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_ascii_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).map(str::to_owned).ok_or_else(|| std::io::Error::other(format!("no address of {interface}: {text}")))
}

fn ip_batch(host: Option<&Host>, lines: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    if let Some(host) = host {
        command.args(["-n", host.name()]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip (package iproute2)")?;
    child.stdin.take().context("stdin of ip")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip -batch: {}\n{lines}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::run;

    #[test]
    fn what_a_dead_process_has_left_is_removed() {
        if privilege::missing().is_some() {
            return assert!(!privilege::required());
        }
        // No process has this id: it is above the kernel's limit of 2^22 (proc(5), pid_max).
        let stale = Host::new(format!("{NAME_PREFIX}4194305-0-c"));
        run(Command::new("ip").args(["netns", "add", stale.name()])).unwrap();
        let mut left = stale.command("sleep").arg("3600").spawn().unwrap();
        crate::wait::until("the process is in its namespace", || {
            let pids = Command::new("ip").args(["netns", "pids", stale.name()]).output().unwrap().stdout;
            (!pids.is_empty()).then_some(())
        });
        let live = Topology::new().unwrap();
        remove_stale();
        assert!(!Path::new(RUN_DIRECTORY).join(stale.name()).exists());
        assert!(Path::new(RUN_DIRECTORY).join(live.client.name()).exists());
        assert!(!left.wait().unwrap().success(), "the process in it was ended");
    }
}
