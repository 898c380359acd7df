//! Who has a place at the server. When all are taken, whoever has the most gives one up for the next, so that nobody keeps
//! others out.

use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that one subscriber commonly has in common (RFC 6177).
const SUBSCRIBER: u32 = 64;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// An IPv4 address, or the /64 of an IPv6 address.
    Network(IpAddr),
    /// Those of this machine who may use the unix socket.
    Unix,
}

impl Source {
    pub(super) fn of(peer: IpAddr) -> Self {
        Self::Network(match peer.to_canonical() {
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (Ipv6Addr::BITS - SUBSCRIBER))))
            }
            IpAddr::V4(address) => IpAddr::V4(address),
        })
    }
}

/// The places that are taken, by connections known as `T`.
#[derive(Debug)]
pub(super) struct Places<T> {
    most: usize,
    /// The oldest first.
    taken: Vec<(Source, T)>,
}

impl<T> Places<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Vec::with_capacity(most) }
    }

    /// A connection comes. Returns the one that has to go for it, if one has to: of those whose source has the most, the
    /// oldest.
    pub(super) fn take(&mut self, source: Source, connection: T) -> Option<T> {
        let goes = if self.taken.len() < self.most {
            None
        } else {
            let others = |of: Source| self.taken.iter().filter(|(other, _)| *other == of).count();
            let has = |of: Source| others(of) + usize::from(of == source);
            // The first of several that are equal.
            let oldest =
                self.taken.iter().enumerate().rev().max_by_key(|(_, (of, _))| has(*of)).map(|(index, _)| index);
            oldest.map(|index| self.taken.remove(index).1)
        };
        self.taken.push((source, connection));
        goes
    }

    /// The connection that `is_it` has ended.
    pub(super) fn free(&mut self, is_it: impl Fn(&T) -> bool) {
        self.taken.retain(|(_, connection)| !is_it(connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_most_gives_way_the_oldest_first() {
        let source = |name: char| match name {
            'u' => Source::Unix,
            name => Source::of(IpAddr::V4([192, 0, 2, u8::try_from(name).unwrap()].into())),
        };
        for (row, come, gone) in [
            ("below the limit", "aaa", ""),
            ("at the limit", "aaab", ""),
            ("one too many", "aaabc", "0"),
            ("again", "aaabcd", "01"),
            ("of whoever has them himself", "aaaaa", "0"),
            ("the newcomer has the most with this one", "aabba", "0"),
            ("whoever has fewer keeps theirs", "baaaa", "1"),
            ("all alike", "abcde", "0"),
            ("and again", "abcdef", "01"),
            ("over a unix socket, too", "uuuua", "0"),
            ("a flood beside others", "bccaaaaaa", "13456"),
        ] {
            let mut places = Places::new(4);
            let gone_now = come.chars().enumerate().filter_map(|(number, name)| places.take(source(name), number));
            assert_eq!(gone_now.map(|number| number.to_string()).collect::<String>(), gone, "{row}: {come}");
        }
    }

    #[test]
    fn a_place_is_free_again_after_its_connection() {
        let mut places = Places::new(2);
        assert_eq!([places.take(Source::Unix, 1), places.take(Source::Unix, 2)], [None, None]);
        places.free(|connection| *connection == 1);
        assert_eq!(places.take(Source::Unix, 3), None);
        places.free(|connection| *connection == 9);
        assert_eq!(places.take(Source::Unix, 4), Some(2));
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
        ] {
            assert_eq!(of(one) == of(other), same, "{one} {other}");
        }
    }
}
