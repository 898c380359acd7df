//! Balancing over three servers told apart by tags, with the properties that TCP and UDP share.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    ops::RangeInclusive,
};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    topology::{BACKENDS_V4, Topology, client_pool},
};

/// The servers at port 7000 of the backend's addresses, in this order.
pub(crate) const TAGS: [&str; 3] = ["a", "b", "c"];

/// The targets as TOML values.
pub(crate) fn plain() -> Vec<String> {
    with_keys([""; 3])
}

/// The targets as TOML values, with further keys.
pub(crate) fn with_keys(keys: [&str; 3]) -> Vec<String> {
    BACKENDS_V4.iter().zip(keys).map(|(ip, keys)| format!("{{ address = \"{ip}:7000\"{keys} }}")).collect()
}

/// Counts the occurrences of each tag.
pub(crate) fn count(tags: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    tags.into_iter().fold(BTreeMap::new(), |mut counts, tag| {
        *counts.entry(tag).or_default() += 1;
        counts
    })
}

/// The balance `none` takes the first target, whoever asks.
#[track_caller]
pub(crate) fn none_takes_the_first(net: &Topology, config: &str, visit: impl Fn(Ipv4Addr) -> String) {
    let _daemon = Daemon::start(&net.gateway, config);
    let tags = count((0..12).map(|n| visit(client_pool(n))));
    assert_eq!(tags, BTreeMap::from([("a".to_owned(), 12)]));
}

/// The balance `source_ip` depends on the client's address and the targets alone. `config` makes a configuration of keys
/// at its top and targets; `unrelated` is such a key.
#[track_caller]
pub(crate) fn source_ip_is_stable(
    net: &Topology,
    config: impl Fn(&str, &[String]) -> String,
    unrelated: &str,
    visit: impl Fn(Ipv4Addr) -> String,
) {
    let map = || -> BTreeMap<Ipv4Addr, String> { (0..60).map(client_pool).map(|from| (from, visit(from))).collect() };
    let mut daemon = Daemon::start(&net.gateway, &config("", &plain()));
    let before = map();
    let used: BTreeSet<_> = before.values().collect();
    assert_eq!(used.len(), 3, "60 clients use only {used:?}");
    assert_eq!(map(), before, "the same addresses from other ports");

    daemon.reload(Edit::Rename, &config(unrelated, &plain()));
    assert_eq!(map(), before, "after a reload");
    drop(daemon);
    let mut daemon = Daemon::start(&net.gateway, &config("", &plain()));
    assert_eq!(map(), before, "after a restart");

    // Rendezvous hashing: without the last target only its own clients move.
    daemon.reload(Edit::Rename, &config("", &plain()[..2]));
    for (from, tag) in map() {
        if before[&from] != "c" {
            assert_eq!(tag, before[&from], "{from} has moved although its target is still there");
        }
    }
}

/// The balances `random` and `round_robin` follow the weights. `config` makes a configuration of balance and targets,
/// `visits` returns the tags that 200 clients meet.
#[track_caller]
pub(crate) fn weights_are_followed(
    net: &Topology,
    config: impl Fn(&str, &[String]) -> String,
    visits: impl Fn() -> Vec<String>,
) {
    let weighted = with_keys(["", ", weight = 3", ", weight = 6"]);
    let mut daemon = Daemon::start(&net.gateway, &config("random", &weighted));
    let rows: [(&str, [RangeInclusive<usize>; 3]); 2] = [
        // Of 200: 20, 60 and 120 on average, with more than five standard deviations to either side.
        ("random", [1..=45, 25..=95, 80..=160]),
        // Every worker may take its own turns.
        ("round_robin", [16..=24, 54..=66, 112..=128]),
    ];
    for (balance, [a, b, c]) in rows {
        if balance != "random" {
            daemon.reload(Edit::Rename, &config(balance, &weighted));
        }
        let tags = count(visits());
        for (tag, expected) in TAGS.iter().zip([a, b, c]) {
            let seen = tags.get(*tag).copied().unwrap_or(0);
            assert!(expected.contains(&seen), "{balance}: {tags:?}, expected {expected:?} for {tag}");
        }
    }
}
