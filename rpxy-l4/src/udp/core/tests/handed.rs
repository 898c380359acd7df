//! Sessions that are handed to another process.

use super::{
    packets::{SERVER_INITIAL, first, long, short, wireguard},
    *,
};

const CLIENT: &[u8] = b"client-a";
const SERVER: &[u8] = b"\xfeerver-a";
/// What the server tells in secret.
const NEXT: &[u8] = b"\xfeext-id-";

fn config() -> String {
    let target = "udp_target = [\"198.51.100.1:1\"]\n";
    format!("{TOP}{target}{}{}", rule("quic", "quic", 3, ""), rule("wg", "wireguard", 4, ""))
}

/// Hands all over to a process with this configuration, which has run for less long.
fn succeed(bench: &mut Bench, config: &str) -> Bench {
    let mut successor = Bench::new(config);
    successor.now = seconds(1);
    bench.act(|sessions, _, out| sessions.handle_freeze(out));
    assert!(bench.installed.is_empty(), "nothing is steered meanwhile");
    for session in bench.sessions.to_hand_over() {
        let flow = *bench.sessions.flow(session).unwrap();
        for (datagram, _) in bench.sessions.held_datagrams(session) {
            successor.client(flow, &datagram);
        }
        let Some(handed) = bench.sessions.handed(session, bench.now) else { continue };
        let text = serde_json::to_string(&handed).unwrap();
        let handed: HandedSession = serde_json::from_str(&text).unwrap();
        let mut out = Output::default();
        let Some(taken) = successor.sessions.take_over(&handed, flow, successor.now, &mut out) else { continue };
        let is_early = |command: &Command| matches!(command, Command::InstallFlow { .. });
        assert!(!out.commands.iter().any(is_early), "it has no socket yet");
        successor.sockets.insert(taken, handed.backend);
        successor.carry_out(&mut out);
        successor.act(|sessions, _, out| sessions.handle_taken_over(taken, out));
    }
    successor
}

#[test]
fn a_quic_connection_goes_on_with_all_that_it_is_known_by() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &first(CLIENT, b"destin-a", "a.test"));
    let session = bench.last().unwrap().0;
    bench.answer(session, &long(SERVER_INITIAL, CLIENT, SERVER));
    bench.client(flow(1), &short(SERVER));
    bench.client(flow(1), &short(NEXT));
    let before = bench.sessions.flow_lines(1, &crate::route::Selection::default(), bench.now).next().unwrap().1;

    let mut after = succeed(&mut bench, &config());
    let line = after.sessions.flow_lines(1, &crate::route::Selection::default(), after.now).next().unwrap().1;
    assert!(line.confirmed && line.answered);
    assert_eq!((line.bytes_up, line.bytes_down), (before.bytes_up, before.bytes_down));
    let session = after.sessions.to_hand_over()[0];
    assert_eq!(after.installed, [session], "the kernel may have it again");
    assert_eq!(after.steered_ids[&session].unwrap().as_bytes(), NEXT);
    for (row, datagram) in [("stated", short(SERVER)), ("used", short(NEXT)), ("long", long(0xe0, SERVER, CLIENT))] {
        after.client(flow(1), &datagram);
        assert_eq!(after.ports(), [3], "{row}");
    }
    assert!(after.answer(session, &short(CLIENT)).is_some());
    // It may come back from another address, by what its server stated.
    after.client(flow(2), &short(SERVER));
    assert_eq!(after.ports(), [3]);
    assert_eq!(after.sessions.len(), 2);
    // The predecessor has it as ever, should the successor not come.
    bench.act(|sessions, _, out| sessions.handle_thaw(out));
    assert_eq!(bench.installed.len(), 1);
    bench.client(flow(1), &short(NEXT));
    assert_eq!(bench.ports().last(), Some(&3));
}

#[test]
fn a_tunnel_is_found_by_its_index_and_any_other_session_by_its_client() {
    let mut bench = Bench::new(&config());
    bench.client(flow(1), &wireguard(1, 7, 0, 148));
    let tunnel = bench.last().unwrap().0;
    bench.answer(tunnel, &wireguard(2, 9, 7, 92));
    bench.client(flow(1), &wireguard(4, 9, 0, 64));
    bench.client(flow(2), b"x");
    let any = bench.last().unwrap().0;
    bench.answer(any, b"y");
    let mut after = succeed(&mut bench, &config());
    after.client(flow(2), b"x");
    assert_eq!(after.ports(), [1]);
    after.client(flow(1), &wireguard(4, 9, 0, 64));
    assert_eq!(after.ports(), [4]);
    after.client(flow(3), &wireguard(4, 9, 0, 64));
    assert_eq!(after.ports(), [4], "from another address, by its index");
}

#[test]
fn what_waits_for_a_decision_is_decided_by_the_successor() {
    let mut bench = Bench::new("listen_port = 443\nudp_target = [\"name.test:7000\"]\n");
    bench.client(flow(1), b"one");
    bench.client(flow(1), b"two");
    assert!(bench.ports().is_empty());
    let after = succeed(&mut bench, &config());
    let sent: Vec<_> = after.sent.iter().map(|(_, to, datagram)| (to.port(), datagram.as_slice())).collect();
    assert_eq!(sent, [(1, &b"one"[..]), (1, b"two")]);
}

#[test]
fn what_has_no_place_is_not_taken_over() {
    let other_target = config().replace("198.51.100.1:1\"", "198.51.100.1:2\"");
    for (row, config, expected) in [
        ("the same file", config(), 1),
        ("without its target", other_target, 0),
        ("its client is denied", format!("deny = [\"192.0.0.0/16\"]\n{}", config()), 0),
    ] {
        let mut bench = Bench::new(&self::config());
        bench.client(flow(1), b"x");
        let session = bench.last().unwrap().0;
        bench.answer(session, b"y");
        let after = succeed(&mut bench, &config);
        assert_eq!(after.sessions.len(), expected, "{row}");
        assert_eq!(after.active.count(), u32::try_from(expected).unwrap(), "{row}");
    }
}
