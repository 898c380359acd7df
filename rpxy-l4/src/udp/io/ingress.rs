//! Which interfaces the answers of a backend may arrive by.
//!
//! The kernel checks where a packet comes from (`rp_filter`) when it looks up its route. For a connected UDP socket it does
//! that once: what follows takes the route that the socket has kept, whichever interface it arrives by
//! (`udp_v4_early_demux`; TCP compares the interface). Without more, whoever knows a session's ports could forge its answers
//! at the clients' interface. The interface of the first answer is one that the kernel has let through; before an answer
//! is taken from another one, the kernel is asked what it would do with a first packet. So the host's setting decides, and
//! a path that changes goes on. There is no such filter for IPv6, whose answers do not tell their interface.

use std::{collections::HashMap, io, net::Ipv4Addr, time::Duration};

use crate::offload::Netlink;

/// How long an answer of the kernel is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// Ways remembered at most; then all are asked about again.
const MOST: usize = 1024;
/// Index of the loopback interface (`LOOPBACK_IFINDEX`). What it brings is from this machine, and routes are not asked.
const LOOPBACK: u32 = 1;

/// The kernel's answers, each with the time until which it is believed.
type Known = HashMap<Way, (bool, Duration)>;

/// How a datagram came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) interface: u32,
}

/// Ways other than those of first answers, as far as the kernel was asked about them.
#[derive(Debug, Default)]
pub(super) struct Ingress {
    netlink: Option<Netlink>,
    known: Known,
}

impl Ingress {
    /// Opens the way to ask the kernel, where that can be had.
    pub(super) fn open() -> Self {
        let told = |error: &io::Error| {
            tracing::warn!(
                "answers of backends may arrive by any interface, whatever rp_filter says: routes cannot be asked for: {error} \
                 (allow netlink sockets)"
            );
        };
        Self { netlink: Netlink::open().inspect_err(told).ok(), known: Known::new() }
    }

    /// Returns whether the host takes what comes this way. If the kernel cannot be asked, it has decided already.
    pub(super) fn takes(&mut self, way: Way, now: Duration) -> bool {
        let Self { netlink, known } = self;
        judge(known, way, now, |way| match ask(netlink, way) {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!("cannot ask about {way:?}: {error}");
                true
            }
        })
    }
}

fn judge(known: &mut Known, way: Way, now: Duration, ask: impl FnOnce(Way) -> bool) -> bool {
    if way.interface == LOOPBACK {
        return true;
    }
    if let Some((taken, until)) = known.get(&way)
        && now < *until
    {
        return *taken;
    }
    if known.len() >= MOST {
        known.clear();
    }
    let taken = ask(way);
    known.insert(way, (taken, now.saturating_add(BELIEVED)));
    taken
}

fn ask(netlink: &mut Option<Netlink>, way: Way) -> io::Result<bool> {
    let netlink = match netlink {
        Some(netlink) => netlink,
        none => none.insert(Netlink::open()?),
    };
    netlink.takes(way.source, way.destination, way.interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(interface: u32) -> Way {
        Way { source: Ipv4Addr::new(192, 0, 2, 1), destination: Ipv4Addr::new(192, 0, 2, 2), interface }
    }

    #[test]
    fn the_kernel_is_asked_and_believed_for_a_while() {
        let mut known = Known::default();
        let last = BELIEVED - Duration::from_nanos(1);
        for (name, at, asked, expected) in [
            ("asked", Duration::ZERO, Some(false), false),
            ("believed", last, None, false),
            ("asked again", BELIEVED, Some(true), true),
            ("believed again", BELIEVED + last, None, true),
        ] {
            assert_eq!(judge(&mut known, by(2), at, |_| asked.expect(name)), expected, "{name}");
        }
        assert!(!judge(&mut known, by(3), Duration::ZERO, |_| false), "another interface");
        assert!(judge(&mut known, by(LOOPBACK), Duration::ZERO, |_| panic!("nobody else is there")), "the loopback");
    }

    #[test]
    fn what_cannot_be_asked_about_is_taken() {
        assert!(Ingress::default().takes(by(u32::MAX >> 1), Duration::ZERO), "no such interface");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        for interface in (0..).take(2 * MOST) {
            judge(&mut known, by(interface), Duration::ZERO, |_| false);
        }
        assert!(known.len() <= MOST);
    }
}
