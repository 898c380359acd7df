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
/// Questions about one interface in [`BELIEVED`]: whoever forges answers chooses among the addresses of backends, and a
/// question takes a worker some microseconds. An interface has its own, so that forgeries at one do not keep answers from
/// moving to another.
const QUESTIONS: u32 = 512;
/// Ways remembered at most.
const MOST: usize = 1024;
/// Index of the loopback interface (`LOOPBACK_IFINDEX`). What it brings is from this machine, and routes are not asked.
const LOOPBACK: u32 = 1;

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
        Self { netlink: Netlink::open().inspect_err(told).ok(), known: Known::default() }
    }

    /// Returns whether the host takes what comes this way. If the kernel cannot be asked, it has decided already.
    pub(super) fn takes(&mut self, way: Way, now: Duration) -> bool {
        let Self { netlink, known } = self;
        known.judge(way, now, |way| match ask(netlink, way) {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!("cannot ask about {way:?}: {error}");
                true
            }
        })
    }
}

/// The kernel's answers, and how often it was asked.
#[derive(Debug, Default)]
struct Known {
    /// Each with the time until which it is believed.
    answers: HashMap<Way, (bool, Duration)>,
    /// Questions about each interface since the last time that these were forgotten.
    asked: HashMap<u32, u32>,
    /// When they are forgotten.
    forget: Duration,
}

impl Known {
    /// Returns whether what comes by `way` is taken. Refuses ways that there was no time to ask about.
    fn judge(&mut self, way: Way, now: Duration, ask: impl FnOnce(Way) -> bool) -> bool {
        if way.interface == LOOPBACK {
            return true;
        }
        if let Some((taken, until)) = self.answers.get(&way)
            && now < *until
        {
            return *taken;
        }
        if now >= self.forget {
            self.asked.clear();
            self.forget = now.saturating_add(BELIEVED);
        }
        let asked = self.asked.entry(way.interface).or_default();
        if *asked >= QUESTIONS {
            return false;
        }
        *asked += 1;
        if self.answers.len() >= MOST {
            self.answers.retain(|_, (_, until)| now < *until);
        }
        if self.answers.len() >= MOST {
            self.answers.clear();
        }
        let taken = ask(way);
        self.answers.insert(way, (taken, now.saturating_add(BELIEVED)));
        taken
    }
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
            assert_eq!(known.judge(by(2), at, |_| asked.expect(name)), expected, "{name}");
        }
        assert!(!known.judge(by(3), Duration::ZERO, |_| false), "another interface");
        assert!(known.judge(by(LOOPBACK), Duration::ZERO, |_| panic!("nobody else is there")), "the loopback");
    }

    #[test]
    fn what_cannot_be_asked_about_is_taken() {
        assert!(Ingress::default().takes(by(u32::MAX >> 1), Duration::ZERO), "no such interface");
    }

    /// A way by `interface`, one of many.
    fn number(number: u32, interface: u32) -> Way {
        Way { source: Ipv4Addr::from_bits(number), ..by(interface) }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        for interface in (0..).take(2 * MOST) {
            known.judge(by(interface), Duration::ZERO, |_| false);
            assert!(known.answers.len() <= MOST);
        }
    }

    #[test]
    fn forgeries_cannot_make_the_daemon_ask_for_ever() {
        let mut known = Known::default();
        let mut asked = 0;
        let mut flood = |known: &mut Known, now| {
            asked = 0;
            for source in 0..100 * QUESTIONS {
                assert!(!known.judge(number(source, 2), now, |_| {
                    asked += 1;
                    false
                }));
            }
            asked
        };
        assert_eq!(flood(&mut known, Duration::ZERO), QUESTIONS);
        assert!(!known.judge(number(u32::MAX, 2), Duration::ZERO, |_| true), "refused unasked");
        assert!(known.judge(number(u32::MAX, 3), Duration::ZERO, |_| true), "another interface has its own questions");
        assert!(known.judge(number(u32::MAX, 2), BELIEVED, |_| true), "asked about a second later");
        assert_eq!(flood(&mut known, 2 * BELIEVED), QUESTIONS);
        assert!(known.answers.len() <= MOST);
    }
}
