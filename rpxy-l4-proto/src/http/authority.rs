//! The host in an authority (RFC 3986 section 3.2) and in a request target (RFC 9112 section 3.2). Only what every
//! server reads alike is taken: user information, percent-encoding and anything but names and addresses give none.

use std::net::Ipv6Addr;

/// The longest host, in bytes: what DNS can carry (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 255;

/// The host as far as a request target names it.
pub(super) enum Target {
    /// It settles the matter (absolute-form, authority-form), `None` when its host cannot be used.
    Host(Option<String>),
    /// Nothing: the `Host` field counts (origin-form, asterisk-form).
    Path,
}

pub(super) fn of_target(method: &[u8], target: &[u8]) -> Target {
    if method == b"CONNECT" {
        return Target::Host(host(target));
    }
    if target.starts_with(b"/") || target == b"*" {
        return Target::Path;
    }
    // RFC 9112 section 3.2.2: the host of an absolute-form target replaces that of the field. A target of no known
    // form is to be refused by the server, so that it has no host either.
    Target::Host(absolute_form(target).and_then(host))
}

/// The authority of `scheme "://" authority [path]`.
fn absolute_form(target: &[u8]) -> Option<&[u8]> {
    let colon = target.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = target.split_at_checked(colon)?;
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let rest = rest.strip_prefix(b"://").filter(|_| is_scheme)?;
    rest.split(|byte| matches!(byte, b'/' | b'?' | b'#')).next()
}

/// The host of `host [":" port]`, in lower case, without a trailing dot and without the brackets of an IPv6 address.
pub(super) fn host(authority: &[u8]) -> Option<String> {
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().position(|&byte| byte == b']')?;
            let (literal, rest) = rest.split_at_checked(end)?;
            let address: Ipv6Addr = std::str::from_utf8(literal).ok()?.parse().ok()?;
            (address.to_string(), rest.strip_prefix(b"]")?)
        }
        None => {
            let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
            let (name, port) = authority.split_at_checked(end)?;
            (registered_name(name)?, port)
        }
    };
    let port_fits = match port.strip_prefix(b":") {
        // RFC 3986 section 3.2.3: an empty port is the default one.
        Some(digits) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        None => port.is_empty(),
    };
    port_fits.then_some(host)
}

fn registered_name(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let fits = (1..=MAX_HOST).contains(&name.len())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    String::from_utf8(name.to_ascii_lowercase()).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_all_readers_agree_on_is_taken() {
        let label = "a".repeat(255);
        let rows = [
            ("a.example", Some("a.example")),
            ("A.Example", Some("a.example")),
            ("a.example.", Some("a.example")),
            ("a.example.:80", Some("a.example")),
            ("a.example:", Some("a.example")),
            ("a.example:65535", Some("a.example")),
            ("_dns.a-b.example", Some("_dns.a-b.example")),
            ("192.0.2.1:8080", Some("192.0.2.1")),
            ("[2001:DB8:0::1]", Some("2001:db8::1")),
            ("[::1]:443", Some("::1")),
            (label.as_str(), Some(label.as_str())),
            ("", None),
            (".", None),
            (":80", None),
            ("a.example:x", None),
            ("a.example:123456", None),
            ("a.example:80:80", None),
            ("user@a.example", None),
            ("a.example/", None),
            ("a%2eexample", None),
            ("a,b", None),
            ("a b", None),
            ("a\tb", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]80", None),
            ("[]", None),
            ("[a.example]", None),
            ("[fe80::1%25eth0]", None),
            ("[v1.x]", None),
            ("caf\u{e9}.example", None),
        ];
        for (authority, expected) in rows {
            assert_eq!(host(authority.as_bytes()).as_deref(), expected, "{authority}");
        }
        assert_eq!(host(&[b'a'; 256]), None, "256 bytes");
    }

    #[test]
    fn the_form_of_the_target_tells_whether_the_field_counts() {
        let rows = [
            ("GET", "/", None),
            ("GET", "//evil.example/", None),
            ("GET", "/http://evil.example/", None),
            ("OPTIONS", "*", None),
            ("CONNECT", "a.example:443", Some(Some("a.example"))),
            ("CONNECT", "/", Some(None)),
            ("GET", "http://a.example", Some(Some("a.example"))),
            ("GET", "HTTP://A.example:80/x", Some(Some("a.example"))),
            ("GET", "https://a.example?q=http://b.example/", Some(Some("a.example"))),
            ("GET", "http://a.example#f", Some(Some("a.example"))),
            ("GET", "http://[::1]:80/", Some(Some("::1"))),
            ("GET", "http://a@b.example/", Some(None)),
            ("GET", "http:///x", Some(None)),
            ("GET", "http:/a.example", Some(None)),
            ("GET", "1http://a.example/", Some(None)),
            ("GET", "://a.example/", Some(None)),
            ("GET", "urn:a", Some(None)),
            ("GET", "a.example", Some(None)),
            ("GET", "*x", Some(None)),
        ];
        for (method, target, expected) in rows {
            let answer = match of_target(method.as_bytes(), target.as_bytes()) {
                Target::Host(host) => Some(host),
                Target::Path => None,
            };
            assert_eq!(answer, expected.map(|host| host.map(str::to_owned)), "{method} {target}");
        }
    }
}
