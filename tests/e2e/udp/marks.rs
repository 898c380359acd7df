//! DSCP and ECN: the one byte of a datagram's header that both planes carry over.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use rpxy_l4_tests::{
    daemon::Daemon,
    hello::Hello,
    initial::{self, Initial},
    peers::udp,
    process::PATIENCE,
    topology::{CLIENT_V4, CLIENT_V6, Host, Topology},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::support::{PORT, at, at_v6, front, front_v6, rule, udp_to};

rpxy_l4_tests::offload_modes! {
    Steered {
        marks_of_any_datagrams_pass_both_ways,
        marks_of_quic_over_ipv6_pass_both_ways,
    }
}

/// Expedited forwarding (RFC 3246), and ECT(0).
const UP: u8 = 0xb8 | 0b10;
/// A class of assured forwarding (RFC 2597), and ECT(1).
const DOWN: u8 = 0x28 | 0b01;

fn marks_of_any_datagrams_pass_both_ways() {
    let Some(net) = Topology::or_skip() else { return };
    let _daemon = Daemon::start(&net.gateway, &udp_to(at(7000), ""));
    let text = |what: &str, round| format!("{what} {round}").into_bytes();
    marks_pass(&net, CLIENT_V4.into(), front(), at(7000), |round| (text("question", round), text("answer", round)));
}

fn marks_of_quic_over_ipv6_pass_both_ways() {
    const CLIENT_ID: [u8; 8] = *b"\xfeclient!";
    const SERVER_ID: [u8; 8] = *b"\xfeserver!";
    let Some(net) = Topology::or_skip() else { return };
    let config = format!("listen_port = {PORT}\nlisten_ipv6 = true\n") + &rule("one", "quic", at_v6(7000), "");
    let _daemon = Daemon::start(&net.gateway, &config);
    let hello = Initial::v1(&[1; 8], &CLIENT_ID).datagrams(&Hello::to("one.test")).remove(0);
    marks_pass(&net, CLIENT_V6.into(), front_v6(), at_v6(7000), |round| match round {
        0 => (hello.clone(), initial::from_server(&CLIENT_ID, &SERVER_ID)),
        _ => (
            [initial::short_header(&SERVER_ID), vec![round]].concat(),
            [initial::short_header(&CLIENT_ID), vec![round]].concat(),
        ),
    });
}

/// Sends the question and the answer of each round, no two alike, and looks at what arrives. The first round passes through
/// the daemon, the last one may not.
fn marks_pass(
    net: &Topology,
    from: IpAddr,
    front: SocketAddr,
    back: SocketAddr,
    round: impl Fn(u8) -> (Vec<u8>, Vec<u8>),
) {
    let (at_client, at_backend) = (Wire::of(&net.client), Wire::of(&net.backend));
    let (client, server) = (marked(&net.client, (from, 0).into(), UP), marked(&net.backend, back, DOWN));
    let mut buffer = [0; 2048];
    for number in 0..6 {
        let (question, answer) = round(number);
        client.send_to(&question, front).unwrap();
        let (_, source) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(at_backend.mark_of(&question), UP, "question {number}");
        server.send_to(&answer, source).unwrap();
        client.recv_from(&mut buffer).unwrap();
        assert_eq!(at_client.mark_of(&answer), DOWN, "answer {number}");
    }
}

/// A UDP socket whose datagrams leave with `mark`, bound to `address` of `host`.
fn marked(host: &Host, address: SocketAddr, mark: u8) -> UdpSocket {
    let socket = udp::bind(host, address).unwrap();
    let options = SockRef::from(&socket);
    match address {
        SocketAddr::V4(_) => options.set_tos_v4(mark.into()).unwrap(),
        SocketAddr::V6(_) => options.set_tclass_v6(mark.into()).unwrap(),
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A host's packets with their IP headers.
struct Wire {
    packets: Socket,
}

impl Wire {
    fn of(host: &Host) -> Self {
        // ETH_P_ALL, in network order (packet(7)).
        let all = Protocol::from(i32::from(3_u16.to_be()));
        let packets = host.run(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(all)).unwrap());
        packets.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { packets }
    }

    /// The type of service or traffic class of the next packet with this payload.
    #[track_caller]
    fn mark_of(&self, payload: &[u8]) -> u8 {
        let mut packet = [0; 2048];
        loop {
            let length = (&self.packets).read(&mut packet).unwrap();
            if packet[..length].ends_with(payload) {
                let [first, second, ..] = packet;
                return if first >> 4 == 4 { second } else { first << 4 | second >> 4 };
            }
        }
    }
}
