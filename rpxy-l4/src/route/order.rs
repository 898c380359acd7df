//! The order in which the backend addresses of one target are tried.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    balance::{Endpoint, Group},
    rendezvous,
};
use crate::{
    config::model::Balance,
    resolve::{Place, Weighted},
};

/// Addresses that are tried together, the first of them first.
pub(crate) type Tier = Vec<SocketAddr>;

/// The addresses of one record, the highest score first.
type Scored = (Reverse<Score>, Tier);

impl Group {
    /// Orders the addresses of one target at `now`, the time since the daemon's start, in tiers of which one is tried when
    /// none of the one before can be reached.
    ///
    /// Those of a name are one tier: by rendezvous where the client's address decides, otherwise as DNS gave them (`none`) or
    /// from a random one on; then the families alternate, the first address's family first (RFC 8305 section 4). Those of a
    /// service are a tier for each priority (RFC 2782), with the hosts of one in an order drawn by weight, by the client's
    /// address where that decides. What a check of `endpoint` has found to be down comes last, or not at all.
    #[must_use]
    pub(crate) fn order(
        &self,
        endpoint: &Endpoint,
        places: &[Place],
        client: SocketAddr,
        random: u64,
        now: Duration,
    ) -> Vec<Tier> {
        let found_down = |address: &SocketAddr| {
            endpoint.active.as_ref().is_some_and(|active| active.checked.down_since(Some(*address)).is_some())
        };
        let seed = match self.balance {
            Balance::SourceIp | Balance::SourceSocket => {
                rendezvous::client(client, self.balance == Balance::SourceSocket)
            }
            Balance::None | Balance::Random | Balance::RoundRobin | Balance::LeastConn => random,
        };
        let mut tiers: BTreeMap<(bool, u16), Vec<Scored>> = BTreeMap::new();
        for record in places.chunk_by(|a, b| a.record == b.record && a.address.port() == b.address.port()) {
            let addresses: Vec<SocketAddr> = record.iter().map(|place| place.address).collect();
            let mut addresses = self.alternating(addresses, client, random);
            let Some(Weighted { priority, weight, host }) = record.first().and_then(|place| place.record.as_ref())
            else {
                addresses.sort_by_key(found_down);
                if self.only_healthy {
                    addresses.retain(|address| !found_down(address));
                }
                tiers.entry((false, 0)).or_default().push((Reverse(Score(0.0)), addresses));
                continue;
            };
            let port = addresses.first().map_or(0, SocketAddr::port);
            let score = rendezvous::of_record(seed, host, port, *weight);
            let (down, up): (Tier, Tier) = addresses.into_iter().partition(found_down);
            let (resting, up): (Tier, Tier) =
                up.into_iter().partition(|address| endpoint.health.missed().rests_at(*address, now));
            let last = if self.only_healthy { resting } else { resting.into_iter().chain(down).collect() };
            for (late, addresses) in [(false, up), (true, last)] {
                if !addresses.is_empty() {
                    tiers.entry((late, *priority)).or_default().push((Reverse(Score(score)), addresses));
                }
            }
        }
        let in_order = |mut records: Vec<Scored>| {
            records.sort_by_key(|(score, _)| *score);
            records.into_iter().flat_map(|(_, addresses)| addresses).collect()
        };
        tiers.into_values().map(in_order).filter(|tier: &Tier| !tier.is_empty()).collect()
    }

    fn alternating(&self, mut ordered: Vec<SocketAddr>, client: SocketAddr, random: u64) -> Vec<SocketAddr> {
        if ordered.len() == 1 {
            return ordered;
        }
        match self.balance {
            Balance::None => {}
            Balance::SourceIp | Balance::SourceSocket => {
                let client = rendezvous::client(client, self.balance == Balance::SourceSocket);
                ordered.sort_by_key(|address| Reverse(rendezvous::of_address(client, address.ip())));
            }
            Balance::Random | Balance::RoundRobin | Balance::LeastConn => {
                if let Some(shift) = usize::try_from(random >> 32).ok().and_then(|r| r.checked_rem(ordered.len())) {
                    ordered.rotate_left(shift);
                }
            }
        }
        let count = ordered.len();
        let first_is_v6 = ordered.first().map(SocketAddr::ip).as_ref().is_some_and(IpAddr::is_ipv6);
        let (first, second): (Vec<_>, Vec<_>) =
            ordered.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
        let (mut first, mut second) = (first.into_iter(), second.into_iter());
        let mut alternating = Vec::with_capacity(count);
        while first.len() + second.len() > 0 {
            alternating.extend(first.next());
            alternating.extend(second.next());
        }
        alternating
    }
}

/// A record's score, totally ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Score(f64);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::balance::tests::{checked, client, group},
        *,
    };

    const NOW: Duration = Duration::from_secs(100);
    const RETRY: Duration = Duration::from_secs(10);

    fn of_name(addresses: &[IpAddr]) -> Vec<Place> {
        addresses.iter().map(|ip| Place { address: SocketAddr::new(*ip, 1), record: None }).collect()
    }

    /// The place of a record: priority, weight, last byte of the host's address.
    fn of_record((priority, weight, last): (u16, u16, u8)) -> Place {
        let record = Some(Weighted { priority, weight, host: format!("h{last}.test").into() });
        Place { address: SocketAddr::from(([192, 0, 2, last], 1)), record }
    }

    fn ips(tiers: Vec<Tier>) -> Vec<Vec<IpAddr>> {
        tiers.into_iter().map(|tier| tier.into_iter().map(|address| address.ip()).collect()).collect()
    }

    /// The last bytes of the addresses of each tier.
    fn hosts(tiers: Vec<Tier>) -> Vec<Vec<u8>> {
        let last = |ip: IpAddr| if let IpAddr::V4(ip) = ip { ip.octets()[3] } else { 0 };
        ips(tiers).into_iter().map(|tier| tier.into_iter().map(last).collect()).collect()
    }

    #[test]
    fn families_alternate() {
        let [a, b, c, x, y] =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"].map(|ip| ip.parse().unwrap());
        let group = group(Balance::None, &["1"]);
        for (case, given, expected) in [
            ("one family stays as it is", vec![b, a], vec![vec![b, a]]),
            ("v6 first", vec![x, y, a, b, c], vec![vec![x, a, y, b, c]]),
            ("v4 first", vec![a, b, x], vec![vec![a, x, b]]),
            ("empty", vec![], vec![]),
        ] {
            let ordered = group.order(&group.endpoints()[0], &of_name(&given), client(1), 0, NOW);
            assert_eq!(ips(ordered), expected, "{case}");
        }
    }

    #[test]
    fn addresses_that_are_down_come_last_or_not_at_all() {
        let addresses: Vec<IpAddr> = (1..=3).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        for (only_healthy, expected) in [(false, vec![2, 3, 1]), (true, vec![2, 3])] {
            let (group, standings) = checked(only_healthy, &["1"]);
            standings[0].set_down(NOW);
            let ordered = group.order(&group.endpoints()[0], &of_name(&addresses), client(1), 0, NOW);
            assert_eq!(hosts(ordered), [expected], "only healthy: {only_healthy}");
        }
    }

    #[test]
    fn records_of_one_priority_are_a_tier_and_those_that_are_down_come_last() {
        let records = [(10, 1, 1), (10, 0, 4), (20, 0, 2), (30, 0, 3)].map(of_record);
        for (row, only_healthy, down, resting, expected) in [
            ("all are up", false, false, None, vec![vec![1, 4], vec![2], vec![3]]),
            ("one could not be reached", false, false, Some(2), vec![vec![1, 4], vec![3], vec![2]]),
            ("all of the first could not", false, false, Some(1), vec![vec![4], vec![2], vec![3], vec![1]]),
            ("a check says so", false, true, None, vec![vec![4], vec![2], vec![3], vec![1]]),
            ("a check says so, and only healthy ones count", true, true, None, vec![vec![4], vec![2], vec![3]]),
            ("what rests is not unhealthy", true, false, Some(1), vec![vec![4], vec![2], vec![3], vec![1]]),
        ] {
            let (group, standings) = checked(only_healthy, &["1"]);
            if down {
                standings[0].set_down(NOW);
            }
            let endpoint = &group.endpoints()[0];
            if let Some(last) = resting {
                endpoint.health.missed().add(SocketAddr::from(([192, 0, 2, last], 1)), NOW, RETRY);
            }
            // 7 draws the heavier of the first two first.
            assert_eq!(hosts(group.order(endpoint, &records, client(1), 7, NOW)), expected, "{row}");
        }
    }

    #[test]
    fn the_first_of_a_priority_is_drawn_by_weight() {
        let records = [(10, 60, 1), (10, 30, 2), (10, 10, 3), (10, 0, 4), (20, 65_535, 5)].map(of_record);
        let group = group(Balance::None, &["1"]);
        let mut first = [0_u32; 6];
        for n in 0..10_000_u64 {
            let ordered = hosts(group.order(&group.endpoints()[0], &records, client(1), n, NOW));
            assert_eq!(ordered.concat().len(), records.len());
            first[usize::from(ordered[0][0])] += 1;
        }
        for (host, expected) in [(1, 6000), (2, 3000), (3, 1000), (4, 0), (5, 0)] {
            assert!(first[host].abs_diff(expected) < 200, "{first:?}");
        }
    }

    #[test]
    fn clients_keep_their_record_where_their_address_decides() {
        let mut records = [(10, 1, 1), (10, 1, 2), (10, 1, 3)].map(of_record);
        let group = group(Balance::SourceIp, &["1"]);
        let first = |records: &[Place], n, random| {
            hosts(group.order(&group.endpoints()[0], records, client(n), random, NOW))[0][0]
        };
        let before: Vec<u8> = (0..50).map(|n| first(&records, n, 1)).collect();
        records.reverse();
        let after: Vec<u8> = (0..50).map(|n| first(&records, n, 2)).collect();
        assert_eq!(before, after, "in any order of the answer");
        assert!([1, 2, 3].iter().all(|host| before.contains(host)), "{before:?}");
        let without: Vec<u8> = (0..50).map(|n| first(&records[1..], n, 3)).collect();
        assert!(before.iter().zip(&without).all(|(before, after)| *before == 3 || before == after), "one is gone");
    }
}
