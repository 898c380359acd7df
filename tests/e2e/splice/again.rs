//! Clients that use their port again: after an orderly end, after a reset, and after they vanished without a word.

use std::net::{SocketAddr, TcpStream};

use rpxy_l4_tests::{
    OrFail as _,
    peers::server::Server,
    process::PATIENCE,
    socket,
    topology::{CLIENT_V4, CLIENT_V6, Host, Topology},
    wait,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::mode::{Mode, Service, both_modes};

both_modes! {
    a_client_may_use_its_port_again,
}

const SERVICE: Service = Service(7000);
/// Port of the client.
const PORT: u16 = 20_000;
/// Connections from one port.
const TIMES: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Orderly,
    Reset,
    Vanished,
}

fn a_client_may_use_its_port_again(mode: Mode) {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = [false, true].map(|v6| Server::echo(&net.backend, SERVICE.back(v6)));
    let daemon = mode.start(&net, &[SERVICE]);
    // Otherwise the port of an orderly end rests for a minute, whoever is at the other end.
    net.client.sysctl("ipv4/tcp_tw_reuse", "1").unwrap();
    for (row, (end, v6)) in
        [End::Orderly, End::Reset, End::Vanished].into_iter().flat_map(|end| [(end, false), (end, true)]).enumerate()
    {
        let port = PORT + u16::try_from(row).unwrap();
        for time in 0..if end == End::Vanished { 3 } else { TIMES } {
            let what = format!("{mode:?}, {end:?}, {}, {time}", if v6 { "IPv6" } else { "IPv4" });
            let stream = dial_from(&net.client, port, SERVICE.front(v6), &what);
            for turn in 0..5 {
                let message = format!("{what}, {turn}");
                socket::send(&stream, message.as_bytes());
                assert_eq!(socket::read_exactly(&stream, message.len()), message.as_bytes(), "{what}");
            }
            match end {
                End::Orderly => {
                    socket::finish(&stream);
                    assert_eq!(socket::read_to_end(&stream).0, b"", "{what}");
                }
                End::Reset => socket::reset(stream),
                End::Vanished => {
                    nft(
                        &net.client,
                        "add table inet silence; \
                        add chain inet silence out { type filter hook output priority 0; }; \
                        add rule inet silence out tcp flags & rst == rst drop",
                    );
                    socket::reset(stream);
                    nft(&net.client, "delete table inet silence");
                }
            }
        }
    }
    assert_eq!(mode.count_spliced(&daemon) > 0, mode == Mode::Spliced);
}

fn nft(host: &Host, rules: &str) {
    assert!(host.command("nft").arg(rules).status().unwrap().success(), "{rules}");
}

/// Connects from `port`, which may be in TIME_WAIT for a moment: its next use wants a later timestamp (RFC 6191).
#[track_caller]
fn dial_from(host: &Host, port: u16, to: SocketAddr, what: &str) -> TcpStream {
    let from = if to.is_ipv4() { SocketAddr::from((CLIENT_V4, port)) } else { (CLIENT_V6, port).into() };
    wait::until(&format!("the port can be used again: {what}"), || {
        let dialled = host.run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            socket.set_tcp_nodelay(true)?;
            Ok::<_, std::io::Error>(socket)
        });
        match dialled {
            Ok(socket) => Some(socket::guard(socket.into()).or_fail("time limits")),
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => None,
            Err(error) => panic!("{what}: {error}"),
        }
    })
}
