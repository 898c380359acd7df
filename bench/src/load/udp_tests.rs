//! The load generator for UDP against its own backend, and against proxies that do wrong, over loopback.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use super::{
    DATAGRAM, STALL,
    udp_client::{POOL, answers},
    udp_flows::Table,
    udp_new, udp_serve,
    udp_tag::Tag,
    udp_windows,
};

const WINDOW: Duration = Duration::from_millis(400);

/// Addresses of loopback for the flows.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(127, 84, 1, 0);

fn backend(n: u8) -> Ipv4Addr {
    let address = Ipv4Addr::new(127, 84, 0, n);
    std::thread::spawn(move || udp_serve::serve(address, 1).unwrap());
    for port in [udp_serve::DATAGRAM_PORT, udp_serve::SEGMENT_PORT] {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = answers(SocketAddrV4::new(address, port)) {
            assert!(Instant::now() < deadline, "{error:#}");
        }
    }
    address
}

/// A proxy that treats the datagrams of the clients as `treat` says: it gets the number of a datagram, and who sent this
/// one and the one before, and returns who is to receive it.
fn proxy(treat: impl Fn(u64, SocketAddr, SocketAddr) -> Option<SocketAddr> + Send + 'static) -> SocketAddrV4 {
    let socket = UdpSocket::bind("127.84.2.1:0").unwrap();
    let SocketAddr::V4(address) = socket.local_addr().unwrap() else { panic!("not of IPv4") };
    std::thread::spawn(move || {
        let mut before = None;
        let mut buffer = [0; 2048];
        for number in 0.. {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            if let Some(to) = treat(number, from, before.unwrap_or(from)) {
                socket.send_to(&buffer[..length], to).unwrap();
            }
            before = Some(from);
        }
    });
    address
}

#[test]
fn every_workload_runs_against_the_backend() {
    let address = backend(1);
    let datagrams = SocketAddrV4::new(address, udp_serve::DATAGRAM_PORT);
    let segments = SocketAddrV4::new(address, udp_serve::SEGMENT_PORT);

    let rows = [
        ("ping", udp_windows::ping(datagrams, CLIENTS, 4, WINDOW)),
        ("windows", udp_windows::segments(segments, CLIENTS, 4, WINDOW)),
        ("windows-plain", udp_windows::plain(datagrams, CLIENTS, 4, WINDOW)),
        ("table", Table::open(datagrams, CLIENTS, 3 * POOL).and_then(|table| table.run(WINDOW, || Ok(())))),
    ];
    for (name, sample) in rows {
        let sample = sample.unwrap();
        assert!(sample.operations > 0 && sample.all_operations > sample.operations, "{name}: {sample:?}");
        assert!(sample.p50_us > 0.0 && sample.p99_us >= sample.p50_us, "{name}: {sample:?}");
    }

    let new = udp_new::run(datagrams, CLIENTS, 2 * POOL, Duration::from_secs(20)).unwrap();
    assert_eq!(new.operations + new.failures, u64::from(2 * POOL), "{new:?}");
    assert!(new.seconds < 20.0, "{new:?}");
}

#[test]
fn what_is_lost_is_counted_and_stops_nothing() {
    let every_tenth = proxy(|number, from, _| (number % 10 != 9).then_some(from));
    // (name, outcome)
    let rows = [
        ("ping", udp_windows::ping(every_tenth, CLIENTS, 4, WINDOW)),
        ("windows", udp_windows::plain(every_tenth, CLIENTS, 4, WINDOW)),
        ("new", udp_new::run(every_tenth, CLIENTS, POOL, WINDOW)),
    ];
    for (name, sample) in rows {
        let sample = sample.unwrap();
        assert!(sample.failures > 0 && sample.operations > 0, "{name}: {sample:?}");
    }
    // All flows exist at the end, whatever was lost at first.
    assert!(Table::open(every_tenth, CLIENTS, POOL).is_ok());
}

#[test]
fn a_reply_that_is_not_ones_own_is_a_failure() {
    let another_flow = proxy(|_, _, before| Some(before));
    let rows = [
        ("plain", udp_windows::ping(another_flow, CLIENTS, 4, WINDOW)),
        ("trains", udp_new::run(another_flow, CLIENTS, POOL, WINDOW)),
    ];
    for (name, outcome) in rows {
        let error = format!("{:#}", outcome.unwrap_err());
        assert!(error.contains("has arrived at flow"), "{name}: {error}");
    }
}

#[test]
fn silence_is_a_failure() {
    let silent = proxy(|_, _, _| None);
    assert!(answers(silent).is_err());
    let error = udp_windows::ping(silent, CLIENTS, 1, 2 * STALL).unwrap_err();
    assert!(format!("{error:#}").contains("nothing has come back"), "{error:#}");
}

#[test]
fn a_tag_survives_its_travel() {
    let tag = Tag { flow: 1, slot: 2, sequence: 3 };
    let mut datagram = [0; DATAGRAM];
    datagram[..Tag::LENGTH].copy_from_slice(&tag.to_bytes());
    assert_eq!(Tag::from_bytes(&datagram), Some(tag));

    let rows: [(&str, &[u8]); 3] =
        [("nothing", b""), ("cut short", &datagram[..Tag::LENGTH - 1]), ("something else", &datagram[1..])];
    for (name, bytes) in rows {
        assert_eq!(Tag::from_bytes(bytes), None, "{name}");
    }
}
