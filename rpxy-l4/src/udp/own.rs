//! The daemon's own sockets as sources of datagrams.
//!
//! A datagram that claims to come from a socket of ours would have its answer come back as the next question, for ever. Such
//! a source is forged, or a backend is misled; either way nobody waits for an answer. Ports are compared first, so that all
//! other datagrams cost one look into a table.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use crate::net;

/// How long it is believed that an address is, or is not, one of this machine.
const BELIEVED: Duration = Duration::from_secs(10);
/// Addresses remembered at most; then all are asked about again.
const MOST: usize = 1024;

/// Ports of the daemon's own sockets, of all workers.
#[derive(Debug)]
pub(super) struct OwnPorts {
    /// By port: sockets towards backends, which at most as many share as the machine has addresses.
    upstream: Box<[AtomicU16]>,
    /// By port: listening sockets.
    listening: Box<[AtomicU16]>,
}

impl Default for OwnPorts {
    fn default() -> Self {
        let none = || (0..=u16::MAX).map(|_| AtomicU16::new(0)).collect();
        Self { upstream: none(), listening: none() }
    }
}

impl OwnPorts {
    pub(super) fn listen(&self, port: u16) {
        count(&self.listening, port, 1);
    }

    pub(super) fn close(&self, port: u16) {
        count(&self.listening, port, u16::MAX);
    }

    /// Counts a socket towards a backend until the result is dropped.
    pub(super) fn open(self: &Arc<Self>, port: u16) -> OwnPort {
        count(&self.upstream, port, 1);
        OwnPort { ports: Arc::clone(self), port }
    }

    fn is_listening(&self, port: u16) -> bool {
        is_used(&self.listening, port)
    }

    fn is_upstream(&self, port: u16) -> bool {
        is_used(&self.upstream, port)
    }
}

/// A port of a socket towards a backend.
#[derive(Debug)]
pub(super) struct OwnPort {
    ports: Arc<OwnPorts>,
    port: u16,
}

impl Drop for OwnPort {
    fn drop(&mut self) {
        count(&self.ports.upstream, self.port, u16::MAX);
    }
}

/// Adds `by`, where [`u16::MAX`] takes one away.
fn count(ports: &[AtomicU16], port: u16, by: u16) {
    if let Some(count) = ports.get(usize::from(port)) {
        count.fetch_add(by, Ordering::Relaxed);
    }
}

fn is_used(ports: &[AtomicU16], port: u16) -> bool {
    ports.get(usize::from(port)).is_some_and(|count| count.load(Ordering::Relaxed) > 0)
}

/// Which addresses are this machine's, as far as it was asked about.
#[derive(Debug, Default)]
pub(super) struct LocalAddresses {
    /// With the time until which it is believed.
    known: HashMap<IpAddr, (bool, Duration)>,
}

impl LocalAddresses {
    /// Returns whether `source` is one of the daemon's own sockets, of which it listens on `listeners`.
    pub(super) fn is_own(
        &mut self,
        source: SocketAddr,
        ports: &OwnPorts,
        listeners: impl Iterator<Item = SocketAddr>,
        now: Duration,
    ) -> bool {
        let (listening, upstream) = (ports.is_listening(source.port()), ports.is_upstream(source.port()));
        (listening && self.leads_to(source, listeners, now)) || (upstream && self.contains(source, now))
    }

    /// Returns whether what is sent to `address` arrives at one of these `listeners`.
    pub(super) fn leads_to(
        &mut self,
        address: SocketAddr,
        mut listeners: impl Iterator<Item = SocketAddr>,
        now: Duration,
    ) -> bool {
        let ip = address.ip().to_canonical();
        listeners.any(|listener| {
            let own = listener.ip().to_canonical();
            let wildcard = own.is_unspecified() && own.is_ipv4() == ip.is_ipv4();
            listener.port() == address.port() && (own == ip || (wildcard && self.contains(address, now)))
        })
    }

    /// Returns whether an address is this machine's; its port does not matter.
    pub(super) fn contains(&mut self, address: SocketAddr, now: Duration) -> bool {
        let key = address.ip().to_canonical();
        if let Some((local, until)) = self.known.get(&key)
            && now < *until
        {
            return *local;
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let local = net::is_local(address);
        self.known.insert(key, (local, now.saturating_add(BELIEVED)));
        local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_sockets_are_known_by_port_and_address() {
        let ports = Arc::new(OwnPorts::default());
        ports.listen(443);
        ports.listen(500);
        let upstream = ports.open(40_000);
        let listeners = ["0.0.0.0:443", "[2001:db8::1]:500", "127.0.0.9:500"];
        let rows = [
            ("a wildcard on this machine", "127.0.0.1:443", true),
            ("another address of this machine", "127.8.8.8:443", true),
            ("mapped", "[::ffff:127.0.0.1]:443", true),
            ("the same port elsewhere", "203.0.113.7:443", false),
            ("a family that is not listened on", "[::1]:443", false),
            ("an address that is listened on", "[2001:db8::1]:500", true),
            ("another one that is", "127.0.0.9:500", true),
            ("one that is not, on this machine", "127.0.0.1:500", false),
            ("a socket towards a backend", "127.0.0.1:40000", true),
            ("the same port elsewhere", "203.0.113.7:40000", false),
            ("no port of ours", "127.0.0.1:444", false),
        ];
        let mut local = LocalAddresses::default();
        let listeners = || listeners.iter().map(|text| text.parse().unwrap());
        for (name, address, expected) in rows {
            let leads = local.leads_to(address.parse().unwrap(), listeners(), Duration::ZERO);
            let is_upstream = address.ends_with(":40000");
            assert_eq!(leads, expected && !is_upstream, "as a target, {name}: {address}");
        }
        let mut is_own = |source: &str| local.is_own(source.parse().unwrap(), &ports, listeners(), Duration::ZERO);
        for (name, source, expected) in rows {
            assert_eq!(is_own(source), expected, "{name}: {source}");
        }
        drop(upstream);
        assert!(!is_own("127.0.0.1:40000"), "closed");
        ports.close(443);
        assert!(!is_own("127.0.0.1:443"), "closed");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut local = LocalAddresses::default();
        for n in 0..=u16::try_from(MOST).unwrap() {
            let [a, b] = n.to_be_bytes();
            let _either = local.contains(SocketAddr::from(([203, 0, a, b], 1)), Duration::ZERO);
        }
        assert!(local.known.len() <= MOST);
    }
}
