//! The table, with a made-up network: `eth0` towards clients, `eth1` towards backends.

use std::net::SocketAddr;

use rpxy_l4_common::map::Flow;

use super::*;
use crate::offload::api::Steered;

const CLIENT: &str = "192.0.2.7";
const BACKEND: &str = "10.0.0.2";
const GATEWAY: &str = "192.0.2.254";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32) -> Link {
    let mac = [2, 0, 0, 0, 0, u8::try_from(index).unwrap()];
    Link { index, name: format!("eth{}", index - 1), up: true, ethernet: true, mtu: 1500, mac, ..Link::default() }
}

fn neighbour(interface: u32, address: &str, mac: Option<u8>) -> Event {
    Event::Neighbour { interface, address: ip(address), mac: mac.map(|last| [6, 0, 0, 0, 0, last]) }
}

fn route(interface: u32, next: &str) -> Route {
    Route { interface, next: ip(next), mtu: None, local: false }
}

/// A table that knows both links and the backend's address on its link.
fn table(needs_mac: bool, max: u32) -> Table {
    let mut table = Table::new(needs_mac, max, 5);
    for index in [1, 2] {
        table.learn(Event::Link(link(index)));
        table.set_attached(index, true);
    }
    table.learn(neighbour(2, BACKEND, Some(2)));
    table
}

fn steered(port: u16, client: &str) -> Session {
    let [client, upstream] =
        [(client, port), ("10.0.0.1", port)].map(|(address, port)| SocketAddr::new(ip(address), port));
    let [local, backend] = ["192.0.2.1:443", "10.0.0.2:443"].map(|text| text.parse().unwrap());
    Session::new(&Steered { client, local, upstream, backend, kind: 0, mark: 1, cid: None })
}

/// A session of the client's `port`, with its routes.
fn session(port: u16) -> (Session, Routes) {
    (steered(port, CLIENT), Routes { there: route(2, BACKEND), back: route(1, GATEWAY) })
}

impl Table {
    fn add(&mut self, (session, routes): (Session, Routes)) -> Result<(Installed, Vec<String>), NotSteered> {
        self.install(session, routes).map(|(installed, updates)| (installed, short(&updates)))
    }
}

/// Updates in short.
fn short(updates: &[Update]) -> Vec<String> {
    let text = |update: &Update| match update {
        Update::Hop(key, hop) => format!("hop {key} at {} mtu {} mac {}", hop.interface, hop.mtu, hop.destination[5]),
        Update::NoHop(key) => format!("no hop {key}"),
        Update::Flow(key, flow) => {
            assert_eq!(flow.station, [2, 0, 0, 0, 0, u8::try_from(flow.ingress).unwrap()]);
            let to = u16::from_be_bytes(key.destination.port());
            format!("flow to {to} from {} by {} at {}", flow.ingress, flow.hop, flow.interface)
        }
        Update::Park(key) => format!("park {}", u16::from_be_bytes(key.destination.port())),
        Update::NoFlow(key) => format!("no flow to {}", u16::from_be_bytes(key.destination.port())),
    };
    updates.iter().map(text).collect()
}

#[test]
fn reverse_first_and_forward_first_out() {
    let mut table = table(false, 10);
    let (installed, updates) = table.add(session(1000)).unwrap();
    assert_eq!(
        updates,
        [
            "hop 1 at 1 mtu 1500 mac 0",
            "hop 2 at 2 mtu 1500 mac 2",
            "flow to 1000 from 2 by 1 at 1",
            "flow to 443 from 1 by 2 at 2",
        ]
    );
    let updates = table.revoke(installed);
    assert_eq!(short(&updates), ["no flow to 443", "no flow to 1000", "no hop 1", "no hop 2"]);
    assert!(table.pairs().is_empty() && table.neighbours_in_use().is_empty() && table.slots.is_empty());
    assert_eq!(table.revoke(installed), []);
}

#[test]
fn sessions_share_hops() {
    let mut table = table(false, 10);
    let (first, _) = table.add(session(1000)).unwrap();
    let (_, updates) = table.add(session(1001)).unwrap();
    assert_eq!(updates, ["flow to 1001 from 2 by 1 at 1", "flow to 443 from 1 by 2 at 2"]);
    assert_eq!(short(&table.revoke(first)), ["no flow to 443", "no flow to 1000"]);
    assert_eq!(table.neighbours_in_use().len(), 2);
}

#[test]
fn flows_whose_hop_finds_no_slot_stay_in_the_daemon() {
    // Keys 1 to 4; each client of its own is a hop.
    let mut table = table(false, 10);
    let of =
        |port: u16, client: &str| (steered(port, client), Routes { there: route(2, BACKEND), back: route(1, client) });
    table.add(of(1000, "192.0.2.10")).unwrap();
    let (second, _) = table.add(of(1001, "192.0.2.11")).unwrap();
    let (_, updates) = table.add(of(1002, "192.0.2.12")).unwrap();
    assert_eq!(updates.first().map(String::as_str), Some("hop 4 at 1 mtu 1500 mac 0"));
    assert_eq!(table.add(of(1003, "192.0.2.13")).unwrap_err(), NotSteered::Full);
    assert_eq!(table.sessions(), 3, "those that were there stay");
    // A new route needs a free slot as well.
    let pair = RoutePair { source: ip("192.0.2.1"), destination: ip("192.0.2.10") };
    let mut updates = Vec::new();
    table.reroute(pair, Some(route(1, GATEWAY)), &mut updates);
    let mut text = short(&updates);
    text.sort_unstable();
    assert_eq!(text, ["no hop 1", "park 1000", "park 443"]);
    updates.clear();
    table.reroute(pair, Some(route(1, GATEWAY)), &mut updates);
    let mut text = short(&updates);
    text.sort_unstable();
    assert_eq!(
        text,
        ["flow to 1000 from 2 by 1 at 1", "flow to 443 from 1 by 2 at 2", "hop 1 at 1 mtu 1500 mac 0"],
        "its own, now free"
    );
    table.revoke(second);
    let (_, updates) = table.add(of(1003, "192.0.2.13")).unwrap();
    assert_eq!(updates.first().map(String::as_str), Some("hop 3 at 1 mtu 1500 mac 0"));
}

#[test]
fn xdp_waits_for_the_neighbour() {
    let mut table = table(true, 10);
    let (_, updates) = table.add(session(1000)).unwrap();
    // Without the entry of hop 1 the program passes the packet to the daemon.
    assert_eq!(updates, ["hop 2 at 2 mtu 1500 mac 2", "flow to 1000 from 2 by 1 at 1", "flow to 443 from 1 by 2 at 2"]);
    let mut learn = |event| short(&table.learn(event).0);
    assert_eq!(learn(neighbour(1, GATEWAY, Some(9))), ["hop 1 at 1 mtu 1500 mac 9"]);
    assert_eq!(learn(neighbour(1, GATEWAY, Some(9))), [""; 0], "nothing new");
    assert_eq!(learn(neighbour(1, GATEWAY, Some(8))), ["hop 1 at 1 mtu 1500 mac 8"], "another card");
    assert_eq!(learn(neighbour(1, CLIENT, Some(8))), [""; 0], "not in use");
    assert_eq!(learn(neighbour(1, GATEWAY, None)), ["no hop 1"], "failed");
}

#[test]
fn links_that_change() {
    let mut table = table(false, 10);
    table.add(session(1000)).unwrap();
    let (updates, reroute) = table.learn(Event::Link(Link { mtu: 1400, ..link(2) }));
    assert_eq!((short(&updates), reroute), (vec!["hop 2 at 2 mtu 1400 mac 2".to_owned()], true));
    let (updates, reroute) = table.learn(Event::Link(Link { up: false, ..link(2) }));
    assert_eq!((short(&updates), reroute), (vec!["no hop 2".to_owned()], true));
    let (updates, reroute) = table.learn(Event::Link(Link { up: false, ..link(2) }));
    assert_eq!((short(&updates), reroute), (vec![], false), "statistics are no change");
}

#[test]
fn a_route_that_goes_takes_the_flow_out_and_brings_it_back() {
    let mut table = table(false, 10);
    table.add(session(1000)).unwrap();
    let there = RoutePair { source: ip("10.0.0.1"), destination: ip(BACKEND) };
    let mut reroute = |route| {
        let mut updates = Vec::new();
        table.reroute(there, route, &mut updates);
        let mut updates = short(&updates);
        // Flows of one route are written in any order.
        updates.sort_unstable();
        updates
    };
    assert_eq!(reroute(Some(route(2, BACKEND))), [""; 0], "the same");
    assert_eq!(reroute(None), ["no hop 2", "park 1000", "park 443"], "and where answers come from is not known either");
    assert_eq!(reroute(Some(route(7, BACKEND))), [""; 0], "by an interface without program: still out");
    assert_eq!(
        reroute(Some(route(2, BACKEND))),
        ["flow to 1000 from 2 by 1 at 1", "flow to 443 from 1 by 3 at 2", "hop 3 at 2 mtu 1500 mac 2"]
    );
    let narrow = Route { mtu: Some(1300), ..route(2, BACKEND) };
    assert_eq!(
        reroute(Some(narrow)),
        ["flow to 443 from 1 by 4 at 2", "hop 4 at 2 mtu 1300 mac 2", "no hop 3"],
        "answers come as they did"
    );
    assert_eq!(
        reroute(Some(route(1, GATEWAY))),
        ["flow to 1000 from 1 by 1 at 1", "flow to 443 from 1 by 1 at 1", "no hop 4"],
        "by the clients' interface, and answers come by it"
    );
}

#[test]
fn packets_turn_round_on_a_veth_by_a_redirect() {
    for (kind, flags) in [(None, 0), (Some("vlan"), 0), (Some("veth"), hop_flag::REDIRECT)] {
        let mut table = table(false, 10);
        table.learn(Event::Link(Link { kind: kind.map(str::to_owned), ..link(2) }));
        let (session, routes) = session(1000);
        let (_, updates) = table.install(session, routes).unwrap();
        let hop = updates.iter().find_map(|update| {
            let Update::Hop(2, hop) = update else { return None };
            Some(hop.flags)
        });
        assert_eq!(hop, Some(flags), "{kind:?}");
    }
}

#[test]
fn packets_arrive_at_the_address_that_their_interface_has() {
    let mut table = table(false, 10);
    table.add(session(1000)).unwrap();
    let (updates, _) = table.learn(Event::Link(Link { mac: [7; 6], ..link(1) }));
    let stations: Vec<_> = updates
        .iter()
        .filter_map(|update| {
            let Update::Flow(key, flow) = update else { return None };
            (flow.ingress == 1).then(|| (u16::from_be_bytes(key.destination.port()), flow.station))
        })
        .collect();
    assert_eq!(stations, [(443, [7; 6])], "{updates:?}");
    let (updates, _) = table.learn(Event::Link(Link { mac: [7; 6], mtu: 1400, ..link(1) }));
    assert!(!updates.iter().any(|update| matches!(update, Update::Flow(..))), "{updates:?}");
}

#[test]
fn a_client_that_is_its_own_backend_has_one_route() {
    let mut table = table(false, 10);
    let ends = ["10.0.0.2:1000", "10.0.0.1:443", "10.0.0.1:1000", "10.0.0.2:443"].map(|text| text.parse().unwrap());
    let [client, local, upstream, backend] = ends;
    let session = Session::new(&Steered { client, local, upstream, backend, kind: 0, mark: 1, cid: None });
    let routes = Routes { there: route(2, BACKEND), back: route(2, BACKEND) };
    let (installed, updates) = table.add((session, routes)).unwrap();
    assert_eq!(updates, ["hop 1 at 2 mtu 1500 mac 2", "flow to 1000 from 2 by 1 at 2", "flow to 443 from 2 by 1 at 2"]);
    assert_eq!(short(&table.revoke(installed)), ["no flow to 443", "no flow to 1000", "no hop 1"]);
    assert!(table.pairs().is_empty() && table.hops.is_empty());
}

#[test]
fn what_is_not_steered() {
    let mut table = table(false, 1);
    table.learn(Event::Link(Link { loopback: true, ethernet: false, ..link(3) }));
    table.learn(Event::Link(Link { ethernet: false, ..link(4) }));
    table.learn(Event::Link(link(5)));
    table.set_attached(4, true);
    let with = |there| {
        let (session, routes) = session(1000);
        (session, Routes { there, ..routes })
    };
    let rows = [
        ("loopback", route(3, BACKEND), NotSteered::Loopback),
        ("local", Route { local: true, ..route(2, BACKEND) }, NotSteered::Loopback),
        ("no Ethernet", route(4, BACKEND), NotSteered::Interface),
        ("no program", route(5, BACKEND), NotSteered::Interface),
        ("no such link", route(6, BACKEND), NotSteered::Interface),
    ];
    for (name, route, expected) in rows {
        assert_eq!(table.add(with(route)).unwrap_err(), expected, "{name}");
        assert_eq!(table.sessions(), 0, "{name}");
    }
    let (replaced, _) = table.add(session(1000)).unwrap();
    assert_eq!(table.add(session(1001)).unwrap_err(), NotSteered::Full);
    assert!(table.is_full(&session(1001).0) && !table.is_full(&session(1000).0));
    let (installed, _) = table.add(session(1000)).expect("again, in its own slot");
    assert_eq!(table.revoke(replaced), [], "it is another one's place now");
    assert!(table.get(replaced).is_none() && table.get(installed).is_some());
    table.revoke(installed);
    table.add(session(1001)).expect("the slot is free");
}

#[test]
fn connection_ids_change_in_place() {
    let mut table = table(false, 10);
    let (installed, _) = table.add(session(1000)).unwrap();
    let cid = ConnectionId::new(b"abcd").unwrap();
    let updates = table.set_cid(installed, &cid).unwrap();
    assert!(matches!(updates[..], [Update::Flow(_, Flow { cid_len: 4, hop: 2, .. })]), "{updates:?}");
    table.revoke(installed);
    assert_eq!(table.set_cid(installed, &cid), None, "not installed");
}

#[test]
fn lost_events_are_made_up_for() {
    let mut table = table(true, 10);
    table.add(session(1000)).unwrap();
    table.forget_network();
    table.learn(Event::Link(link(1)));
    assert_eq!(short(&table.learn(neighbour(1, GATEWAY, Some(9))).0), ["hop 1 at 1 mtu 1500 mac 9"]);
    // The backend's link went unseen.
    assert_eq!(short(&table.refresh_all()), ["no hop 2"]);
}

#[test]
fn addresses() {
    let mut table = table(false, 10);
    let address = |interface, address: &str| Event::Address { interface, address: ip(address) };
    assert!(table.learn(address(1, "fe80::1")).1);
    assert!(!table.has_address(1), "link-local is not enough");
    assert!(table.learn(address(1, "192.0.2.1")).1);
    assert!(!table.learn(address(1, "192.0.2.1")).1, "known");
    assert!(table.has_address(1) && !table.has_address(2));
    assert!(table.is_local(ip("192.0.2.1")));
    assert!(table.learn(Event::NoLink(1)).1);
    assert!(!table.is_local(ip("192.0.2.1")));
}
