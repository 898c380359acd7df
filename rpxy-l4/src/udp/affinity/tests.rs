//! The table by itself: kinds of claims, budgets, lifetimes.

use std::{net::IpAddr, num::NonZeroU16};

use super::*;
use crate::config::model::Host;

const LINGER: Duration = Duration::from_secs(300);
const ID: &[u8] = b"\xf1abcdefg";

fn table() -> Affinity {
    Affinity::new(LINGER, Metrics::new())
}

fn backend(port: u16) -> Backend {
    let address = SocketAddr::from(([198, 51, 100, 10], port));
    let host = Host::Ip { address: address.ip(), scope: 0 };
    let target = Target { host, port, weight: NonZeroU16::MIN, backup: false, down: false, max_connections: None };
    Backend { rule: Some("rule".into()), target, address }
}

fn id(bytes: &[u8]) -> ConnectionId {
    ConnectionId::new(bytes).unwrap()
}

/// An ID for each number.
fn numbered(n: u32) -> ConnectionId {
    id(&[&[0xf1, 0xe2, 0xd3, 0xc4], &n.to_be_bytes()[..]].concat())
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn net(last: u8) -> Network {
    IpAddr::from([192, 0, last, 1]).into()
}

fn client(last: u8) -> SocketAddr {
    ([192, 0, last, 1], 1000).into()
}

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x40], id, &[0; 30]].concat()
}

#[test]
fn an_id_lives_with_its_sessions_and_lingers_after_the_last() {
    let table = table();
    let (one, key) = (table.owner(backend(1)), Key::Stated(id(ID)));
    assert!(table.hold(key, &one, client(1), at(0)));
    assert!(table.hold(key, &one, client(2), at(100)), "a second session of the same connection");
    table.release(key, &one, net(1), true, at(1000));
    assert_eq!(table.find(key, at(9000)), Some(Arc::clone(&one)), "the other session still holds it");
    table.release(key, &one, net(2), true, at(10_000));
    assert_eq!(table.find(key, at(10_299)), Some(one));
    assert_eq!(table.find(key, at(10_300)), None);
}

#[test]
fn an_id_in_use_is_never_given_to_another_backend() {
    let table = table();
    let (one, two, key) = (table.owner(backend(1)), table.owner(backend(2)), Key::Stated(id(ID)));
    assert!(table.hold(key, &one, client(1), at(0)));
    assert!(!table.hold(key, &two, client(1), at(1)));
    assert_eq!(table.find(key, at(2)), Some(Arc::clone(&one)));
    table.release(key, &one, net(1), true, at(3));
    assert!(table.hold(key, &two, client(1), at(4)), "nobody uses it any more");
    assert_eq!(table.find(key, at(5)), Some(two));
}

#[test]
fn an_id_that_a_client_went_on_to_use_leads_from_its_network_alone_and_only_while_its_session_lives() {
    let table = table();
    let (one, two, key) = (table.owner(backend(1)), table.owner(backend(2)), Key::Used(id(ID)));
    assert!(table.hold(key, &one, client(1), at(0)));
    assert!(table.hold(key, &two, client(2), at(0)), "another network's claim takes nothing away");
    for (row, network, expected) in [
        ("its network", Some(net(1)), Some(&one)),
        ("the other's", Some(net(2)), Some(&two)),
        ("a third", Some(net(3)), None),
        ("where it can be nothing else", None, Some(&one)),
    ] {
        let found = table.find_short(&short(ID), network, at(1));
        assert_eq!(found, expected.map(|owner| (key, vec![Arc::clone(owner)])), "{row}");
    }
    table.release(key, &one, net(1), true, at(2));
    assert_eq!(table.find_short(&short(ID), Some(net(1)), at(2)), None);
    assert!(table.find_short(&short(ID), Some(net(2)), at(2)).is_some());
}

#[test]
fn an_id_that_may_be_of_several_connections_of_one_socket_leads_to_all_of_them_and_to_nobody_elses() {
    let table = table();
    let [one, two, tenant] = [1, 2, 3].map(|port| table.owner(backend(port)));
    let key = Key::Used(id(ID));
    let neighbour = SocketAddr::from(([192, 0, 1, 200], 1000));
    for (owner, client) in [(&one, client(1)), (&tenant, neighbour), (&two, client(1))] {
        assert!(table.hold(key, owner, client, at(0)));
    }
    let found = |network| table.find_short(&short(ID), network, at(1)).map(|(_, owners)| owners);
    assert_eq!(found(Some(net(1))), Some(vec![Arc::clone(&one), Arc::clone(&two)]));
    assert_eq!(found(None), Some(vec![Arc::clone(&one), Arc::clone(&two)]));
    table.release(key, &one, net(1), true, at(2));
    assert_eq!(found(Some(net(1))), Some(vec![tenant]), "the first that is left");
}

#[test]
fn networks_are_24_bits_of_ipv4_and_56_of_ipv6() {
    let network = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
    for (a, b, same) in [
        ("192.0.2.1", "192.0.2.255", true),
        ("192.0.2.1", "192.0.3.1", false),
        ("192.0.2.1", "::ffff:192.0.2.7", true),
        ("2001:db8:0:ff00::1", "2001:db8:0:ffff::1", true),
        ("2001:db8:0:ff00::1", "2001:db8:0:fe00::1", false),
    ] {
        assert_eq!(network(a) == network(b), same, "{a} {b}");
    }
}

#[test]
fn short_headers_are_searched_for_the_longest_known_id_first() {
    let table = table();
    let (one, two) = (table.owner(backend(1)), table.owner(backend(2)));
    let (of_one, of_two) = (Key::Stated(id(ID)), Key::Stated(id(b"\xf1abcdefghij")));
    assert!(table.hold(of_one, &one, client(1), at(0)));
    assert!(table.hold(of_two, &two, client(1), at(0)));
    for (row, bytes, expected) in [
        ("long one", &b"\xf1abcdefghij"[..], Some((of_two, &two))),
        ("short one", b"\xf1abcdefgxxx", Some((of_one, &one))),
        ("unknown", b"\xf2abcdefghij", None),
        ("known bytes in another place", b"x\xf1abcdefghij", None),
    ] {
        let found = table.find_short(&short(bytes), None, at(1));
        assert_eq!(found, expected.map(|(key, owner)| (key, vec![Arc::clone(owner)])), "{row}");
    }
    assert_eq!(table.find_short(&[0x40, 0xf1, b'b'], None, at(1)), None, "cut");
}

#[test]
fn the_lengths_of_one_backend_do_not_keep_out_those_of_another() {
    let table = table();
    let (one, two) = (table.owner(backend(1)), table.owner(backend(2)));
    for len in [5, 6, 7, 9, 10, 11, 12, 13] {
        let _held = table.hold(Key::Stated(id(&b"\xf1abcdefghijklmnop"[..len])), &one, client(1), at(0));
    }
    assert!(table.hold(Key::Stated(id(b"\xf2abcdefg")), &two, client(1), at(1)));
    assert!(table.find_short(&short(b"\xf2abcdefg"), None, at(1)).is_some_and(|(_, owners)| owners == [two]));
}

#[test]
fn an_index_expires_by_itself_and_stays_with_the_first_server_that_chose_it() {
    let table = table();
    let (one, two) = (table.owner(backend(1)), table.owner(backend(2)));
    table.learn_index(7, &one, at(0));
    table.learn_index(7, &two, at(10));
    assert_eq!(table.find(Key::Index(7), at(11)), Some(Arc::clone(&one)), "claiming it takes it from nobody");
    assert_eq!(table.find(Key::Index(7), at(205)), Some(Arc::clone(&two)), "the first one's time is over");
    assert_eq!(table.find(Key::Index(7), at(211)), None);
    assert_eq!(table.find(Key::Index(8), at(11)), None);
}

#[test]
fn a_backend_has_a_budget_that_is_given_back() {
    let table = Affinity::with_capacity(LINGER, Metrics::new(), CAPACITY, 100);
    let (one, two) = (table.owner(backend(1)), table.owner(backend(2)));
    let held: Vec<Key> =
        (0..1000).map(|n| Key::Stated(numbered(n))).filter(|key| table.hold(*key, &one, client(1), at(0))).collect();
    assert_eq!(held.len(), 100);
    for index in 0..1000 {
        table.learn_index(index, &one, at(0));
    }
    assert_eq!(table.find(Key::Index(0), at(0)), None, "one budget for all kinds");
    assert!(table.hold(Key::Stated(numbered(2000)), &two, client(1), at(0)), "others have theirs");
    for key in held {
        table.release(key, &one, net(1), false, at(1));
    }
    table.learn_index(3, &table.owner(backend(1)), at(2));
    assert!(table.find(Key::Index(3), at(2)).is_some(), "given back");
}

#[test]
fn a_full_table_keeps_what_it_has_and_forgets_what_has_expired() {
    let table = Affinity::with_capacity(LINGER, Metrics::new(), 64, BUDGET);
    let (one, two) = (table.owner(backend(1)), table.owner(backend(2)));
    let key = |n: u32| Key::Stated(numbered(n));
    let held = (0..1000).filter(|n| table.hold(key(*n), &one, client(1), at(0))).count();
    assert!((32..=64).contains(&held) && table.len() == held, "{held}");
    let first = (0..1000).find(|n| table.find(key(*n), at(0)).is_some()).unwrap();
    for n in 0..1000 {
        if table.find(key(n), at(0)).is_some() {
            table.release(key(n), &one, net(1), true, at(1));
        }
    }
    assert!(table.find(key(first), at(300)).is_some());
    let again = (2000..3000).filter(|n| table.hold(key(*n), &two, client(1), at(302))).count();
    assert!(again >= 32, "{again}");
    assert!(table.len() <= 64);
}
