//! Addresses at which the daemon itself listens: a target must not be one.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use crate::config::model::Listen;

/// Time for which the machine's word on an address is believed: addresses move, as those of VRRP do.
const BELIEVED: Duration = Duration::from_secs(10);
/// Addresses that a worker remembers.
const REMEMBERED: usize = 64;

thread_local! {
    static KNOWN: RefCell<Vec<(IpAddr, bool, Instant)>> = const { RefCell::new(Vec::new()) };
}

/// The daemon's own listeners.
#[derive(Debug)]
pub(super) struct Own {
    listen: Listen,
}

impl Own {
    pub(super) fn new(listen: &Listen) -> Self {
        Self { listen: listen.clone() }
    }

    /// Returns whether a connection to `address` would come back to the daemon. Costs nothing but for the ports that it
    /// listens on.
    pub(super) fn is(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.listen.ports.iter().any(|port| port.get() == address.port())
            && self.listen.addresses.iter().any(|own| own.includes(ip).unwrap_or_else(|| is_of_this_machine(ip)))
    }
}

fn is_of_this_machine(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    KNOWN.with_borrow_mut(|known| {
        let now = Instant::now();
        known.retain(|(.., when)| now.saturating_duration_since(*when) < BELIEVED);
        if let Some((_, own, _)) = known.iter().find(|(address, ..)| *address == ip) {
            return *own;
        }
        let own = routes_to_itself(ip);
        if known.len() < REMEMBERED {
            known.push((ip, own, now));
        }
        own
    })
}

/// Asks the routing table: what this machine sends to an address of its own, it sends from there. Nothing is sent.
fn routes_to_itself(ip: IpAddr) -> bool {
    let any = if ip.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == ip)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::model::ListenAddress;

    #[test]
    fn own_listeners_are_found_by_any_address() {
        let ports = vec![NonZeroU16::new(443).unwrap()];
        let v4 = |text: &str| ListenAddress::V4(text.parse().unwrap());
        let listen = |address| Listen { ports: ports.clone(), addresses: vec![address], reuse_port: false };
        let (all, one) = (listen(v4("0.0.0.0")), listen(v4("192.0.2.1")));
        for (row, listen, address, expected) in [
            ("loopback", &all, "127.0.0.1:443", true),
            ("all of loopback", &all, "127.9.9.9:443", true),
            ("mapped", &all, "[::ffff:127.0.0.1]:443", true),
            ("another port", &all, "127.0.0.1:444", false),
            ("the other family", &all, "[::1]:443", false),
            ("another machine", &all, "192.0.2.1:443", false),
            ("the address itself", &one, "192.0.2.1:443", true),
            ("another address", &one, "127.0.0.1:443", false),
        ] {
            assert_eq!(Own::new(listen).is(address.parse().unwrap()), expected, "{row}");
        }
    }
}
