//! Who sees the status page: by the name under which a browser calls it, and by a token.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    config::model::{StatusPage, StatusToken},
    web::Request,
};

/// What a request has to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Access {
    token: Option<StatusToken>,
    hosts: Vec<Arc<str>>,
}

impl Access {
    /// As the configuration wants it.
    #[must_use]
    pub(crate) fn new(page: &StatusPage) -> Self {
        Self { token: page.token.clone(), hosts: page.hosts.clone() }
    }

    /// Returns whether `request`, which came to `local`, calls us by a name of ours: what we are connected to, this machine,
    /// or what the operator has said. A page of somebody else whose name has come to lead here (DNS rebinding) calls us by
    /// its own.
    pub(super) fn is_ours(&self, request: &Request<'_>, local: Option<SocketAddr>) -> bool {
        let Some(host) = request.host().and_then(without_port) else { return false };
        let Some(address) = address(host) else {
            let named = |name: &str| host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(name);
            return named("localhost") || self.hosts.iter().any(|name| named(name));
        };
        address.is_loopback()
            || local.is_some_and(|local| local.ip().to_canonical() == address)
            || self.hosts.iter().any(|other| other.parse() == Ok(address))
    }

    /// Returns whether `request` has the token, if one is needed.
    pub(super) fn is_trusted(&self, request: &Request<'_>) -> bool {
        let Some(token) = &self.token else { return true };
        let told = request.field("authorization").and_then(|value| value.split_once(' '));
        told.is_some_and(|(scheme, told)| scheme.eq_ignore_ascii_case("bearer") && token.is(told.trim_start()))
    }
}

/// The host of an authority (RFC 3986 section 3.2); `None` where it has anything but a host and a port.
fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        Some(_) | None => (authority, ""),
    };
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some(host)
}

/// An address as authorities write it.
fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|address| address.to_canonical()),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(fields: &str, answer: impl Fn(&Request<'_>) -> T) -> T {
        answer(&Request::read(format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes()).unwrap())
    }

    #[test]
    fn only_names_of_ours_are_answered() {
        let hosts = ["gateway.example", "198.51.100.1", "2001:db8::8"].map(Arc::from).to_vec();
        let access = Access { token: None, hosts };
        let v4 = Some("192.0.2.1:9902".parse().unwrap());
        let v6 = Some("[2001:db8::1]:9902".parse().unwrap());
        let mapped = Some("[::ffff:192.0.2.1]:9902".parse().unwrap());
        for (row, host, local, expected) in [
            ("this machine", "localhost", v4, true),
            ("through a forwarded port", "localhost:8080", v4, true),
            ("in capitals", "LocalHost:9902", v4, true),
            ("of this machine", "127.0.0.1:9902", v4, true),
            ("another one of it", "127.9.9.9", v6, true),
            ("of this machine in IPv6", "[::1]:9902", None, true),
            ("where it came to", "192.0.2.1:9902", v4, true),
            ("without a port", "192.0.2.1", v4, true),
            ("over a socket of both families", "192.0.2.1:9902", mapped, true),
            ("where it came to in IPv6", "[2001:db8::1]:9902", v6, true),
            ("written at length", "[2001:0DB8:0::1]", v6, true),
            ("as configured", "gateway.example:9902", v4, true),
            ("as configured, in capitals", "Gateway.Example", None, true),
            ("complete", "gateway.example.:9902", v4, true),
            ("an address as configured", "198.51.100.1:443", v4, true),
            ("one in IPv6 as configured", "[2001:db8::8]:443", v4, true),
            ("somebody else's", "rebound.example:9902", v4, false),
            ("below ours", "a.gateway.example", v4, false),
            ("around ours", "gateway.example.rebound.example", v4, false),
            ("below this machine", "a.localhost", v4, false),
            ("another address", "192.0.2.2:9902", v4, false),
            ("the address of another socket", "192.0.2.1:9902", v6, false),
            ("an address at a unix socket", "192.0.2.1:9902", None, false),
            ("any address", "0.0.0.0:9902", v4, false),
            ("IPv6 without brackets", "::1", v6, false),
            ("half a bracket", "[::1", v6, false),
            ("a user", "localhost@rebound.example", v4, false),
            ("ours as a user", "x@localhost", v4, false),
            ("no number for a port", "localhost:http", v4, false),
            ("two ports", "localhost:1:2", v4, false),
            ("empty", "", v4, false),
        ] {
            let ours = with(&format!("Host: {host}"), |request| access.is_ours(request, local));
            assert_eq!(ours, expected, "{row}: {host}");
        }
        for (row, fields) in [("none", "X: y"), ("two", "Host: localhost\r\nHost: localhost")] {
            assert!(!with(fields, |request| access.is_ours(request, v4)), "{row}");
        }
    }

    #[test]
    fn the_token_is_told_as_bearer() {
        let token = "0123456789abcdef";
        let access = Access { token: StatusToken::new(token), hosts: Vec::new() };
        for (row, fields, expected) in [
            ("as it should be", format!("Authorization: Bearer {token}"), true),
            ("whatever the case of the words", format!("authorization: bearer {token}"), true),
            ("with more space", format!("Authorization:  Bearer   {token} "), true),
            ("none", "X: y".to_owned(), false),
            ("another scheme", format!("Authorization: Basic {token}"), false),
            ("no scheme", format!("Authorization: {token}"), false),
            ("another token", "Authorization: Bearer 0123456789abcdee".to_owned(), false),
            ("in capitals", "Authorization: Bearer 0123456789ABCDEF".to_owned(), false),
            ("no token", "Authorization: Bearer ".to_owned(), false),
            ("twice", format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}"), false),
        ] {
            assert_eq!(with(&fields, |request| access.is_trusted(request)), expected, "{row}");
        }
        assert!(with("X: y", |request| Access::default().is_trusted(request)), "none is needed");
    }
}
