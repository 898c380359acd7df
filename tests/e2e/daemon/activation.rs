//! Listening sockets that the service manager has opened (LISTEN_FDS).

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use rpxy_l4_tests::{
    daemon::{Builder, Daemon, Edit},
    owned,
    peers::{
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, Topology},
    wait,
};

use crate::support::{PORT, at, front, reached_by};

/// What systemd does before it executes a service: opens sockets (`tcp PORT`, `udp PORT` or `unix PATH` each), passes them
/// on from descriptor 3 up, and says so to the process that it becomes.
const ACTIVATOR: &str = r#"
use Socket; use POSIX ();
$^F = 255;
my $count = shift @ARGV; my $names = shift @ARGV; my @sockets;
for (1 .. $count) {
    my ($kind, $at) = (shift @ARGV, shift @ARGV);
    my $stream = $kind ne "udp";
    my $domain = $kind eq "unix" ? PF_UNIX : PF_INET;
    socket(my $socket, $domain, $stream ? SOCK_STREAM : SOCK_DGRAM, 0) or die "socket: $!";
    setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1) if $kind eq "tcp";
    bind($socket, $kind eq "unix" ? sockaddr_un($at) : sockaddr_in($at, INADDR_ANY)) or die "bind $kind $at: $!";
    if ($stream) { listen($socket, 64) or die "listen: $!"; }
    push @sockets, $socket;
}
# Out of the way of the numbers that they get.
my @high = map { POSIX::dup2(fileno($_), 100 + $_[0]++) // die } @sockets;
my $next = 3;
for (100 .. 99 + $count) { POSIX::dup2($_, $next++) // die "dup2: $!"; POSIX::close($_); }
@ENV{qw(LISTEN_FDS LISTEN_PID LISTEN_FDNAMES)} = ($count, $$, $names);
exec { $ARGV[0] } @ARGV or die "exec: $!";
"#;

/// Has the daemon get these sockets with these names.
fn activated(builder: Builder, sockets: &[(&str, &str, &str)]) -> Builder {
    let names: Vec<&str> = sockets.iter().map(|(name, ..)| *name).collect();
    let mut command = vec!["perl".to_owned(), "-e".to_owned(), ACTIVATOR.to_owned(), "--".to_owned()];
    command.extend([sockets.len().to_string(), names.join(":")]);
    command.extend(sockets.iter().flat_map(|(_, kind, at)| [(*kind).to_owned(), (*at).to_owned()]));
    builder.through(command)
}

#[test]
fn sockets_that_were_passed_on_are_served_also_after_a_reload() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::tagged(&net.backend, at(7000), "served");
    let udp = UdpServer::echo(&net.backend, at(7000), "");
    let directory = owned::directory();
    let path = directory.path().join("in.sock").display().to_string();
    let config = |keys: &str| {
        format!(
            "listen_port = {PORT}\nworkers = 3\n{keys}\ntcp_target = \"{target}\"\n[listeners.wg]\nlisten_port = 51820\n\
             udp_target = \"{target}\"\n[listeners.local]\nlisten_unix = \"{path}\"\ntcp_target = \"{target}\"\n",
            target = at(7000)
        )
    };
    let port = PORT.to_string();
    let sockets = [("default", "tcp", port.as_str()), ("wg", "udp", "51820"), ("local", "unix", path.as_str())];
    // Without the right to open a port below 1024 itself.
    let mut daemon = activated(Daemon::builder(&config("")), &sockets).start(&net.gateway);
    let is_served = |row: &str| {
        // As many as there would be to miss a worker that does not accept.
        for _ in 0..12 {
            assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"), "{row}");
        }
        let mut local = UnixStream::connect(&path).unwrap();
        local.write_all(b"x").unwrap();
        local.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        local.read_to_string(&mut text).unwrap();
        assert_eq!(text.trim(), "served", "{row}");
    };
    let clients: Vec<_> = (0..8).map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0))).collect();
    let wg = std::net::SocketAddr::from((front().ip(), 51820));
    is_served("at first");
    for client in &clients {
        assert_eq!(client.ask(wg, b"one"), b"one");
    }
    daemon.reload(Edit::Rename, &config("tcp_target_retry = \"1s\""));
    is_served("after a reload");
    for client in &clients {
        assert_eq!(client.ask(wg, b"two"), b"two");
    }
    let ports: std::collections::BTreeSet<_> = udp.received().into_iter().map(|datagram| datagram.source).collect();
    assert_eq!(ports.len(), 8, "the sessions have gone on");

    // Without its listener a socket waits; with it, it is served again.
    let without = format!("listen_port = 8443\nworkers = 3\ntcp_target = \"{}\"\n", at(7000));
    daemon.allow("clients that come there wait");
    daemon.reload(Edit::Rename, &without);
    assert_eq!(daemon.lines_with("clients that come there wait").len(), 3);
    let waiting = socket::dial(&net.client, front());
    daemon.reload(Edit::Rename, &config(""));
    socket::send(&waiting, b"x");
    assert_eq!(socket::read_line(&waiting).as_deref(), Some("served"));
    is_served("served again");
    daemon.stop();
    assert!(std::path::Path::new(&path).exists(), "the file is not the daemon's to remove");
}

#[test]
fn sockets_that_do_not_fit_stop_the_start_with_a_remedy() {
    let Some(net) = Topology::or_skip() else { return };
    let config = format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n", at(7000));
    for (row, socket, said) in [
        (
            "another port",
            ("default", "tcp", "8443"),
            "is not where the listener \"default\" listens, which is on 0.0.0.0:443",
        ),
        ("its unit's name", ("rpxy-l4.socket", "tcp", "443"), "set FileDescriptorName=default in its .socket unit"),
        ("no such listener", ("wg", "tcp", "8443"), "is of no listener"),
        ("no UDP there", ("default", "udp", "443"), "the listener \"default\" does not listen on UDP"),
    ] {
        let mut daemon = activated(Daemon::builder(&config), &[socket]).launch(&net.gateway);
        assert_eq!(daemon.wait().code(), Some(1), "{row}");
        let text = daemon.process().lines().join("\n");
        assert!(text.contains(said), "{row}: {text}");
    }
}

#[test]
fn variables_for_another_process_are_not_believed() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::tagged(&net.backend, at(7000), "served");
    let config = format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n", at(7000));
    let builder = Daemon::builder(&config).env("LISTEN_FDS", "2").env("LISTEN_PID", "1");
    let _daemon = builder.start(&net.gateway);
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"));
    let not_open = Daemon::builder(&config).through(["sh", "-c", "LISTEN_FDS=9 LISTEN_PID=$$ exec \"$@\"", "sh"]);
    let mut daemon = not_open.launch(&net.gateway);
    assert_eq!(daemon.wait().code(), Some(1));
    wait::until("it says why", || {
        let text = daemon.process().lines().join("\n");
        (text.contains("LISTEN_FDS = 9") && text.contains("is not open")).then_some(())
    });
}
