//! Banned clients get nothing, and what they had ends.

use super::*;

const CONFIG: &str = "listen_port = 443\nudp_target = [\"198.51.100.1:7000\"]\n";

#[test]
fn a_ban_ends_the_sessions_of_its_network_and_drops_what_follows() {
    let mut bench = Bench::new(CONFIG);
    let [banned, other] = [flow(1), Flow { client: "203.0.113.1:1".parse().unwrap(), ..flow(2) }];
    bench.client(banned, b"one");
    bench.client(other, b"two");
    bench.bans.ban("192.0.0.0/24".parse().unwrap()).unwrap();
    bench.act(Sessions::handle_bans);
    assert_eq!(bench.log.last().unwrap(), "finish banned 198.51.100.1:7000");
    assert_eq!(bench.sessions.len(), 1);
    bench.client(banned, b"three");
    bench.buffer(banned, b"aabbc", 2);
    bench.client(banned, b"");
    assert_eq!((bench.drops(DatagramDrop::Banned), bench.ports().len()), (5, 2));
    bench.client(other, b"four");
    bench.bans.unban("192.0.0.0/24".parse().unwrap());
    bench.client(banned, b"five");
    assert_eq!((bench.drops(DatagramDrop::Banned), bench.ports().len()), (5, 2));
}

#[test]
fn a_session_without_a_backend_yet_ends_too_with_what_it_holds() {
    let mut bench = Bench::new("listen_port = 443\nudp_target = [\"name.test:7000\"]\n");
    bench.client(flow(1), b"one");
    bench.client(flow(1), b"two");
    bench.bans.set_configured(&["192.0.0.0/16".parse().unwrap()]);
    bench.act(Sessions::handle_bans);
    assert_eq!((bench.sessions.len(), bench.sessions.held_bytes()), (0, 0));
    assert_eq!((bench.drops(DatagramDrop::Banned), bench.active.count()), (2, 0));
}

#[test]
fn a_line_tells_what_a_session_has_come_to() {
    let mut bench = Bench::new(CONFIG);
    bench.client(flow(1), b"question");
    bench.wait(seconds(2));
    let session = bench.last().unwrap().0;
    bench.answer(session, b"answer");
    bench.wait(seconds(1));
    bench.client(flow(2), b"x");
    let all = crate::route::Selection::default();
    let lines: Vec<_> = bench.sessions.flow_lines(10, &all, bench.now).map(|(_, line)| line).collect();
    assert_eq!(lines.len(), 2);
    let json = serde_json::to_value(&lines[0]).unwrap();
    let expected = serde_json::json!({
        "client": "192.0.0.1:1001", "local": null, "listener": null, "listener_name": "default", "target": "198.51.100.1:7000",
        "backend": "198.51.100.1:7000", "stage": "open", "carries": "udp", "rule": null, "age_ms": 3000, "idle_ms": 1000, "bytes_up": 8, "bytes_down": 6,
        "answered": true, "confirmed": false, "plane": "userspace", "reason": null,
    });
    assert_eq!(json, expected);
}
