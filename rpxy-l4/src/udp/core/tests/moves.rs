//! Sessions that leave a backend which refuses, is silent or has left its name.

use super::{
    packets::{SERVER_INITIAL, first, long, short, wireguard},
    *,
};
use crate::resolve::{Lookup, Record};

/// Targets at ports 1 and 2 for what no rule claims.
fn two() -> String {
    format!("{TOP}udp_target = [\"198.51.100.1:1\", \"198.51.100.1:2\"]\nudp_target_retry = \"60s\"\n")
}

/// The same for a protocol.
fn two_of(protocol: &str) -> String {
    let targets = "target = [\"198.51.100.1:1\", \"198.51.100.1:2\"]";
    format!("{TOP}udp_target_retry = \"60s\"\n[protocols.\"p\"]\nprotocol = \"{protocol}\"\n{targets}\n")
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The one session that there is.
fn only(bench: &Bench) -> SessionId {
    assert_eq!(bench.sockets.len(), 1, "{:?}", bench.sockets);
    *bench.sockets.keys().next().unwrap()
}

/// A session that was answered.
fn answered(bench: &mut Bench) -> SessionId {
    bench.client(flow(1), b"x");
    let session = only(bench);
    bench.answer(session, b"y");
    session
}

fn downs(bench: &Bench) -> usize {
    bench.said.iter().filter(|said| said.starts_with("Down")).count()
}

#[test]
fn a_backend_that_answered_and_is_gone_is_left_after_several_refusals() {
    let rows: &[(&str, &[u64], Option<u64>, u16)] = &[
        ("for a moment", &[0, 500, 1000, 1900], None, 1),
        ("for two seconds", &[0, 1000, 2000], None, 2),
        ("answered in between", &[0, 1000, 2000], Some(1500), 1),
        ("seldom", &[0, 30_000, 60_000], None, 2),
        ("twice", &[0, 30_000], None, 1),
    ];
    for (name, refusals, answer, expected) in rows {
        let mut bench = Bench::new(&two());
        answered(&mut bench);
        // The kernel may have it: the first refusal only brings it back.
        bench.refuse(only(&bench));
        let begun = bench.now + milliseconds(1);
        let mut answer = *answer;
        for time in *refusals {
            if let Some(at) = answer.take_if(|at| *at < *time) {
                bench.now = begun + milliseconds(at);
                bench.answer(only(&bench), b"y");
            }
            bench.now = begun + milliseconds(*time);
            bench.client(flow(1), b"x");
            bench.refuse(only(&bench));
        }
        bench.ports();
        bench.client(flow(1), b"x");
        assert_eq!(bench.ports(), [*expected], "{name}");
        let moved = usize::from(*expected == 2);
        assert_eq!(downs(&bench), moved, "{name}: {:?}", bench.said);
        assert_eq!(bench.log.iter().filter(|line| line.starts_with("finish moved")).count(), moved, "{name}");
        assert_eq!((bench.active.count(), bench.sockets.len()), (1, 1), "{name}");
        bench.client(flow(2), b"x");
        assert_eq!(bench.ports(), [*expected], "{name}: others begin there");
    }
}

#[test]
fn handshakes_without_an_answer_go_on_to_the_next_target() {
    let initiation = wireguard(1, 7, 0, 148);
    let initial = first(b"clientid", b"serverid", "a.test");
    for (protocol, datagram, times) in
        [("wireguard", initiation, [0, 5000, 10_000]), ("quic", initial, [0, 1000, 3000])]
    {
        let mut bench = Bench::new(&two_of(protocol));
        let begun = bench.now;
        for time in times {
            bench.now = begun + milliseconds(time);
            bench.client(flow(1), &datagram);
        }
        assert_eq!(bench.ports(), [1, 1, 2], "{protocol}");
        assert_eq!(downs(&bench), 1, "{protocol}: {:?}", bench.said);
        assert!(bench.said[0].contains("198.51.100.1:1 does not answer handshakes"), "{:?}", bench.said);
        assert_eq!(bench.log[1], "finish moved 198.51.100.1:1", "{protocol}");
        bench.client(flow(2), &datagram);
        assert_eq!(bench.ports(), [2], "{protocol}: others begin there");
    }
}

#[test]
fn what_one_client_meets_does_not_speak_against_a_target_that_answers_others() {
    let mut bench = Bench::new(&two_of("wireguard"));
    let initiation = wireguard(1, 7, 0, 148);
    bench.client(flow(2), &initiation);
    let other = only(&bench);
    for _ in 0..3 {
        bench.client(flow(1), &initiation);
        bench.now += seconds(5);
        bench.answer(other, &wireguard(2, 99, 7, 92));
    }
    assert_eq!(bench.ports(), [1, 1, 1, 2], "the one that is not answered moves alone");
    bench.client(flow(3), &initiation);
    assert_eq!((bench.ports(), downs(&bench)), (vec![1], 0));
}

#[test]
fn answers_that_the_kernel_forwards_speak_for_a_target() {
    let mut bench = Bench::new(&two_of("wireguard"));
    let initiation = wireguard(1, 7, 0, 148);
    bench.client(flow(2), &initiation);
    let other = only(&bench);
    bench.answer(other, &wireguard(2, 99, 7, 92));
    bench.sessions.handle_installed(other, true);
    for _ in 0..3 {
        bench.now += seconds(5);
        bench.client(flow(1), &initiation);
    }
    assert_eq!((bench.ports(), downs(&bench)), (vec![1, 1, 1, 2], 0));
}

#[test]
fn a_tunnel_whose_server_falls_silent_moves_with_all_that_it_sends() {
    let mut bench = Bench::new(&two_of("wireguard"));
    let (initiation, data) = (wireguard(1, 7, 0, 148), wireguard(4, 99, 1, 64));
    bench.client(flow(1), &initiation);
    bench.answer(only(&bench), &wireguard(2, 99, 7, 92));
    bench.client(flow(1), &data);
    for _ in 0..3 {
        bench.now += seconds(5);
        bench.client(flow(1), &initiation);
    }
    // Data under the index of the server that is gone does not lead back to it.
    bench.client(flow(1), &data);
    assert_eq!(bench.ports(), [1, 1, 1, 1, 2, 2]);
    let session = only(&bench);
    bench.answer(session, &wireguard(2, 55, 7, 92));
    bench.client(flow(1), &wireguard(4, 55, 1, 64));
    assert_eq!(bench.ports(), [2]);
    assert_eq!(bench.steered_ids[&session], Some(ConnectionId::new(&55_u32.to_le_bytes()).unwrap()));
}

#[test]
fn a_quic_connection_moves_only_when_its_backend_is_gone() {
    let mut bench = Bench::new(&two_of("quic"));
    let initial = first(b"clientid", b"serverid", "a.test");
    bench.client(flow(1), &initial);
    bench.answer(only(&bench), &long(SERVER_INITIAL, b"clientid", b"SERVERID"));
    for _ in 0..5 {
        bench.now += seconds(5);
        bench.client(flow(1), &initial);
        bench.client(flow(1), &short(b"SERVERID"));
    }
    assert!(bench.ports().iter().all(|port| *port == 1), "it is silent, but knows the connection");
    for _ in 0..4 {
        bench.refuse(only(&bench));
        bench.now += seconds(1);
    }
    bench.client(flow(1), &short(b"SERVERID"));
    assert_eq!(bench.ports(), [2], "which tells the client that it is over");
    bench.client(flow(2), &short(b"SERVERID"));
    assert_eq!((bench.ports(), bench.drops(DatagramDrop::Orphan)), (vec![], 1), "nobody is led to where nobody is");
}

#[test]
fn a_steered_session_is_taken_back_on_a_refusal_and_given_back_on_an_answer() {
    let mut bench = Bench::new(&two());
    let session = answered(&mut bench);
    assert_eq!(bench.installed, [session]);
    bench.refuse(session);
    bench.act(|sessions, _, out| sessions.steer_again(&flow(1), out));
    assert!(bench.installed.is_empty(), "to see whether it is answered");
    bench.answer(session, b"y");
    assert_eq!(bench.installed, [session]);
    bench.refuse(session);
    assert_eq!(bench.installed, [session], "not all the time");
    bench.now += seconds(10);
    for _ in 0..4 {
        bench.refuse(only(&bench));
        bench.now += seconds(1);
    }
    assert_eq!(bench.sockets.values().map(SocketAddr::port).collect::<Vec<_>>(), [2]);
    assert!(bench.installed.is_empty());
}

#[test]
fn with_nowhere_to_go_a_session_stays_and_with_all_tried_it_begins_again() {
    let mut bench = Bench::new(&two());
    answered(&mut bench);
    let mut at = Vec::new();
    for _ in 0..20 {
        bench.refuse(only(&bench));
        bench.now += seconds(1);
        at.extend(bench.sockets.values().map(SocketAddr::port));
    }
    at.dedup();
    assert!(at.starts_with(&[1, 2, 1, 2]), "{at:?}");

    let mut bench = Bench::new(&format!("{TOP}udp_target = [\"198.51.100.1:1\"]\n"));
    let session = answered(&mut bench);
    for _ in 0..20 {
        bench.refuse(session);
        bench.now += seconds(1);
    }
    bench.client(flow(1), b"x");
    assert_eq!(bench.last(), Some((session, 1)));
    assert_eq!(downs(&bench), 1, "it is said once");
}

/// A bench whose target is the name `backend.test`, and how to change its addresses (by their last byte).
fn named(port_of_another: Option<u16>) -> (Bench, impl Fn(&[u8])) {
    let another = port_of_another.map(|port| format!(", \"198.51.100.1:{port}\"")).unwrap_or_default();
    let bench = Bench::new(&format!("{TOP}udp_target = [\"backend.test:5\"{another}]\n"));
    let endpoint = bench.sessions.sockets[0].routes.default().unwrap().group.endpoint(0).unwrap();
    let Some(Lookup::Name(name, _)) = endpoint.lookup().cloned() else { panic!("it is a name") };
    let set = move |hosts: &[u8]| name.set(hosts.iter().map(|host| [198, 51, 100, *host].into()).collect());
    (bench, set)
}

/// The last byte of the address of each session.
fn hosts(bench: &Bench) -> Vec<u8> {
    let octet = |address: &SocketAddr| match address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    };
    bench.sockets.values().map(octet).collect()
}

#[test]
fn a_session_follows_its_targets_name_unless_it_is_answered() {
    for (name, answers, one_way, expected) in
        [("answered", true, false, 1), ("not answered", false, false, 2), ("never was", false, true, 2)]
    {
        let (mut bench, set) = named(None);
        set(&[1]);
        bench.client(flow(1), b"x");
        let session = only(&bench);
        if !one_way {
            bench.answer(session, b"y");
        }
        bench.wait(seconds(10));
        assert_eq!(hosts(&bench), [1], "{name}");
        set(&[2]);
        for _ in 0..6 {
            bench.client(flow(1), b"x");
            if answers {
                bench.answer(only(&bench), b"y");
            }
            bench.wait(seconds(2));
        }
        assert_eq!(hosts(&bench), [expected], "{name}");
        assert_eq!(downs(&bench), 0, "{name}: the target is where its name leads");
    }
}

#[test]
fn a_quiet_session_does_not_follow_its_targets_name() {
    let (mut bench, set) = named(None);
    set(&[1]);
    answered(&mut bench);
    bench.client(flow(1), b"thanks");
    set(&[2]);
    for _ in 0..10 {
        bench.wait(seconds(2));
    }
    assert_eq!(hosts(&bench), [1], "nobody has asked for an answer");
}

#[test]
fn one_refusal_suffices_where_the_name_has_moved() {
    let (mut bench, set) = named(None);
    set(&[1]);
    let session = answered(&mut bench);
    bench.refuse(session);
    set(&[2]);
    bench.refuse(session);
    assert_eq!(hosts(&bench), [2]);
}

#[test]
fn all_addresses_of_a_name_are_tried_before_the_next_target() {
    let (mut bench, set) = named(Some(9));
    set(&[1, 2]);
    bench.client(flow(1), b"x");
    let mut at = vec![];
    for _ in 0..3 {
        at.extend(bench.sockets.values().copied());
        bench.refuse(only(&bench));
    }
    let expected: Vec<SocketAddr> =
        ["198.51.100.1:5", "198.51.100.2:5", "198.51.100.1:9"].iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(at, expected);
}

#[test]
fn a_session_that_was_answered_where_its_name_was_follows_it_within_seconds() {
    for (has_kernel, within) in [(false, seconds(6)), (true, seconds(17))] {
        let (mut bench, set) = named(None);
        bench.has_kernel = has_kernel;
        set(&[1]);
        answered(&mut bench);
        set(&[2]);
        // The kernel may have given it back for this.
        bench.wait(seconds(1));
        bench.client(flow(1), b"x");
        bench.answer(only(&bench), b"y");
        let begun = bench.now;
        while hosts(&bench) == [1] {
            assert!(bench.now - begun < within, "a kernel: {has_kernel}");
            bench.client(flow(1), b"x");
            bench.wait(milliseconds(250));
        }
    }
}

#[test]
fn refusals_count_at_once_where_no_kernel_forwards_answers() {
    let mut bench = Bench::new(&two());
    bench.has_kernel = false;
    answered(&mut bench);
    for _ in 0..3 {
        bench.refuse(only(&bench));
        bench.now += seconds(1);
    }
    assert_eq!(bench.sockets.values().map(SocketAddr::port).collect::<Vec<_>>(), [2]);
}

/// Sets the records of the service: priority, port.
fn offered(bench: &Bench, records: &[(u16, u16)]) {
    let endpoint = bench.sessions.sockets[0].routes.default().unwrap().group.endpoint(0).unwrap();
    let Some(Lookup::Service(service)) = endpoint.lookup().cloned() else { panic!("it is a service") };
    let record = |(priority, port): &(u16, u16)| {
        let name = bench.resolver.name(&"host.invalid.".into());
        name.set(vec![[198, 51, 100, 1].into()]);
        Record { priority: *priority, weight: 0, port: *port, host: "host.invalid".into(), name }
    };
    service.set(records.iter().map(record).collect());
}

#[test]
fn records_of_a_service_are_tried_by_priority_and_one_that_refuses_comes_last() {
    let mut bench = Bench::new(&format!("{TOP}udp_target = \"srv:_x._udp.invalid\"\nudp_target_retry = \"60s\"\n"));
    offered(&bench, &[(10, 1), (20, 2)]);
    let reached = |bench: &mut Bench, n| {
        bench.client(flow(n), b"x");
        bench.sent.last().unwrap().1.port()
    };
    assert_eq!(reached(&mut bench, 1), 1);
    // It refuses: the client goes on with the next record, and others begin there.
    bench.refuse(only(&bench));
    assert_eq!((reached(&mut bench, 1), reached(&mut bench, 2)), (2, 2));
    assert_eq!(downs(&bench), 0, "the service is there");
    bench.now += milliseconds(60_000);
    assert_eq!((reached(&mut bench, 3), reached(&mut bench, 4)), (1, 2), "one finds out whether it is back");
    offered(&bench, &[]);
    let before = bench.sent.len();
    bench.client(flow(5), b"x");
    assert_eq!(bench.sent.len(), before, "it is not offered any more");
    assert_eq!(downs(&bench), 1);
}
