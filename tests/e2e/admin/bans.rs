//! Bans by command: a banned network gets nothing, and is let in again.

use std::path::Path;

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{Daemon, Edit},
    owned,
    peers::{
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket::{self, End},
    topology::{CLIENT_V4, CLIENT_V6, Topology, client_pool},
    wait,
};
use serde_json::{Value, json};

use crate::support::{PORT, at, front, front_v6};

fn config(socket: &Path, keys: &str) -> String {
    let (socket, target) = (socket.display(), at(7000));
    format!(
        "listen_port = {PORT}\nlisten_ipv6 = true\nadmin_socket = \"{socket}\"\n{keys}\ntcp_target = [\"{target}\"]\n\
         udp_target = [\"{target}\"]\n"
    )
}

fn ban(network: &str) -> Value {
    json!({ "command": "ban", "network": network })
}

fn unban(network: &str) -> Value {
    json!({ "command": "unban", "network": network })
}

/// Returns true when connections from there are served.
fn connects(net: &Topology, source: impl Into<std::net::IpAddr>, to: std::net::SocketAddr) -> bool {
    socket::read_line(&socket::dial_from(&net.client, source, to)).as_deref() == Some("served")
}

#[test]
fn a_ban_drops_datagrams_and_connections_until_it_is_lifted() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::tagged(&net.backend, at(7000), "served");
    let udp = UdpServer::echo(&net.backend, at(7000), "");
    let directory = owned::directory();
    let path = directory.path().join("socket");
    let daemon = Daemon::start(&net.gateway, &config(&path, "access_log_format = \"json\""));
    let mut admin = Admin::connect(&path);
    let [client, other] = [CLIENT_V4, client_pool(0)].map(|source| UdpClient::bind(&net.client, (source, 0)));
    client.ask(front(), b"before");
    other.ask(front(), b"before");

    let network = format!("{CLIENT_V4}/32");
    let told = admin.ask(&ban(&CLIENT_V4.to_string()));
    assert_eq!(told, [json!({ "network": network, "banned": true, "source": "command" })]);
    // The session ends at once, the other client's does not.
    let finish = daemon.wait_for(0, "\"finish\"");
    assert!(finish.contains("\"reason\":\"banned\"") && finish.contains(&client.address().to_string()), "{finish}");
    let flows = admin.ask(&json!({ "command": "flows" }));
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0]["client"], other.address().to_string());

    assert_eq!(client.try_ask(front(), b"banned"), None);
    // The same worker or another one: a new flow is refused alike.
    let fresh = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    fresh.send(front(), b"banned");
    let stream = socket::dial_from(&net.client, CLIENT_V4, front());
    assert_eq!(socket::read_to_end(&stream), (Vec::new(), End::Closed));
    assert_eq!(other.ask(front(), b"still here"), b"still here");
    assert!(connects(&net, client_pool(0), front()));
    assert!(connects(&net, CLIENT_V6, front_v6()));
    assert!(!udp.payloads().iter().any(|payload| payload == b"banned"));
    assert_eq!(admin.ask(&json!({ "command": "status" }))[0]["bans"], 1);

    admin.ask(&unban(&network));
    assert_eq!(client.ask(front(), b"again"), b"again");
    assert!(connects(&net, CLIENT_V4, front()));
    assert!(admin.ask(&json!({ "command": "bans" })).is_empty());
    assert_eq!(daemon.lines_with("banned by command: ").len(), 1);
}

#[test]
fn an_ipv6_network_is_banned_by_its_prefix() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::tagged(&net.backend, at(7000), "served");
    let directory = owned::directory();
    let path = directory.path().join("socket");
    let _daemon = Daemon::start(&net.gateway, &config(&path, ""));
    let mut admin = Admin::connect(&path);
    let told = admin.ask(&ban(&format!("{CLIENT_V6}/64")));
    assert_eq!(told[0]["network"], "2001:db8:1::/64");
    assert!(!connects(&net, CLIENT_V6, front_v6()));
    assert!(connects(&net, CLIENT_V4, front()));
    admin.ask(&ban("0.0.0.0/0"));
    assert!(!connects(&net, CLIENT_V4, front()));
    admin.ask(&unban("2001:db8:1::/64"));
    assert!(connects(&net, CLIENT_V6, front_v6()));
}

#[test]
fn bans_by_command_outlive_a_reload() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::tagged(&net.backend, at(7000), "served");
    let directory = owned::directory();
    let [path, moved] = ["socket", "moved"].map(|name| directory.path().join(name));
    let mut daemon = Daemon::start(&net.gateway, &config(&path, ""));
    let mut admin = Admin::connect(&path);
    admin.ask(&ban("192.0.2.0/24"));
    admin.ask(&ban(&CLIENT_V4.to_string()));
    let bans = |admin: &mut Admin| admin.ask(&json!({ "command": "bans" }));
    let before = bans(&mut admin);
    assert_eq!(before.len(), 2);
    daemon.reload(Edit::Rename, &config(&path, "tcp_backlog = 99"));
    assert_eq!(bans(&mut admin), before);
    daemon.reload(Edit::InPlace, &config(&moved, ""));
    let mut admin = Admin::connect(&moved);
    assert_eq!(bans(&mut admin), before);
    assert!(!connects(&net, CLIENT_V4, front()));

    // What still covers a network is told.
    let told = admin.ask(&unban(&CLIENT_V4.to_string()));
    assert_eq!(told, [json!({ "network": format!("{CLIENT_V4}/32"), "banned": true, "source": "command" })]);
    let refused = admin.refused(format!("{}\n", unban(&CLIENT_V4.to_string())).as_bytes());
    assert_eq!(refused["remedy"], "unban 192.0.2.0/24");
    admin.ask(&unban("192.0.2.0/24"));
    assert!(connects(&net, CLIENT_V4, front()));
}

#[test]
fn behind_a_load_balancer_the_client_that_it_names_is_banned() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::tagged(&net.backend, at(7000), "served");
    let directory = owned::directory();
    let path = directory.path().join("socket");
    let keys = format!(
        "tcp_recv_proxy_protocol = true\ntcp_trusted_proxies = [\"{CLIENT_V4}\"]\nmetrics_listen = \"127.0.0.1:9100\""
    );
    let _daemon = Daemon::start(&net.gateway, &config(&path, &keys));
    Admin::connect(&path).ask(&ban("203.0.113.0/24"));
    let served = |source: &str| {
        let stream = socket::dial_from(&net.client, CLIENT_V4, front());
        socket::send(&stream, format!("PROXY TCP4 {source} 203.0.113.1 5555 443\r\n").as_bytes());
        socket::read_line(&stream).is_some()
    };
    assert!(!served("203.0.113.7"));
    assert!(served("203.0.114.7"));
    wait::until("the outcome is counted", || {
        let stream = socket::dial(&net.gateway, ([127, 0, 0, 1], 9100));
        socket::send(&stream, b"GET /metrics HTTP/1.1\r\n\r\n");
        let text = String::from_utf8(socket::read_to_end(&stream).0).unwrap();
        text.contains("rpxy_l4_tcp_ended_total{outcome=\"banned\"} 1").then_some(())
    });
}
