//! Addresses and ports to listen on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    peers::{
        server::{Recorder, Server},
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{GATEWAY_INSIDE_V4, GATEWAY_INSIDE_V6, GATEWAY_V4, GATEWAY_V6, Topology},
};

use crate::support::{at, at_v6, front, front_v6};

const LOCALHOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCALHOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[test]
fn only_the_addresses_and_ports_of_the_file_are_open() {
    let v4 = IpAddr::from(GATEWAY_V4);
    let v6 = IpAddr::from(GATEWAY_V6);
    let inside = IpAddr::from(GATEWAY_INSIDE_V4);
    let inside_v6 = IpAddr::from(GATEWAY_INSIDE_V6);
    // What each configuration opens and leaves closed, asked from the gateway itself.
    type Places<'a> = &'a [(IpAddr, u16)];
    let rows: [(&str, Places<'_>, Places<'_>); 7] = [
        ("listen_port = 443", &[(v4, 443), (LOCALHOST_V4, 443)], &[(v6, 443), (LOCALHOST_V6, 443), (v4, 444)]),
        ("listen_port = 443\nlisten_ipv6 = true", &[(v4, 443), (v6, 443), (LOCALHOST_V6, 443)], &[]),
        ("listen_port = [443, 8443, 443]", &[(v4, 443), (v4, 8443)], &[(v4, 444)]),
        ("listen_port = 443\nlisten_address_v4 = \"192.0.2.1\"", &[(v4, 443)], &[(inside, 443), (LOCALHOST_V4, 443)]),
        (
            "listen_port = 443\nlisten_address_v4 = [\"192.0.2.1\", \"127.0.0.1\", \"192.0.2.1\"]",
            &[(v4, 443), (LOCALHOST_V4, 443)],
            &[(inside, 443)],
        ),
        // The IPv6 socket takes no IPv4, so the other IPv4 addresses stay closed.
        (
            "listen_port = 443\nlisten_address_v4 = \"127.0.0.1\"\nlisten_address_v6 = \"::\"",
            &[(LOCALHOST_V4, 443), (v6, 443), (inside_v6, 443)],
            &[(v4, 443)],
        ),
        (
            "listen_port = [443, 80]\nlisten_address_v6 = [\"[2001:db8:1::1]\", \"::1\"]",
            &[(v6, 443), (v6, 80), (LOCALHOST_V6, 80), (v4, 80)],
            &[(inside_v6, 443)],
        ),
    ];
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    for (listen, open, closed) in rows {
        let daemon = Daemon::start(&net.gateway, &format!("{listen}\ntcp_target = [\"{}\"]\n", at(7000)));
        for (ip, port) in open {
            let stream = socket::dial(&net.gateway, (*ip, *port));
            assert_eq!(socket::read_line(&stream).as_deref(), Some("served"), "{listen}: {ip} port {port}");
        }
        for (ip, port) in closed {
            let refused = socket::try_dial(&net.gateway, None, SocketAddr::new(*ip, *port));
            assert!(refused.is_err(), "{listen}: {ip} port {port} is open");
        }
        daemon.stop();
    }
}

#[test]
fn families_meet_in_every_combination() {
    let Some(net) = Topology::or_skip() else { return };
    let (v4, v6) = (Recorder::start(&net.backend, at(7000)), Recorder::start(&net.backend, at_v6(7000)));
    for (recorder, target) in [(&v4, at(7000)), (&v6, at_v6(7000))] {
        let config = format!("listen_port = 443\nlisten_ipv6 = true\ntcp_target = [\"{target}\"]\n");
        let daemon = Daemon::start(&net.gateway, &config);
        for to in [front(), front_v6()] {
            let stream = socket::dial(&net.client, to);
            let from = stream.local_addr().unwrap();
            socket::send(&stream, b"hello");
            socket::finish(&stream);
            let record = recorder.next();
            assert_eq!(record.bytes, b"hello", "{from} to {target}");
            assert_eq!(record.peer.is_ipv4(), target.is_ipv4());
            // A client of an IPv4 socket is never shown as ::ffff:192.0.2.10.
            daemon.wait_for(0, &format!("[finish] tcp: {from} -> {target}"));
        }
    }
}

#[test]
fn a_link_local_address_is_bound_on_its_interface() {
    let Some(net) = Topology::or_skip() else { return };
    net.gateway.ip("addr add fe80::aaaa/64 dev eth0 nodad").unwrap();
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let config = format!(
        "listen_port = 443\nlisten_address_v4 = \"127.0.0.1\"\nlisten_address_v6 = \"fe80::aaaa%eth0\"\n\
         tcp_target = [\"{}\"]\n",
        at(7000)
    );
    let _daemon = Daemon::start(&net.gateway, &config);
    net.client.ip("addr add fe80::bbbb/64 dev eth0 nodad").unwrap();
    // The client's own link-local address may still be tentative, so it uses the one without detection.
    let page = net.client.run(|| {
        let index =
            rustix::net::netdevice::name_to_index(std::net::UdpSocket::bind("[::1]:0").unwrap(), "eth0").unwrap();
        let to = std::net::SocketAddrV6::new("fe80::aaaa".parse().unwrap(), 443, 0, index);
        socket::read_line(&socket::dial(&net.client, to))
    });
    assert_eq!(page.as_deref(), Some("served"));
}

#[test]
fn an_address_that_comes_later_is_listened_on_if_asked_for() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let udp = UdpServer::echo(&net.backend, at(7002), "udp:");
    let later = IpAddr::from([192, 0, 2, 77]);
    let config = |free_bind: bool| {
        format!(
            "listen_port = 443\nlisten_address_v4 = \"{later}\"\nfree_bind = {free_bind}\ntcp_target = \"{}\"\n\
             udp_target = \"{}\"\n",
            at(7001),
            udp.address()
        )
    };
    let mut daemon = Daemon::start(&net.gateway, &config(false).replace(&later.to_string(), &GATEWAY_V4.to_string()));
    let line = daemon.reload_refused(Edit::Rename, &config(false));
    assert!(line.contains("set free_bind = true"), "{line}");
    daemon.reload(Edit::Rename, &config(true));
    net.gateway.ip(&format!("addr add {later}/24 dev eth0")).unwrap();
    let stream = socket::dial(&net.client, (later, 443));
    socket::send(&stream, b"x");
    assert_eq!(socket::read_line(&stream).as_deref(), Some("one"));
    assert_eq!(UdpClient::new(&net.client).ask_text((later, 443), "x"), "udp:x");
}
