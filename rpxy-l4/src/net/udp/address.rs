//! Socket addresses in the kernel's form (`sockaddr_in`, `sockaddr_in6`), as bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// `sockaddr_in` and `sockaddr_in6`, in bytes.
const V4_LEN: usize = 16;
const V6_LEN: usize = 28;

/// Room for an address of either family, aligned as the kernel's structures are.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(4))]
pub(super) struct Name(pub(super) [u8; V6_LEN]);

impl Name {
    pub(super) const EMPTY: Self = Self([0; V6_LEN]);

    /// Writes `address` and returns how many bytes it takes.
    pub(super) fn set(&mut self, address: SocketAddr) -> usize {
        let [f0, f1, p0, p1, rest @ ..] = &mut self.0;
        [*p0, *p1] = address.port().to_be_bytes();
        match address {
            SocketAddr::V4(address) => {
                [*f0, *f1] = family(libc::AF_INET).to_ne_bytes();
                let (ip, zero) = rest.split_at_mut(4);
                ip.copy_from_slice(&address.ip().octets());
                zero.fill(0);
                V4_LEN
            }
            SocketAddr::V6(address) => {
                [*f0, *f1] = family(libc::AF_INET6).to_ne_bytes();
                let (flow, rest) = rest.split_at_mut(4);
                let (ip, scope) = rest.split_at_mut(16);
                // sin6_flowinfo is in network order; a reply has no flow label of ours.
                flow.fill(0);
                ip.copy_from_slice(&address.ip().octets());
                scope.copy_from_slice(&address.scope_id().to_ne_bytes());
                V6_LEN
            }
        }
    }

    /// The address, without a flow label; `None` for another family.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, rest @ ..] = self.0;
        let port = u16::from_be_bytes([p0, p1]);
        match i32::from(u16::from_ne_bytes([f0, f1])) {
            libc::AF_INET => {
                let ip: [u8; 4] = *rest.first_chunk()?;
                Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
            }
            libc::AF_INET6 => {
                let (_flow, rest) = rest.split_first_chunk::<4>()?;
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                let scope = u32::from_ne_bytes(*rest.first_chunk()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

/// Address families are small positive numbers.
fn family(value: i32) -> u16 {
    u16::try_from(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_set() {
        let mut name = Name([0xff; V6_LEN]);
        for (text, len) in [("192.0.2.1:53", 16), ("[2001:db8::1]:443", 28), ("[fe80::1%7]:1", 28), ("0.0.0.0:0", 16)] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(name.set(address), len, "{text}");
            assert_eq!(name.address(), Some(address), "{text}");
        }
        assert_eq!(Name([0; V6_LEN]).address(), None);
    }

    #[test]
    fn the_kernel_has_the_same_form() {
        for text in ["192.0.2.1:53", "[2001:db8::1]:443", "[fe80::1%7]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let theirs = socket2::SockAddr::from(address);
            let mut ours = Name::EMPTY;
            let len = ours.set(address);
            assert_eq!(usize::try_from(theirs.len()).unwrap(), len, "{text}");
            let socket = std::net::UdpSocket::bind(if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
            let local = socket.local_addr().unwrap();
            let len = ours.set(local);
            assert_eq!((len, ours.address()), (if local.is_ipv4() { V4_LEN } else { V6_LEN }, Some(local)));
        }
    }
}
