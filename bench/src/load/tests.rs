//! The load generator against its own backend and reference relay, over loopback.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use super::{
    MESSAGE, barest, connect, download, idle, ping,
    sample::{Latencies, Sample},
    serve, splice,
};

const WINDOW: Duration = Duration::from_millis(50);
/// An address of loopback for each test, so that they do not share ports.
fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 83, 0, n)
}

fn backend(address: Ipv4Addr) {
    std::thread::spawn(move || serve::serve(address, 1).unwrap());
    reachable(SocketAddrV4::new(address, serve::ECHO_PORT));
}

fn reachable(echo: SocketAddrV4) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = idle::exchange(echo) {
        assert!(std::time::Instant::now() < deadline, "{error:#}");
        std::thread::yield_now();
    }
}

#[test]
fn the_message_is_a_complete_request_head() {
    let text = std::str::from_utf8(MESSAGE).unwrap();
    assert!(text.starts_with("GET / HTTP/1.1\r\nHost: "));
    assert!(text.ends_with("\r\n\r\n"));
}

#[test]
fn every_workload_runs_against_the_backend() {
    let address = host(1);
    backend(address);
    let echo = SocketAddrV4::new(address, serve::ECHO_PORT);
    let source = SocketAddrV4::new(address, serve::SOURCE_PORT);

    let pings = ping::run(echo, 4, WINDOW).unwrap();
    assert!(pings.operations > 0 && pings.all_operations > pings.operations, "{pings:?}");
    assert!(pings.p50_us > 0.0 && pings.p99_us >= pings.p50_us, "{pings:?}");

    let connects = connect::run(echo, 4, WINDOW, None).unwrap();
    assert!(connects.operations > 0 && connects.all_operations > connects.operations, "{connects:?}");
    assert_eq!(connects.failures, 0);

    let bytes = download::run(source, 2, WINDOW).unwrap();
    assert!(bytes.operations > 0 && bytes.all_operations > bytes.operations, "{bytes:?}");

    assert_eq!(idle::open(echo, 10).unwrap().len(), 10);
}

#[test]
fn the_relays_carry_exchanges_and_streams() {
    type Relay = fn(SocketAddrV4, SocketAddrV4) -> anyhow::Result<()>;
    let address = host(2);
    backend(address);
    let rows: [(&str, Relay, u16, u16); 4] = [
        ("exchanges by splice", splice::relay, serve::ECHO_PORT, 9001),
        ("streams by splice", splice::relay, serve::SOURCE_PORT, 9002),
        ("barest exchanges", barest::relay, serve::ECHO_PORT, 9003),
        ("barest streams", barest::relay, serve::SOURCE_PORT, 9004),
    ];
    for (name, relay, port, front) in rows {
        let (front, back) = (SocketAddrV4::new(address, front), SocketAddrV4::new(address, port));
        std::thread::spawn(move || relay(front, back).unwrap());
        let measured = if port == serve::ECHO_PORT {
            reachable(front);
            ping::run(front, 2, WINDOW)
        } else {
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            loop {
                let measured = download::run(front, 2, WINDOW);
                if measured.is_ok() || std::time::Instant::now() > deadline {
                    break measured;
                }
            }
        };
        assert!(measured.unwrap().operations > 0, "{name}");
    }
}

#[test]
fn nobody_listening_is_an_error() {
    let nobody = SocketAddrV4::new(host(3), 9);
    assert!(ping::run(nobody, 1, WINDOW).is_err(), "ping");
    assert!(connect::run(nobody, 1, WINDOW, None).is_err(), "connect");
    assert!(download::run(nobody, 1, WINDOW).is_err(), "download");
    assert!(idle::open(nobody, 1).is_err(), "idle");
}

#[test]
fn a_sample_survives_its_travel() {
    let sample = Sample { operations: 3, seconds: 0.5, all_operations: 4, p50_us: 1.5, p99_us: 2.5, failures: 6 };
    assert_eq!(Sample::from_json(&sample.to_json()).unwrap(), sample);
    assert!((sample.rate() - 6.0).abs() < f64::EPSILON);

    let rows = [
        ("not JSON", "error: connect".to_owned()),
        ("a field is missing", r#"{"operations": 3}"#.to_owned()),
        ("nothing measured", Sample { seconds: 1.0, ..Sample::default() }.to_json()),
    ];
    for (name, line) in rows {
        assert!(Sample::from_json(&line).is_err(), "{name}");
    }
}

#[test]
fn percentiles_are_nearest_rank() {
    // (name, microseconds recorded, thousandths, expected)
    let rows: [(&str, Vec<u64>, usize, f64); 5] = [
        ("of nothing", vec![], 500, 0.0),
        ("of one", vec![7], 990, 7.0),
        ("median of an even count is the lower", vec![4, 1, 3, 2], 500, 2.0),
        ("median of an odd count", vec![5, 1, 9], 500, 5.0),
        ("99 of 100", (1..=100).rev().collect(), 990, 99.0),
    ];
    for (name, values, per_mille, expected) in rows {
        let mut latencies = Latencies::default();
        for value in values {
            latencies.record(Duration::from_micros(value));
        }
        let found = latencies.percentile_us(per_mille);
        assert!((found - expected).abs() < 1e-6, "{name}: {found}");
    }
}
