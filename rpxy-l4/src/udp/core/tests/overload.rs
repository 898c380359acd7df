//! More than a worker can read: who is served first.

use super::{
    evidence::{CLIENT, DCID, SERVER, VICTIM, beginning, config, established},
    packets::{first, short, wireguard},
    *,
};
use crate::udp::core::overload::{LEAST, STANDING};

/// A worker with one established connection whose queue has stood for a while, and whose allowance is used up.
fn overloaded() -> (Bench, SessionId) {
    let mut bench = Bench::new(&format!("{}{}", config(), rule("tunnel", "wireguard", 3, "")));
    let session = established(&mut bench, flow(1), "a.test", SERVER);
    let since = bench.now;
    bench.now += STANDING;
    bench.sessions.handle_backlog(since, bench.now);
    for n in 0..u16::try_from(LEAST).unwrap() {
        bench.client(flow(1000 + n), b"junk");
    }
    assert_eq!(bench.drops(DatagramDrop::Overloaded), 0);
    assert_eq!(bench.ports().len(), usize::try_from(LEAST).unwrap(), "some begin whatever comes");
    (bench, session)
}

#[test]
fn what_is_known_or_selects_a_rule_goes_before_what_anybody_can_make_up() {
    let stun = beginning(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], 20);
    let made_up = beginning(b"\x41\xf1\x02\xe3\x04\xd5\x06\xc7\x08", 60);
    for (row, from, datagram, expected) in [
        ("an established connection", 1, short(SERVER), Some(1)),
        ("one that comes back from another address", VICTIM, short(SERVER), Some(1)),
        ("a hello", VICTIM, first(b"client-b", b"destin-b", "tenant.test"), Some(2)),
        ("an initiation", VICTIM, wireguard(1, 7, 0, 148), Some(3)),
        ("more for a session of the default target", 1000, b"junk".to_vec(), Some(9)),
        ("a new client of the default target", VICTIM, b"junk".to_vec(), None),
        ("a stray", VICTIM, made_up, None),
        ("another protocol beside a connection", 1, stun, None),
    ] {
        let (mut bench, _) = overloaded();
        bench.client(flow(from), &datagram);
        assert_eq!(bench.ports(), Vec::from_iter(expected), "{row}");
        assert_eq!(bench.drops(DatagramDrop::Overloaded), u32::from(expected.is_none()), "{row}");
    }
}

#[test]
fn a_stray_that_its_address_gives_a_target_is_no_better() {
    let config = format!("orphan = \"balance\"\n{TOP}{}", rule("a", "quic", 1, ""));
    let mut bench = Bench::new(&config);
    let (since, made_up) = (bench.now, beginning(b"\x41\xf1\x02\xe3\x04\xd5\x06\xc7\x08", 60));
    bench.now += STANDING;
    bench.sessions.handle_backlog(since, bench.now);
    for n in 0..u16::try_from(LEAST).unwrap() + 1 {
        bench.client(flow(n), &made_up);
    }
    assert_eq!((bench.drops(DatagramDrop::Overloaded), bench.ports().len()), (1, usize::try_from(LEAST).unwrap()));
    bench.client(flow(500), &first(CLIENT, DCID, "a.test"));
    assert_eq!(bench.ports(), [1]);
}
