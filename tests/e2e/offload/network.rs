//! Steered flows while the network around them changes.

use std::net::{SocketAddr, SocketAddrV4};

use rpxy_l4_tests::{
    peers::{
        programs,
        udp::{UdpClient, UdpServer},
    },
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_INSIDE_V4, Host, Topology},
    wait,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::support::{
    at, front,
    steering::{Steering, with_object},
};

const MODES: [&str; 2] = ["tc", "xdp-generic"];

/// A steered session with an echo server.
struct Echo {
    steering: Steering,
    client: UdpClient,
    server: UdpServer,
}

impl Echo {
    fn start(net: &Topology, mode: &str) -> Self {
        let server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(net, at(7000), &format!("mode = \"{mode}\""), "");
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        let echo = Self { steering, client, server };
        assert_eq!(echo.client.ask_text(front(), "first"), "first");
        echo.is_steered(mode);
        echo
    }

    /// Exchanges some datagrams, all of which the kernel forwards.
    #[track_caller]
    fn is_steered(&self, when: &str) {
        self.steering.wait_steered(self.client.address());
        self.steering.wait_forwarded(2, || self.client.ask_again(front(), "ready?"));
        let before = self.steering.counted("steered");
        for n in 0..10 {
            self.client.ask_again(front(), &format!("{when} {n}"));
        }
        let after = self.steering.counted("steered");
        assert!(after >= before + 20, "{when}: {before} to {after} of 20, {}", self.steering.kernel_plane());
    }

    /// Waits until answers come again. Those of the first questions, which wait for the neighbour, may come later still.
    fn wait_for_answers(&self) {
        wait::until("answers come again", || self.client.try_ask(front(), b"there?"));
    }
}

/// Packets that a host has sent out of an interface.
fn sent(host: &Host, interface: &str) -> u64 {
    let shown = programs::text(host.command("ip").args(["-j", "-s", "link", "show", interface]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}

#[test]
fn a_neighbour_may_change_its_ethernet_address() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        let echo = Echo::start(&net, mode);
        // It tells its neighbours, as a system does that takes an address over.
        net.backend.sysctl("ipv4/conf/eth0/arp_notify", "1").unwrap();
        net.backend.ip("link set dev eth0 address 02:00:00:00:be:ef").unwrap();
        echo.wait_for_answers();
        echo.is_steered(mode);
    }
}

#[test]
fn packets_follow_a_route_that_changes() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        let second = format!("link add eth2 type veth peer name eth1 netns {}", net.backend.name());
        net.gateway.ip(&second).unwrap();
        for line in ["addr add 203.0.113.1/24 dev eth2", "link set eth2 up"] {
            net.gateway.ip(line).unwrap();
        }
        for line in ["addr add 203.0.113.2/24 dev eth1", "link set eth1 up"] {
            net.backend.ip(line).unwrap();
        }
        let echo = Echo::start(&net, mode);
        let by = || ["eth1", "eth2"].map(|interface| sent(&net.gateway, interface));
        net.gateway.ip(&format!("route add {}/32 via 203.0.113.2 dev eth2", BACKENDS_V4[0])).unwrap();
        // Answers that come by the old one would pass through the daemon.
        net.backend.ip(&format!("route add {GATEWAY_INSIDE_V4}/32 via 203.0.113.1 dev eth1")).unwrap();
        wait::until("packets leave by the other interface", || {
            let [_, before] = by();
            let steered = echo.steering.counted("steered");
            echo.client.try_ask(front(), b"there?")?;
            (by()[1] > before && echo.steering.counted("steered") >= steered + 2).then_some(())
        });
        let before = by();
        echo.is_steered(mode);
        let after = by();
        assert!(after[1] >= before[1] + 10 && after[0] < before[0] + 10, "{mode}: {before:?} to {after:?}");
        net.gateway.ip(&format!("route del {}/32", BACKENDS_V4[0])).unwrap();
        net.backend.ip(&format!("route del {GATEWAY_INSIDE_V4}/32")).unwrap();
        echo.wait_for_answers();
        echo.is_steered(mode);
    }
}

#[test]
fn an_interface_may_go_down_and_come_back() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        let echo = Echo::start(&net, mode);
        net.gateway.ip("link set eth1 down").unwrap();
        assert_eq!(echo.client.try_ask(front(), b"lost"), None, "{mode}");
        net.gateway.ip("link set eth1 up").unwrap();
        echo.wait_for_answers();
        echo.is_steered(mode);
    }
}

/// Tells the sender of UDP packets from `from` to `to` that a router on the way takes no more than `mtu` bytes (RFC 1191).
fn say_too_big(host: &Host, from: SocketAddrV4, to: SocketAddrV4, mtu: u16) {
    let quoted = [
        &[0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 17, 0, 0][..],
        &from.ip().octets(),
        &to.ip().octets(),
        &from.port().to_be_bytes(),
        &to.port().to_be_bytes(),
        &[5, 0xc8, 0, 0],
    ]
    .concat();
    let mut message = [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), &quoted].concat();
    let words = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    host.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        socket.send_to(&message, &SockAddr::from(SocketAddrV4::new(*from.ip(), 0))).unwrap();
    });
}

/// Datagrams that have become too large for a path are fragmented, as they are in userspace.
#[test]
fn a_router_may_say_that_packets_are_too_big() {
    for mode in MODES {
        let Some(net) = with_object() else { return };
        let echo = Echo::start(&net, mode);
        let large = "x".repeat(1400);
        let large_is_steered = || {
            let before = echo.steering.counted("mtu");
            echo.client.ask_again(front(), &large);
            echo.steering.counted("mtu") == before
        };
        assert!(large_is_steered(), "{mode}");
        let SocketAddr::V4(upstream) = echo.server.received()[0].source else { panic!("IPv4") };
        say_too_big(&net.backend, upstream, SocketAddrV4::new(BACKENDS_V4[0], 7000), 1280);
        wait::until("what is too large is not steered", || (!large_is_steered()).then_some(()));
        echo.is_steered(mode);
    }
}
