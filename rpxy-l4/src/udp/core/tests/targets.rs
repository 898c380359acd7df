//! Targets, limits, lifetimes, reloads.

use super::{packets::wireguard, *};

const ONE: &str = "udp_target = [\"198.51.100.1:1\"]\n";

fn two(balance: &str) -> String {
    format!("{TOP}udp_load_balance = \"{balance}\"\nudp_target = [\"198.51.100.1:1\", \"198.51.100.1:2\"]\n")
}

fn target(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], port))
}

#[test]
fn a_session_is_an_address_and_a_port() {
    let mut bench = Bench::new(&format!("{TOP}{ONE}"));
    let other_local = Flow { local: Some(Local { address: [192, 0, 2, 7].into(), interface: 0 }), ..flow(1) };
    let other_listener = Flow { listener: 1, ..flow(1) };
    for from in [flow(1), flow(2), other_local, other_listener, flow(1)] {
        bench.client(from, b"x");
    }
    assert_eq!(bench.sockets.len(), 4);
    let sockets: Vec<SessionId> = bench.sockets.keys().copied().collect();
    let owners: Vec<Option<Flow>> = sockets.into_iter().map(|session| bench.answer(session, b"y")).collect();
    for from in [flow(1), flow(2), other_local, other_listener] {
        assert_eq!(owners.iter().filter(|owner| **owner == Some(from)).count(), 1, "{from:?}");
    }
}

#[test]
fn a_first_buffer_of_many_datagrams_arrives_whole() {
    let mut bench = Bench::new(&format!("{TOP}{ONE}"));
    let datagrams: Vec<u8> = (0..64_u8).flat_map(|n| [n; 1000]).collect();
    bench.buffer(flow(1), &datagrams, 1000);
    let got: Vec<u8> = bench.sent.iter().map(|(_, _, datagram)| datagram[0]).collect();
    assert_eq!(got, (0..64).collect::<Vec<u8>>());
}

#[test]
fn both_directions_keep_a_session_alive() {
    let mut bench = Bench::new(&format!("{TOP}udp_idle_lifetime = 30\n{ONE}"));
    bench.client(flow(1), b"x");
    let session = bench.last().unwrap().0;
    for _ in 0..5 {
        bench.wait(seconds(29));
        bench.client(flow(1), b"x");
        bench.wait(seconds(29));
        assert_eq!(bench.answer(session, b"y"), Some(flow(1)));
    }
    bench.wait(seconds(29));
    assert_eq!(bench.sockets.len(), 1);
    bench.wait(seconds(1));
    assert!(bench.sockets.is_empty());
    assert_eq!(bench.log.last().unwrap(), "finish idle 198.51.100.1:1");
    assert_eq!(bench.answer(session, b"late"), None, "its answers belong to nobody");
    bench.client(flow(1), b"x");
    assert_ne!(bench.last().unwrap().0, session);
}

#[test]
fn what_the_kernel_forwards_keeps_a_session_alive() {
    let mut bench = Bench::new(&format!("{TOP}udp_idle_lifetime = 30\n{ONE}"));
    bench.client(flow(1), b"x");
    let session = bench.last().unwrap().0;
    bench.answer(session, b"y");
    assert_eq!(bench.installed, [session]);
    bench.now += seconds(30);
    let seen = Forwarded { last: bench.now - seconds(10), turns: 1 };
    bench.act(|sessions, now, out| sessions.handle_timeout(now, |_| Some(seen), out));
    assert_eq!(bench.sockets.len(), 1);
    bench.now += seconds(20);
    bench.act(|sessions, now, out| sessions.handle_timeout(now, |_| Some(seen), out));
    assert!(bench.sockets.is_empty() && bench.installed.is_empty());
}

#[test]
fn a_lifetime_of_nought_is_for_ever() {
    let mut bench = Bench::new(&format!("{TOP}udp_idle_lifetime = 0\n{ONE}"));
    bench.client(flow(1), b"x");
    bench.wait(seconds(1_000_000));
    assert_eq!(bench.sockets.len(), 1);
    assert_eq!(bench.sessions.deadlines.len(), 0, "nothing is due");
}

#[test]
fn a_network_begins_no_more_sessions_than_it_may() {
    let limit = "udp_new_sessions_per_source = 1\nudp_new_sessions_burst = 2\nsource_prefix_v4 = 24\n";
    let mut bench = Bench::new(&format!("{TOP}{limit}{ONE}"));
    for n in [1, 2, 3, 256, 1, 2] {
        bench.client(flow(n), b"x");
    }
    assert_eq!(bench.drops(DatagramDrop::SourceLimited), 1, "the third, of one network");
    assert_eq!(bench.active.count(), 3);
    assert_eq!(bench.sent.len(), 5, "sessions under way go on");
    bench.now += seconds(1);
    bench.client(flow(3), b"x");
    assert_eq!(bench.drops(DatagramDrop::SourceLimited), 1, "a second later");
}

#[test]
fn a_full_table_gives_up_who_shows_least() {
    let mut bench = Bench::new(&format!("{TOP}udp_max_connections = 3\n{ONE}"));
    for n in 1..=3 {
        bench.client(flow(n), b"x");
    }
    // The first two talk with their backend.
    for session in bench.sockets.keys().copied().take(2).collect::<Vec<_>>() {
        take_turns(&mut bench, session);
    }
    bench.client(flow(4), b"x");
    assert_eq!(bench.log.last().unwrap(), "start udp 192.0.0.4:1004 198.51.100.1:1");
    assert!(bench.log.contains(&"finish evicted 198.51.100.1:1".to_owned()), "one that was never answered");
    let last = bench.last().unwrap().0;
    take_turns(&mut bench, last);
    bench.client(flow(5), b"x");
    assert_eq!(bench.drops(DatagramDrop::TooMany), 1, "now all are in use");
    assert_eq!(bench.active.count(), 3);
    assert!(bench.said.iter().all(|said| said.contains("TooMany { max: 3,")) && bench.said.len() == 2);
    // One goes on, two are quiet; of them the one that has been so for longer.
    bench.now += seconds(3);
    bench.client(flow(1), b"x");
    bench.now += seconds(3);
    bench.client(flow(5), b"x");
    assert_eq!(bench.log.last().unwrap(), "start udp 192.0.0.5:1005 198.51.100.1:1");
    bench.client(flow(1), b"x");
    bench.client(flow(4), b"x");
    assert_eq!(bench.sessions.table.flows(), 3);
    assert!(!bench.sessions.knows(&flow(2)), "the one that was quiet for longest");
}

/// Has a session take turns with its backend, so that it is believed to be wanted.
fn take_turns(bench: &mut Bench, session: SessionId) {
    for _ in 0..3 {
        let from = bench.answer(session, b"y").unwrap();
        bench.client(from, b"x");
    }
}

/// A WireGuard initiation whose sender is `n`, and the backend's response to it.
fn tunnel(bench: &mut Bench, n: u16) -> bool {
    let before = bench.sent.len();
    bench.client(flow(n), &wireguard(1, n.into(), 0, 148));
    bench.sent.len() > before
}

#[test]
fn a_rule_has_no_more_sessions_than_it_may_and_those_that_show_least_give_way() {
    let rule = |most: u16| {
        let keys = format!("max_connections = {most}");
        format!("{TOP}{ONE}{}", rule("wg", "wireguard", 2, &keys))
    };
    let mut bench = Bench::new(&rule(2));
    assert!((1..=3).all(|n| tunnel(&mut bench, n)), "the third takes the place of the first");
    assert!(!bench.sessions.knows(&flow(1)) && bench.sessions.knows(&flow(2)));
    assert!(bench.log.contains(&"finish evicted 198.51.100.1:2".to_owned()));
    assert!(bench.said[0].contains("RuleFull { rule: \"wg\", max: 2 }"), "{:?}", bench.said);
    // Each server tells its client an index, which the client repeats.
    for (index, session) in (100..).zip(bench.sockets.keys().copied().collect::<Vec<_>>()) {
        let sender = bench.sessions.table.get(session).unwrap().flow.client.port() - 1000;
        let from = bench.answer(session, &wireguard(2, index, sender.into(), 92)).unwrap();
        bench.client(from, &wireguard(4, index, 0, 64));
    }
    assert!(!tunnel(&mut bench, 4), "both have proved that they receive");
    assert_eq!((bench.drops(DatagramDrop::RuleConnections), bench.sockets.len()), (1, 2));
    bench.client(flow(5), b"x");
    assert_eq!(bench.sockets.len(), 3, "what is not of the rule has room");
    bench.reload(&rule(3));
    assert!(tunnel(&mut bench, 4), "a reload raises the limit");
    bench.reload(&rule(1));
    assert_eq!(bench.sockets.len(), 4, "or lowers it, and ends none");
    assert!(!tunnel(&mut bench, 6));
}

#[test]
fn a_target_has_no_more_sessions_than_it_may_and_the_next_one_gets_them() {
    let with = |targets: &str| Bench::new(&format!("{TOP}udp_target = [{targets}]\n"));
    let limited = |port: u16| format!("{{ address = \"198.51.100.1:{port}\", max_connections = 1 }}");
    let mut bench = with(&format!("{}, {}", limited(1), limited(2)));
    for (n, expected) in [(1, 1), (2, 2)] {
        bench.client(flow(n), b"x");
        assert_eq!(bench.last().unwrap().1, expected);
    }
    // Each is full: the session that has shown the least gives way.
    let first = *bench.sockets.keys().next().unwrap();
    take_turns(&mut bench, first);
    bench.client(flow(3), b"x");
    assert_eq!(bench.last().unwrap().1, 2);
    assert!(bench.sessions.knows(&flow(1)) && !bench.sessions.knows(&flow(2)));
    let last = bench.last().unwrap().0;
    take_turns(&mut bench, last);
    bench.client(flow(4), b"x");
    assert_eq!((bench.drops(DatagramDrop::TargetConnections), bench.sockets.len()), (1, 2), "both are in use");
    bench.now += seconds(6);
    bench.client(flow(5), b"x");
    assert_eq!(bench.sockets.len(), 2);
    assert!(bench.sessions.knows(&flow(5)), "one that is quiet gives way");
    assert_eq!(bench.active.count(), 2);

    let mut only = with(&limited(1));
    only.client(flow(1), b"x");
    only.client(flow(2), b"x");
    assert!(only.sessions.knows(&flow(2)) && !only.sessions.knows(&flow(1)), "the only target");
}

#[test]
fn a_flood_at_a_limit_costs_only_what_has_shown_nothing() {
    let mut bench = Bench::new(&format!(
        "{TOP}udp_target = [{{ address = \"198.51.100.1:1\", max_connections = 8 }}]\n{}",
        rule("wg", "wireguard", 2, "max_connections = 8")
    ));
    bench.client(flow(1), b"x");
    let first = bench.last().unwrap().0;
    take_turns(&mut bench, first);
    for n in 1000..1500 {
        bench.now += Duration::from_millis(5);
        bench.client(flow(n), b"x");
        assert!(tunnel(&mut bench, n), "{n}");
        bench.client(flow(1), b"x");
    }
    assert!(bench.sessions.knows(&flow(1)));
    assert_eq!(bench.sockets.len(), 16);
    assert_eq!(bench.drops(DatagramDrop::RuleConnections) + bench.drops(DatagramDrop::TargetConnections), 0);
}

#[test]
fn room_is_made_for_another_worker_only_while_there_is_none() {
    let mut bench = Bench::new(&format!("{TOP}udp_max_connections = 2\n{ONE}"));
    bench.client(flow(1), b"x");
    bench.active.want();
    bench.wait(seconds(0));
    assert_eq!(bench.sockets.len(), 1, "there is room");
    assert!(!bench.active.is_wanted());
    bench.client(flow(2), b"x");
    bench.active.want();
    bench.wait(seconds(0));
    assert_eq!(bench.sockets.len(), 1, "the table was full");
}

#[test]
fn a_target_that_cannot_be_had_is_passed_over() {
    let mut bench = Bench::new(&two("none"));
    bench.faults.insert(target(1), Fault::Unreachable);
    bench.client(flow(1), b"x");
    assert_eq!(bench.ports(), [2]);
    assert!(bench.said[0].contains("198.51.100.1:1 cannot be reached"), "{:?}", bench.said);
    bench.faults.clear();
    bench.client(flow(2), b"x");
    assert_eq!(bench.ports(), [2], "the first is tried last for a while");
    bench.now += seconds(10);
    bench.client(flow(3), b"x");
    assert_eq!(bench.ports(), [1], "then one session finds out");
    bench.client(flow(4), b"x");
    assert_eq!(bench.ports(), [2], "and the others wait for its answer");
    let first = *bench.sockets.iter().find(|(_, address)| **address == target(1)).unwrap().0;
    bench.answer(first, b"y");
    assert!(bench.said.last().unwrap().contains("Up"), "{:?}", bench.said);
    bench.client(flow(5), b"x");
    assert_eq!(bench.ports(), [1]);
}

#[test]
fn when_no_target_can_be_had_the_datagram_is_lost_and_nothing_is_left() {
    let mut bench = Bench::new(&two("none"));
    bench.faults.extend([(target(1), Fault::Unreachable), (target(2), Fault::Unreachable)]);
    bench.client(flow(1), b"x");
    assert_eq!((bench.ports(), bench.drops(DatagramDrop::Unreachable)), (vec![], 1));
    assert!(bench.sessions.is_empty() && bench.active.count() == 0 && bench.sessions.held_bytes() == 0);
    bench.faults.clear();
    bench.client(flow(1), b"x");
    assert_eq!(bench.ports().len(), 1, "the next datagram tries again");
}

#[test]
fn what_this_machine_lacks_is_not_blamed_on_the_target() {
    for (fault, reason, said) in
        [(Fault::NoPort, DatagramDrop::NoPort, "NoPort"), (Fault::Shortage, DatagramDrop::Shortage, "Shortage")]
    {
        let mut bench = Bench::new(&two("none"));
        bench.faults.insert(target(1), fault);
        bench.client(flow(1), b"x");
        assert_eq!((bench.ports(), bench.drops(reason)), (vec![], 1), "{fault:?}");
        assert!(bench.said[0].starts_with(said), "{fault:?}: {:?}", bench.said);
        bench.faults.clear();
        bench.client(flow(2), b"x");
        assert_eq!(bench.ports(), [1], "{fault:?}: the first target is still the first");
    }
}

#[test]
fn a_refusal_moves_a_client_on_unless_it_was_answered_before() {
    let mut bench = Bench::new(&two("none"));
    bench.client(flow(1), b"x");
    let first = bench.last().unwrap().0;
    bench.refuse(first);
    bench.client(flow(1), b"again");
    assert_eq!(bench.ports(), [1, 2]);
    assert_eq!(bench.active.count(), 1);
    let log = ["start udp 192.0.0.1:1001 198.51.100.1:1", "finish refused 198.51.100.1:1"];
    assert_eq!(bench.log[..2], log);
    // The last target: nothing is gained by giving it up.
    let second = bench.sockets.keys().next().copied().unwrap();
    bench.refuse(second);
    bench.refuse(first);
    bench.client(flow(1), b"again");
    assert_eq!(bench.ports(), [2]);
    bench.answer(second, b"y");
    bench.refuse(second);
    bench.client(flow(1), b"again");
    assert_eq!(bench.ports(), [2], "a restarting backend keeps its session");
    assert_eq!(bench.sockets.len(), 1);
}

#[test]
fn a_target_that_never_answers_is_up_again_when_it_has_not_refused_for_a_while() {
    let mut bench = Bench::new(&two("none"));
    bench.client(flow(1), b"x");
    bench.refuse(bench.last().unwrap().0);
    bench.now += seconds(10);
    bench.client(flow(2), b"x");
    assert_eq!(bench.last().unwrap().1, 1, "this one tries");
    bench.now += seconds(4);
    bench.client(flow(2), b"x");
    bench.client(flow(3), b"x");
    assert_eq!(bench.last().unwrap().1, 2, "it could still refuse");
    bench.now += seconds(1);
    bench.client(flow(2), b"x");
    bench.client(flow(4), b"x");
    assert_eq!(bench.last().unwrap().1, 1);
}

#[test]
fn balancing_is_that_of_tcp() {
    let ports = |balance: &str| {
        let mut bench = Bench::new(&two(balance));
        for n in 0..200 {
            bench.client(flow(n), b"x");
        }
        let ports = bench.ports();
        [1, 2].map(|port| ports.iter().filter(|other| **other == port).count())
    };
    assert_eq!(ports("none"), [200, 0]);
    assert_eq!(ports("round_robin"), [100, 100]);
    assert_eq!(ports("least_conn"), [100, 100]);
    for balance in ["random", "source_ip", "source_socket"] {
        let [one, two] = ports(balance);
        assert!(one > 60 && two > 60, "{balance}: {one} {two}");
    }
}

#[test]
fn a_reload_keeps_what_still_has_its_rule_and_target() {
    let config =
        |targets: &str, lifetime: u32| format!("{TOP}udp_idle_lifetime = {lifetime}\nudp_target = [{targets}]\n");
    let (one, other) = ("\"198.51.100.1:1\"", "\"198.51.100.1:2\"");
    let mut bench = Bench::new(&config(one, 30));
    bench.client(flow(1), b"x");
    let session = bench.last().unwrap().0;
    bench.reload(&config(&format!("{other}, {one}"), 100));
    bench.client(flow(1), b"x");
    assert_eq!(bench.last().unwrap(), (session, 1), "its target is still there");
    bench.wait(seconds(99));
    assert_eq!(bench.sockets.len(), 1, "the new lifetime holds");
    bench.reload(&config(one, 10));
    bench.wait(seconds(0));
    assert!(bench.sockets.is_empty(), "so does a shorter one");
    bench.client(flow(2), b"x");
    bench.reload(&config(other, 30));
    assert_eq!(bench.log.last().unwrap(), "finish withdrawn 198.51.100.1:1");
    bench.client(flow(2), b"x");
    assert_eq!(bench.last().unwrap().1, 2);
}

#[test]
fn a_closed_socket_ends_its_sessions_and_no_others() {
    let mut bench = Bench::new(&format!("{TOP}{ONE}"));
    bench.client(flow(1), b"x");
    bench.client(Flow { listener: 1, ..flow(1) }, b"x");
    bench.act(|sessions, now, out| sessions.handle_closed(Some(1), SessionEnd::Withdrawn, now, out));
    assert_eq!(bench.sockets.len(), 1);
    bench.act(|sessions, now, out| sessions.handle_closed(None, SessionEnd::Drained, now, out));
    assert!(bench.sessions.is_empty() && bench.active.count() == 0);
}

#[test]
fn a_name_without_an_address_yet_holds_what_comes_and_gives_it_up_in_time() {
    let mut bench = Bench::new(&format!("{TOP}udp_target = [\"backend.test:1\"]\n"));
    for n in 0..3 {
        bench.client(flow(1), &[n]);
    }
    let session = bench.resolving[0];
    assert_eq!((bench.resolving.len(), bench.sessions.held_bytes()), (1, 3));
    bench.act(|sessions, now, out| sessions.handle_resolved(session, now, out));
    assert_eq!(bench.drops(DatagramDrop::Unreachable), 3, "no address was found");
    bench.client(flow(1), b"x");
    bench.wait(RESOLVE_TIMEOUT);
    assert_eq!(bench.drops(DatagramDrop::Unreachable), 4, "the answer did not come");
    assert!(bench.sessions.is_empty() && bench.active.count() == 0 && bench.sessions.held_bytes() == 0);
}
