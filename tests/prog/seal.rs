//! Entries that are replaced while a program reads them: the kernel gives the memory of a removed entry to the next one
//! at once, so that a program may hold the value of another flow, or half of it. To meet that by chance a program would
//! have to be interrupted between two instructions for as long as two system calls take, so it is put into the maps here.

use rpxy_l4_common::map::{Flow, FlowKey, Hop, name};
use rpxy_l4_common::verdict::Counter;

use crate::fixture::HERE;
use crate::kernel::{Kernel, Program};
use crate::maps::{self, key, socket};
use crate::packet::{STATION, Udp};

const OURS: &str = "203.0.113.1:443";
const CLIENTS: [&str; 2] = ["192.0.2.10:40000", "192.0.2.11:50000"];
const UPSTREAMS: [&str; 2] = ["10.0.0.1:40000", "10.0.0.1:50000"];
const BACKENDS: [&str; 2] = ["10.0.1.1:443", "10.0.2.2:8443"];
const HOP: Hop = Hop { interface: 2, mtu: 1500, flags: 0, destination: [6; 6], source: [2; 6], seal: 0 };

fn packet(client: usize) -> Udp {
    Udp::new(CLIENTS[client].parse().unwrap(), OURS.parse().unwrap(), b"datagram")
}

fn flow_of(client: usize) -> (FlowKey, Flow) {
    let [from, to] = [CLIENTS[client], OURS].map(|text| text.parse().unwrap());
    let [source, destination] = [UPSTREAMS[client], BACKENDS[client]].map(|text| socket(text.parse().unwrap()));
    let way = Flow { hop: 5, interface: 2, ingress: HERE, station: STATION, ..Flow::default() };
    (key(from, to), Flow { source, destination, ..way })
}

#[test]
fn an_entry_that_is_not_whole_is_left_to_the_daemon() {
    let Some(mut kernel) = Kernel::or_skip() else { return };
    let (key, flow) = flow_of(0);
    let (other_key, other) = flow_of(1);
    let sealed = flow.sealed(&key);
    let hop = HOP.sealed(5);
    let rows = [
        ("whole", sealed, hop, Counter::Steered),
        ("of another key", other.sealed(&other_key), hop, Counter::EntryChanged),
        ("half of another one", Flow { destination: other.destination, ..sealed }, hop, Counter::EntryChanged),
        ("another next hop", Flow { hop: 6, ..sealed }, hop, Counter::EntryChanged),
        ("another way in", Flow { ingress: 2, ..sealed }, hop, Counter::EntryChanged),
        ("another station", Flow { station: [7; 6], ..sealed }, hop, Counter::EntryChanged),
        ("never written", Flow::default(), hop, Counter::EntryChanged),
        ("the hop of another key", sealed, HOP.sealed(6), Counter::EntryChanged),
        ("half of another hop", sealed, Hop { destination: [7; 6], ..hop }, Counter::EntryChanged),
    ];
    for (row, flow, hop, expected) in rows {
        kernel.put(name::FLOWS, key.to_bytes(), maps::entry(flow).to_bytes());
        kernel.set_hop(5, &hop);
        for program in Program::ALL {
            let bytes = packet(0).bytes();
            let outcome = kernel.run(program, &bytes, 0);
            assert_eq!(outcome.counter, expected, "{row}, {program:?}");
            assert_eq!(outcome.packet == bytes, expected != Counter::Steered, "{row}, {program:?}");
        }
    }
}
