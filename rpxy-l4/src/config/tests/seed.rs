//! The configurations of the 0.2.x documentation mean what they meant there.

use std::time::Duration;

use rpxy_l4_proto::wireguard::Reserved;

use super::{accepted, warnings};
use crate::config::model::{Balance, Config, Matcher, NamePattern, Upstream};

fn targets(upstream: Option<&Upstream>) -> Vec<String> {
    upstream.map(|upstream| upstream.targets.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// A documented text, which must load without a warning.
fn documented(text: &str) -> Config {
    assert_eq!(warnings(text), [""; 0], "{text}");
    accepted(text)
}

#[test]
fn plain_proxy() {
    let config = documented(
        r#"
        listen_port = 8448
        tcp_target = ["192.168.0.2:8000"]
        udp_target = ["192.168.0.3:4000"]
        udp_idle_lifetime = 30
        "#,
    );
    assert_eq!(config.top.listen.ports[0].get(), 8448);
    assert_eq!(targets(config.top.tcp.default.as_ref()), ["192.168.0.2:8000"]);
    assert_eq!(targets(config.top.udp.default.as_ref()), ["192.168.0.3:4000"]);
    assert_eq!(config.top.udp.idle_lifetime, Some(Duration::from_secs(30)));
}

#[test]
fn load_balancing() {
    let config = documented(
        r#"
        listen_port = 8448
        tcp_target = ["192.168.0.2:8000", "192.168.0.3:8000"]
        tcp_load_balance = "source_ip" # source_ip, source_socket, random, or none
        udp_target = ["192.168.0.2:4000", "192.168.0.3:4000"]
        udp_load_balance = "source_socket"
        "#,
    );
    assert_eq!(targets(config.top.tcp.default.as_ref()), ["192.168.0.2:8000", "192.168.0.3:8000"]);
    assert_eq!(config.top.tcp.default.unwrap().balance, Balance::SourceIp);
    assert_eq!(config.top.udp.default.unwrap().balance, Balance::SourceSocket);
}

#[test]
fn tls_and_quic_multiplexer() {
    let config = documented(
        r#"
        listen_port = 8448
        tcp_target = ["192.168.0.2:8000"]
        udp_target = ["192.168.0.3:4000"]
        [protocols."tls_service"]
        protocol = "tls"
        target = ["192.168.0.5:443"]
        load_balance = "source_ip"
        #####################
        [protocols."quic_service"]
        protocol = "quic"
        target = ["192.168.0.6:443"]
        load_balance = "source_socket"
        idle_lifetime = 30
        "#,
    );
    let [tls, quic] = config.top.rules.as_slice() else { panic!("{:?}", config.top.rules) };
    assert_eq!((&*tls.name, &*quic.name), ("tls_service", "quic_service"));
    assert!(matches!(tls.matcher, Matcher::Tls(_)));
    assert!(matches!(quic.matcher, Matcher::Quic(_)));
    assert_eq!((tls.upstream.balance, quic.upstream.balance), (Balance::SourceIp, Balance::SourceSocket));
    assert_eq!(quic.idle_lifetime, Some(Duration::from_secs(30)));
    assert_eq!(targets(Some(&tls.upstream)), ["192.168.0.5:443"]);
}

#[test]
fn server_names_and_alpns() {
    let config = documented(
        r#"
        listen_port = 8448
        [protocols."tls_service"]
        protocol = "tls"
        target = ["192.168.0.5:443"]
        load_balance = "source_ip"
        server_names = ["example.com", "example.org"]
        alpns = ["h2", "http/1.1"]
        "#,
    );
    let Matcher::Tls(matcher) = &config.top.rules[0].matcher else { panic!("{:?}", config.top.rules) };
    let exact = |name: &str| NamePattern::Exact(name.into());
    assert_eq!(matcher.server_names, [exact("example.com"), exact("example.org")]);
    assert_eq!(
        matcher.alpns.iter().map(|alpn| alpn.to_vec()).collect::<Vec<_>>(),
        [b"h2".to_vec(), b"http/1.1".to_vec()]
    );
    assert_eq!(config.top.tcp.default, None, "sanitising: nothing but TLS passes");
}

#[test]
fn wireguard_multiplexer() {
    let config = documented(
        r#"
        listen_port = 8448
        [protocols."wireguard_service"]
        protocol = "wireguard"
        target = ["192.168.0.10:51820"]
        load_balance = "none"
        # longer than the keepalive interval of the wireguard tunnel
        idle_lifetime = 30
        "#,
    );
    assert_eq!(config.top.rules[0].matcher, Matcher::WireGuard { public_key: None, reserved: Reserved::Zero });
    assert_eq!(config.top.rules[0].idle_lifetime, Some(Duration::from_secs(30)));
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn proxy_protocol() {
    use crate::config::model::ProxyVersion::{V1, V2};
    let config = documented(
        r#"
        listen_port = 8448
        tcp_target = ["192.168.0.2:8000"]
        tcp_send_proxy_protocol = "v2" # global default
        tcp_recv_proxy_protocol = true
        tcp_trusted_proxies = ["10.0.0.0/8", "192.168.0.0/16"]

        [protocols."tls_1"]
        protocol = "tls"
        target = ["192.168.0.5:443"]
        send_proxy_protocol = "v1" # override: use v1 for this protocol

        [protocols."http_1"]
        protocol = "http"
        target = ["192.168.0.6:80"]
        send_proxy_protocol = "none" # override: disable for this protocol
        "#,
    );
    assert_eq!(config.top.tcp.default.unwrap().send_proxy, Some(V2));
    assert_eq!(config.top.rules[0].upstream.send_proxy, Some(V1));
    assert_eq!(config.top.rules[1].upstream.send_proxy, None);
    let trusted: Vec<String> = config.top.tcp.receive_proxy.unwrap().trusted.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "192.168.0.0/16"]);
}
