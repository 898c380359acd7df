//! Sessions that an earlier daemon has left.

use rpxy_l4_proto::quic::ConnectionId;

use super::*;
use crate::udp::core::Inherited;

const DEFAULT: &str = "udp_target = [\"198.51.100.1:7000\"]\n";

fn backend(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], port))
}

/// The mark of a rule, or of the default targets.
fn mark(bench: &Bench, rule: Option<&str>) -> u16 {
    bench.sessions.sockets[0].routes.named(rule).unwrap().mark()
}

/// Restores a session whose port can be had; `None` when it has no place.
fn restore(bench: &mut Bench, left: &Inherited) -> Option<SessionId> {
    let mut out = Output::default();
    let session = bench.sessions.inherit(left, bench.now, &mut out)?;
    bench.sockets.insert(session, left.backend);
    bench.sessions.handle_inherited(session, bench.now, &mut out);
    bench.carry_out(&mut out);
    Some(session)
}

#[test]
fn a_session_goes_on_with_its_backend_and_is_steered() {
    let mut bench = Bench::new(&format!("{TOP}{DEFAULT}"));
    let left = Inherited { flow: flow(1), backend: backend(7000), mark: mark(&bench, None), cid: None };
    let session = restore(&mut bench, &left).unwrap();
    assert_eq!(bench.log, ["start udp 192.0.0.1:1001 198.51.100.1:7000"]);
    assert_eq!(bench.installed, [session]);
    bench.client(flow(1), b"passed by the kernel");
    assert_eq!(bench.last(), Some((session, 7000)));
    assert_eq!(bench.answer(session, b"answer"), Some(flow(1)));
    assert_eq!(bench.installed, [session], "once");
    // No ICMP message turns it to another target: it had been answered.
    bench.refuse(session);
    assert_eq!(bench.sessions.len(), 1);
    bench.wait(seconds(3600));
    assert_eq!(bench.log.last().unwrap(), "finish idle 198.51.100.1:7000");
    assert_eq!((bench.active.count(), bench.installed.len()), (0, 0));
}

#[test]
fn what_has_no_place_is_not_taken_over() {
    let config = format!("{TOP}udp_max_connections = 2\n{DEFAULT}{}", rule("q", "quic", 7443, ""));
    let mut bench = Bench::new(&config);
    let (default, quic) = (mark(&bench, None), mark(&bench, Some("q")));
    assert_ne!(default, quic);
    let left = |n, port, mark| Inherited { flow: flow(n), backend: backend(port), mark, cid: None };
    assert!(restore(&mut bench, &left(1, 7001, default)).is_none(), "no target of the rule");
    assert!(restore(&mut bench, &left(1, 7443, default)).is_none(), "another rule's target");
    assert!(restore(&mut bench, &left(1, 7000, 1)).is_none(), "no such rule");
    bench.bans.ban("192.0.0.2/32".parse().unwrap()).unwrap();
    assert!(restore(&mut bench, &left(2, 7000, default)).is_none(), "banned");
    assert!(restore(&mut bench, &left(1, 7000, default)).is_some());
    assert!(restore(&mut bench, &left(1, 7000, default)).is_none(), "there already");
    assert!(restore(&mut bench, &left(3, 7443, quic)).is_some());
    assert!(restore(&mut bench, &left(4, 7000, default)).is_none(), "udp_max_connections");
    assert_eq!(bench.sessions.len(), 2);
}

#[test]
fn a_session_whose_port_is_taken_leaves_nothing() {
    let mut bench = Bench::new(&format!("{TOP}{DEFAULT}"));
    let left = Inherited { flow: flow(1), backend: backend(7000), mark: mark(&bench, None), cid: None };
    let mut out = Output::default();
    let session = bench.sessions.inherit(&left, bench.now, &mut out).unwrap();
    bench.sessions.handle_not_inherited(session, bench.now, &mut out);
    bench.carry_out(&mut out);
    assert_eq!((bench.sessions.len(), bench.active.count(), bench.log.len()), (0, 0, 0));
    bench.client(flow(1), b"anew");
    assert_eq!(bench.last().map(|(_, port)| port), Some(7000));
}

#[test]
fn the_connection_id_of_a_quic_session_is_known_again() {
    let mut bench = Bench::new(&format!("{TOP}{}{}", rule("a", "quic", 7001, ""), rule("w", "wireguard", 7002, "")));
    let id = ConnectionId::new(b"\xfeerver id").unwrap();
    let left = Inherited { flow: flow(1), backend: backend(7001), mark: mark(&bench, Some("a")), cid: Some(id) };
    let session = restore(&mut bench, &left).unwrap();
    assert_eq!(bench.steered_ids[&session], Some(id));
    let short = [&[0x40][..], b"\xfeerver id", &[7; 20]].concat();
    bench.client(flow(1), &short);
    assert_eq!(bench.last(), Some((session, 7001)));
    // Its client may come back from another address.
    bench.client(flow(2), &short);
    let (moved, port) = bench.last().unwrap();
    assert!(moved != session && port == 7001);

    // A tunnel's index is not known again, but its client's end is.
    let left = Inherited { flow: flow(3), backend: backend(7002), mark: mark(&bench, Some("w")), cid: None };
    let tunnel = restore(&mut bench, &left).unwrap();
    bench.client(flow(3), &[&[4, 0, 0, 0][..], &[9; 60]].concat());
    assert_eq!(bench.last(), Some((tunnel, 7002)));
}
