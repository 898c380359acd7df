//! Addresses at which the daemon itself listens: a target must not be one.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use crate::config::model::{Config, ListenAddress, Listener, Transport};

/// Time for which the machine's word on an address is believed: addresses move, as those of VRRP do.
const BELIEVED: Duration = Duration::from_secs(10);
/// Addresses that a worker remembers.
const REMEMBERED: usize = 64;

thread_local! {
    static KNOWN: RefCell<Vec<(IpAddr, bool, Instant)>> = const { RefCell::new(Vec::new()) };
}

/// The daemon's own TCP sockets: the addresses that are listened on, by port.
#[derive(Debug)]
pub(super) struct Own(HashMap<u16, Vec<ListenAddress>>);

impl Own {
    pub(super) fn new(config: &Config) -> Self {
        let mut own: HashMap<u16, Vec<ListenAddress>> = HashMap::new();
        let sockets = config.listeners().flat_map(Listener::sockets);
        for (_, address, port) in sockets.filter(|(transport, ..)| *transport == Transport::Tcp) {
            own.entry(port.get()).or_default().push(address.clone());
        }
        Self(own)
    }

    /// Returns whether a connection to `address` would come back to the daemon. Costs little but for the ports that it
    /// listens on.
    pub(super) fn is(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_it = |own: &ListenAddress| own.includes(ip).unwrap_or_else(|| is_of_this_machine(ip));
        self.0.get(&address.port()).is_some_and(|addresses| addresses.iter().any(is_it))
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
    use super::*;
    use crate::config::parse;

    #[test]
    fn own_listeners_are_found_by_any_address() {
        let listen = |address: &str| {
            let text = format!("listen_port = 443\nlisten_address_v4 = '{address}'\ntcp_target = 'a.example:1'");
            Own::new(&parse(&text).unwrap().config)
        };
        let (all, one) = (listen("0.0.0.0"), listen("192.0.2.1"));
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
            assert_eq!(listen.is(address.parse().unwrap()), expected, "{row}");
        }
    }
}
