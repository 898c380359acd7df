//! Unix sockets at both ends: clients of this machine, and backends on it.

use std::{
    io::Write as _,
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    hello::Hello,
    peers::{
        programs::{haproxy, nginx, text},
        server::{Recorder, Server},
    },
    socket,
    topology::{CLIENT_V4, GATEWAY_V4, Topology},
    wait,
};
use rustix::process::Signal;

use crate::support::{PORT, at, front, http_request, rule};

/// A directory for sockets.
struct Sockets(tempfile::TempDir);

impl Sockets {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// What comes back for `request` at `path`, until the end.
fn ask(path: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    answer
}

#[test]
fn clients_come_by_a_unix_socket_under_rules_of_its_own() {
    let Some(net) = Topology::or_skip() else { return };
    let sockets = Sockets::new();
    let path = sockets.path("in.sock");
    let _web = Server::tagged(&net.backend, at(7001), "web");
    let _echo = Server::echo(&net.backend, at(7002));
    let config = |keys: &str| {
        format!(
            "listen_port = {PORT}\ntcp_target = \"{}\"\nallow = \"{CLIENT_V4}\"\ntcp_max_connections_per_source = 1\n\
             [listeners.local]\nlisten_unix = \"{}\"\n{keys}\ntcp_target = \"{}\"\n{}",
            at(7001),
            path.display(),
            at(7002),
            rule("tls", "tls", at(7001), "listeners = \"local\"")
        )
    };
    let mut daemon = Daemon::start(&net.gateway, &config("listen_unix_mode = \"0660\""));
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o660);
    assert_eq!(ask(&path, b"hello"), b"hello");
    assert_eq!(ask(&path, &Hello::to("one.test").bytes()), b"web\n");
    daemon.wait_for(0, &format!("[start] tcp: unix:{} -> {}", path.display(), at(7002)));
    daemon.wait_for(0, &format!("[finish] tcp:tls: unix:{} -> {}", path.display(), at(7001)));
    daemon.reload(Edit::Rename, &config(""));
    assert_eq!(mode(), 0o600, "a reload closes the open socket to others");
    // Who is turned away has no address either. SSH is for a rule that the listener has not.
    daemon.reload(Edit::Rename, &config("").replace(&format!("tcp_target = \"{}\"\n", at(7002)), ""));
    assert_eq!(ask(&path, b"SSH-2.0-x\r\n"), b"");
    let shown = path.display();
    daemon.wait_for(0, &format!("[refused] tcp: unix:{shown} -> unix:{shown}: not_recognised"));
    daemon.reload(Edit::Rename, &config("listen_unix_mode = \"0660\""));
    assert_eq!(mode(), 0o660, "a reload opens it to others");
    // Bulk in both directions, and several at once: what is said of one source is not said of them.
    let bulk = vec![7; 4 << 20];
    let held = UnixStream::connect(&path).unwrap();
    std::thread::scope(|scope| {
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let bulk = &bulk;
        scope.spawn(move || {
            writer.write_all(bulk).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut back).unwrap();
        assert!(back == *bulk, "{} bytes came back", back.len());
    });
    drop(held);

    // Without the listener the file goes; what a killed daemon has left is replaced.
    daemon.reload(Edit::Rename, &format!("listen_port = {PORT}\ntcp_target = \"{}\"\n", at(7001)));
    wait::until("the file is gone", || (!path.exists()).then_some(()));
    daemon.reload(Edit::Rename, &config(""));
    assert_eq!((mode(), ask(&path, b"hello")), (0o600, b"hello".to_vec()));
    daemon.process().signal(Signal::KILL).unwrap();
    daemon.wait();
    assert!(path.exists());
    let again = Daemon::start(&net.gateway, &config(""));
    assert_eq!(ask(&path, b"hello"), b"hello");
    again.stop();
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_in_use_or_in_a_missing_directory_is_refused_with_a_remedy() {
    let Some(net) = Topology::or_skip() else { return };
    let sockets = Sockets::new();
    let used = UnixListener::bind(sockets.path("used.sock")).unwrap();
    // Sockets are made in directories that were there at the start.
    let base = format!(
        "listen_port = {PORT}\ntcp_target = \"{0}\"\n[listeners.here]\nlisten_unix = \"{1}\"\ntcp_target = \"{0}\"\n",
        at(7001),
        sockets.path("here.sock").display()
    );
    let mut daemon = Daemon::start(&net.gateway, &base);
    for (name, said) in [("used.sock", "another process listens there"), ("none/in.sock", "create it")] {
        let line = daemon.reload_refused(
            Edit::Rename,
            &format!(
                "{base}[listeners.l]\nlisten_unix = \"{}\"\ntcp_target = \"{}\"\n",
                sockets.path(name).display(),
                at(7001)
            ),
        );
        assert!(line.contains(said), "{line}");
    }
    drop(used);
}

#[test]
fn curl_reaches_nginx_over_unix_sockets_at_both_ends() {
    let Some(net) = Topology::or_skip() else { return };
    let sockets = Sockets::new();
    let (front_path, back) = (sockets.path("in.sock"), sockets.path("nginx.sock"));
    let http = format!(
        "server {{ listen unix:{} proxy_protocol; location / {{ return 200 \"$proxy_protocol_addr $host\\n\"; }} }}",
        back.display()
    );
    let _nginx = nginx(&net.gateway, &http, "", &[]);
    wait::until("nginx listens", || back.exists().then_some(()));
    let config = format!(
        "listen_port = {PORT}\n[listeners.local]\nlisten_unix = \"{}\"\n[protocols.web]\nprotocol = \"http\"\n\
         target = \"unix:{}\"\nsend_proxy_protocol = \"v2\"\nlisteners = [\"default\", \"local\"]\n",
        front_path.display(),
        back.display()
    );
    let daemon = Daemon::start(&net.gateway, &config);
    let mut over_unix = net.gateway.command("curl");
    over_unix.args(["-sS", "--max-time", "20", "--unix-socket"]).arg(&front_path).arg("http://one.test/");
    assert_eq!(text(over_unix.stderr(Stdio::inherit())), " one.test", "LOCAL: nginx has no client to tell");
    let mut over_tcp = net.client.command("curl");
    over_tcp.args(["-sS", "--max-time", "20"]).arg(format!("http://{GATEWAY_V4}:{PORT}/"));
    assert_eq!(text(over_tcp.stderr(Stdio::inherit())), format!("{CLIENT_V4} {GATEWAY_V4}"));
    daemon.wait_for(0, &format!("-> unix:{}", back.display()));
}

#[test]
fn a_load_balancer_before_a_unix_socket_introduces_its_clients() {
    let Some(net) = Topology::or_skip() else { return };
    let sockets = Sockets::new();
    let path = sockets.path("in.sock");
    let recorder = Recorder::start(&net.backend, at(7001));
    let config = format!(
        "[listeners.local]\nlisten_unix = \"{}\"\ntcp_recv_proxy_protocol = true\ntcp_send_proxy_protocol = \"v1\"\n\
         deny = \"203.0.113.0/24\"\ntcp_target = \"{}\"\n",
        path.display(),
        at(7001)
    );
    let daemon = Daemon::start(&net.gateway, &config);
    let sections = format!(
        "frontend f\n  bind {}:8080\n  mode tcp\n  default_backend b\nbackend b\n  mode tcp\n  server s unix@{} send-proxy-v2\n",
        GATEWAY_V4,
        path.display()
    );
    let _haproxy = haproxy(&net.gateway, &sections, &[8080]);
    let stream = socket::dial(&net.client, (GATEWAY_V4, 8080));
    socket::send(&stream, b"x");
    socket::finish(&stream);
    let got = recorder.next().bytes;
    let expected = format!("PROXY TCP4 {CLIENT_V4} {GATEWAY_V4} ");
    assert!(got.starts_with(expected.as_bytes()), "{:?}", String::from_utf8_lossy(&got));
    daemon.wait_for(0, &format!("[start] tcp: {CLIENT_V4}:"));
    // Who is denied is the client in the header.
    assert_eq!(ask(&path, b"PROXY TCP4 203.0.113.7 192.0.2.1 5 443\r\nx"), b"");
    // A header that tells no client, and what becomes of it.
    let _nobody = ask(&path, b"PROXY UNKNOWN\r\nx");
    assert_eq!(recorder.next().bytes, b"PROXY UNKNOWN\r\nx");
}

#[test]
fn a_unix_backend_that_is_gone_is_tried_last() {
    let Some(net) = Topology::or_skip() else { return };
    let sockets = Sockets::new();
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let config = format!(
        "listen_port = {PORT}\n[protocols.web]\nprotocol = \"http\"\ntarget = [\"unix:{}\", \"{}\"]\n",
        sockets.path("none.sock").display(),
        at(7001)
    );
    let daemon = Daemon::builder(&config).allow("cannot be reached").start(&net.gateway);
    for _ in 0..2 {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, &http_request("one.test"));
        assert_eq!(socket::read_line(&stream).as_deref(), Some("one"));
    }
    daemon.wait_for(0, "none.sock cannot be reached");
    assert_eq!(daemon.lines_with("cannot be reached").len(), 1);
}
