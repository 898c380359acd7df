//! Balancing as its users rely on it: shares by weight, stability of hashing, order of fallbacks.

use std::{collections::BTreeSet, num::NonZeroU16};

use proptest::prelude::*;

use super::{super::health::Standing, *};
use crate::config::model::CheckKind;

const NOW: Duration = Duration::from_secs(100);
const RETRY: Duration = Duration::from_secs(10);
const BALANCES: [Balance; 6] =
    [Balance::None, Balance::SourceIp, Balance::SourceSocket, Balance::Random, Balance::RoundRobin, Balance::LeastConn];

/// Targets as `port*weight`, backups with a `b` in front, those marked as down with a `d`.
pub(in crate::route) fn group(balance: Balance, targets: &[&str]) -> Group {
    let endpoint = |text: &&str| {
        let number = text.trim_start_matches(['b', 'd']);
        let (port, weight) = number.split_once('*').unwrap_or((number, "1"));
        let target = Target {
            host: Host::Ip { address: [192, 0, 2, 1].into(), scope: 0 },
            port: port.parse().unwrap(),
            weight: NonZeroU16::new(weight.parse().unwrap()).unwrap(),
            backup: text.starts_with('b'),
            down: text.starts_with('d'),
            max_connections: None,
        };
        Endpoint {
            account: Arc::default(),
            hash: rendezvous::hash(&[target.to_string().as_bytes()]),
            text: target.to_string().into(),
            target,
            health: Arc::default(),
            active: None,
            lookup: None,
        }
    };
    Group::of(targets.iter().map(endpoint).collect(), balance)
}

pub(in crate::route) fn client(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    SocketAddr::from(([198, 51, high, low], 1000))
}

/// Number of times that each port is picked for `count` clients.
fn shares(group: &Group, count: u16) -> Vec<(u16, u32)> {
    let mut shares: Vec<(u16, u32)> = group.endpoints().iter().map(|e| (e.target.port, 0)).collect();
    for n in 0..count {
        // A stand-in for randomness that is uniform over `count`.
        let random = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        shares[group.pick(client(n), random, NOW, &Tried::default()).unwrap()].1 += 1;
    }
    shares
}

/// Ports in the order in which one client tries them.
fn order(group: &Group) -> Vec<u16> {
    let mut tried = Tried::default();
    let mut order = Vec::new();
    while let Some(index) = group.pick(client(1), 7, NOW, &tried) {
        order.push(group.endpoints()[index].target.port);
        tried.add(index);
    }
    order
}

#[test]
fn shares_follow_weights() {
    for (case, balance, targets, expected, tolerance) in [
        ("none is the first", Balance::None, &["1", "2*9"] as &[&str], [1000, 0], 0),
        ("round robin", Balance::RoundRobin, &["1", "2"], [500, 500], 0),
        ("weighted round robin", Balance::RoundRobin, &["1*1", "2*4"], [200, 800], 0),
        ("random", Balance::Random, &["1", "2"], [500, 500], 60),
        ("weighted random", Balance::Random, &["1*3", "2*1"], [750, 250], 60),
        ("source ip", Balance::SourceIp, &["1", "2"], [500, 500], 60),
        ("weighted source ip", Balance::SourceIp, &["1*3", "2*1"], [750, 250], 60),
        ("a backup gets nothing", Balance::RoundRobin, &["1", "b2*5"], [1000, 0], 0),
    ] {
        for ((port, share), expected) in shares(&group(balance, targets), 1000).into_iter().zip(expected) {
            assert!(share.abs_diff(expected) <= tolerance, "{case}: port {port} got {share}, not {expected}");
        }
    }
}

#[test]
fn the_share_of_a_target_that_is_down_goes_to_all_others() {
    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::Random, Balance::SourceIp] {
        let group = group(balance, &["1", "2", "3"]);
        group.endpoints()[1].health.failed(NOW, RETRY);
        let [one, two, three] = shares(&group, 3000).try_into().unwrap();
        assert_eq!(two.1, 0, "{balance:?}");
        let tolerance = if balance == Balance::RoundRobin { 1 } else { 150 };
        assert!(one.1.abs_diff(three.1) <= tolerance, "{balance:?}: {one:?} {three:?}");
    }
}

#[test]
fn a_target_marked_as_down_is_never_picked() {
    for (row, targets, expected) in [
        ("beside others", &["d1", "2", "b3"] as &[&str], [2, 3].as_slice()),
        ("alone", &["d1"], &[]),
        ("beside one", &["d1", "2"], &[2]),
        ("only backups", &["b1", "b2"], &[1, 2]),
        ("beside a backup", &["d1", "b2"], &[2]),
    ] {
        for balance in BALANCES {
            let group = group(balance, targets);
            assert_eq!(order(&group).into_iter().collect::<BTreeSet<_>>(), expected.iter().copied().collect(), "{row}");
        }
    }
}

#[test]
fn many_targets_are_chosen_as_few_are() {
    let targets: Vec<String> = (1..=300).map(|port| format!("{port}*{}", port % 3 + 1)).collect();
    let group = group(Balance::SourceIp, &targets.iter().map(String::as_str).collect::<Vec<_>>());
    let pick = |n| group.pick(client(n), 0, NOW, &Tried::default()).unwrap();
    let first: Vec<_> = (0..2000).map(pick).collect();
    assert_eq!((0..2000).map(pick).collect::<Vec<_>>(), first, "remembered or not");
    // What the definition says, target by target.
    for n in 0..50 {
        let hash = rendezvous::client(client(n), false).to_be_bytes();
        let score = |e: &Endpoint| {
            let bits = rendezvous::hash(&[&hash, &e.hash.to_be_bytes()]) >> 11;
            -f64::from(e.target.weight.get()) / ((bits as f64 + 0.5) / (1_u64 << 53) as f64).ln()
        };
        let best = group.endpoints().iter().enumerate().max_by(|(_, a), (_, b)| score(a).total_cmp(&score(b)));
        assert_eq!(first[usize::from(n)], best.unwrap().0);
    }
    group.endpoints()[first[7]].health.failed(NOW, RETRY);
    assert_ne!(pick(7), first[7]);
    assert_eq!(pick(8), first[8]);
}

#[test]
fn fallback_order() {
    for balance in BALANCES {
        let group = group(balance, &["b1", "2", "3", "b4"]);
        group.endpoints()[2].health.failed(NOW, RETRY);
        group.endpoints()[0].health.failed(NOW, RETRY);
        assert_eq!(order(&group), [2, 4, 3, 1], "{balance:?}: up, backup up, down, backup down");
        let later = NOW + RETRY;
        let state = group.endpoints()[2].health.state(later);
        assert_eq!(state, State::Due, "{balance:?}: in turn again after the retry interval");
    }
}

#[test]
fn a_drained_target_is_never_tried() {
    for balance in BALANCES {
        let several = group(balance, &["b1", "2", "3", "b4"]);
        several.endpoints()[1].health.administrative().drain(NOW);
        several.endpoints()[3].health.administrative().drain(NOW);
        several.endpoints()[2].health.failed(NOW, RETRY);
        assert_eq!(order(&several), [1, 3], "{balance:?}: not even after one that is down");
        let one = group(balance, &["1"]);
        one.endpoints()[0].health.administrative().drain(NOW);
        assert_eq!(order(&one), [0; 0], "{balance:?}: the only one");
        one.endpoints()[0].health.administrative().up();
        assert_eq!(order(&one), [1], "{balance:?}: back in service");
    }
}

#[test]
fn only_one_connection_tries_a_target_that_is_due() {
    let group = group(Balance::None, &["1", "2"]);
    group.endpoints()[0].health.failed(NOW, RETRY);
    let later = NOW + RETRY;
    let picks: Vec<_> = (0..4).map(|n| group.pick(client(n), 0, later, &Tried::default()).unwrap()).collect();
    assert_eq!(picks, [0, 1, 1, 1]);
}

#[test]
fn least_conn_goes_by_connections_per_weight() {
    let group = group(Balance::LeastConn, &["1*1", "2*3"]);
    let mut held = Vec::new();
    for n in 0..8 {
        let index = group.pick(client(n), u64::from(n), NOW, &Tried::default()).unwrap();
        held.push(super::super::Busy::new(&group.endpoints()[index].health));
    }
    assert_eq!(group.endpoints().iter().map(|e| e.health.active()).collect::<Vec<_>>(), [2, 6]);
}

#[test]
fn hashing_is_the_same_on_every_machine() {
    let group = group(Balance::SourceIp, &["1", "2", "3", "4"]);
    let picks: Vec<u16> = (0..12)
        .map(|n| group.endpoints()[group.pick(client(n), 0, NOW, &Tried::default()).unwrap()].target.port)
        .collect();
    assert_eq!(
        picks,
        [3, 4, 4, 2, 1, 3, 2, 1, 1, 4, 2, 1],
        "a change here moves every user's clients to other targets"
    );
}

#[test]
fn source_ip_ignores_the_port_and_source_socket_does_not() {
    let ports = 0..200_u16;
    let distinct = |balance| {
        let group = group(balance, &["1", "2", "3"]);
        let picks =
            ports.clone().map(|port| group.pick(SocketAddr::from(([192, 0, 2, 7], port)), 0, NOW, &Tried::default()));
        picks.collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!(distinct(Balance::SourceIp), 1);
    assert_eq!(distinct(Balance::SourceSocket), 3);
    let group = group(Balance::SourceIp, &["1", "2", "3"]);
    let mapped = SocketAddr::new("::ffff:192.0.2.7".parse().unwrap(), 9);
    let plain = SocketAddr::from(([192, 0, 2, 7], 9));
    assert_eq!(group.pick(mapped, 0, NOW, &Tried::default()), group.pick(plain, 0, NOW, &Tried::default()));
}

/// A group whose targets are checked, with what was found of the address of each.
pub(in crate::route) fn checked(only_healthy: bool, targets: &[&str]) -> (Group, Vec<Arc<Standing>>) {
    let mut checked = group(Balance::None, targets);
    checked.only_healthy = only_healthy;
    let check = Arc::new(Check {
        name: "x".into(),
        kind: CheckKind::Connect,
        port: None,
        #[cfg(feature = "proxy-protocol")]
        send_proxy: None,
        interval: RETRY,
        timeout: RETRY,
        fall: NonZeroU16::MIN,
        rise: NonZeroU16::MIN,
        close: false,
    });
    let standings: Vec<_> = targets.iter().map(|_| Arc::<Standing>::default()).collect();
    for (endpoint, standing) in checked.endpoints.iter_mut().zip(&standings) {
        let found = Arc::new(Checked::default());
        found.set(vec![(Some(([192, 0, 2, 1], 1).into()), Arc::clone(standing))]);
        endpoint.active = Some(Active { check: Arc::clone(&check), checked: found });
    }
    (checked, standings)
}

#[test]
fn what_checks_find_orders_targets_or_excludes_them() {
    let targets: &[&str] = &["1", "2", "3", "b4"];
    for (case, down, failed, expected, healthy) in [
        ("all up", &[][..], None, &[1, 2, 3, 4][..], &[1, 2, 3, 4][..]),
        ("one down", &[0], None, &[2, 3, 4, 1], &[2, 3, 4]),
        ("another could not be reached", &[0], Some(1), &[3, 4, 1, 2], &[3, 4]),
        ("down, and could not be reached", &[0], Some(0), &[2, 3, 4, 1], &[2, 3, 4]),
        ("the backup alone", &[0, 1, 2], None, &[4, 1, 2, 3], &[4]),
        ("all down", &[0, 1, 2, 3], None, &[1, 2, 3, 4], &[]),
    ] {
        for (only_healthy, expected) in [(false, expected), (true, healthy)] {
            let (group, standings) = checked(only_healthy, targets);
            for index in down {
                standings[*index].set_down(NOW);
            }
            if let Some(index) = failed {
                group.endpoints()[index].failed(NOW, RETRY);
            }
            assert_eq!(order(&group), expected, "{case}, only healthy: {only_healthy}");
        }
    }
}

#[test]
fn the_only_target_is_tried_although_it_is_down_unless_it_has_to_be_healthy() {
    for (only_healthy, expected) in [(false, vec![1]), (true, vec![])] {
        let (group, standings) = checked(only_healthy, &["1"]);
        standings[0].set_down(NOW);
        assert_eq!(order(&group), expected);
        assert!(!group.pick_told(client(1), 0, NOW, &Tried::default()).is_some_and(|pick| pick.up));
        standings[0].set_up();
        assert_eq!(order(&group), [1]);
        // What connections have met counts as well, and one of them finds out.
        group.endpoints()[0].failed(NOW, RETRY);
        assert_eq!(order(&group), expected);
        let due: Vec<_> = (0..3).filter_map(|n| group.pick(client(n), 0, NOW + RETRY, &Tried::default())).collect();
        assert_eq!(due.len(), if only_healthy { 1 } else { 3 });
    }
}

proptest! {
    #[test]
    fn removing_a_target_moves_only_its_own_clients(n: u16, gone in 0_usize..5) {
        let all = ["1", "2*3", "3", "4*2", "5"];
        let rest: Vec<&str> = all.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, t)| *t).collect();
        let (before, after) = (group(Balance::SourceIp, &all), group(Balance::SourceIp, &rest));
        let port = |group: &Group| {
            let index = group.pick(client(n), 0, NOW, &Tried::default()).unwrap();
            group.endpoints()[index].target.port
        };
        let was = port(&before);
        if was != before.endpoints()[gone].target.port {
            prop_assert_eq!(was, port(&after));
        }
    }

    /// A target: weight, backup, down by mark, down by failure.
    #[test]
    fn shares_follow_weights_whatever_is_down(
        targets in proptest::collection::vec((1_u16..6, proptest::bool::weighted(0.3), proptest::bool::weighted(0.2),
            proptest::bool::weighted(0.4)), 1..7),
        balance in 1_usize..6,
    ) {
        let text: Vec<String> = targets.iter().enumerate().map(|(port, (weight, backup, marked, _))| {
            let mark = if *marked { "d" } else if *backup { "b" } else { "" };
            format!("{mark}{port}*{weight}")
        }).collect();
        let group = group(BALANCES[balance], &text.iter().map(String::as_str).collect::<Vec<_>>());
        for (endpoint, (.., failed)) in group.endpoints().iter().zip(&targets) {
            if *failed {
                endpoint.health.failed(NOW, RETRY);
            }
        }
        let standing = |(_, backup, _, failed): &(u16, bool, bool, bool)| (*failed, *backup);
        let usable = || targets.iter().filter(|(.., marked, _)| !marked);
        let Some(best) = usable().map(standing).min() else {
            prop_assert_eq!(group.pick(client(1), 1, NOW, &Tried::default()), None);
            return Ok(());
        };
        let sum: f64 = usable().filter(|target| standing(target) == best).map(|(weight, ..)| f64::from(*weight)).sum();
        let count = 3000;
        for ((_, got), target) in shares(&group, count).into_iter().zip(&targets) {
            let share = if standing(target) == best && !target.2 { f64::from(target.0) / sum } else { 0.0 };
            let expected = share * f64::from(count);
            // Six standard deviations of what is left to chance; turns are off by a round at most.
            let chance = 6.0 * (expected * (1.0 - share)).sqrt();
            let tolerance = if BALANCES[balance] == Balance::RoundRobin { 30.0 } else { chance };
            prop_assert!((f64::from(got) - expected).abs() <= tolerance + 0.5, "{text:?}: {got}, not {expected}");
        }
    }

    #[test]
    fn every_target_is_tried_once(random: u64, n: u16, balance in 0_usize..6, down in proptest::collection::vec(any::<bool>(), 4)) {
        let balance = BALANCES[balance];
        let group = group(balance, &["1*9", "2", "b3*2", "b4"]);
        for (endpoint, down) in group.endpoints().iter().zip(down) {
            if down {
                endpoint.health.failed(NOW, RETRY);
            }
        }
        let mut tried = Tried::default();
        let mut seen = std::collections::HashSet::new();
        while let Some(index) = group.pick(client(n), random, NOW, &tried) {
            prop_assert!(seen.insert(index));
            tried.add(index);
        }
        prop_assert_eq!(seen.len(), 4);
    }
}
