//! A URL of HTTP as an argument: host, port and path, and nothing else.

use std::str::FromStr;

/// What is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Host and port, as [`ToSocketAddrs`](std::net::ToSocketAddrs) takes them.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected http://HOST:PORT/PATH";
        let rest = text.strip_prefix("http://").ok_or(EXPECTED)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let named = authority.rsplit_once(':').filter(|_| !authority.ends_with(']'));
        let (host, port) = named.unwrap_or((authority, "80"));
        let is_valid = !host.is_empty() && port.parse::<u16>().is_ok() && is_clean(rest) && !rest.contains(['@', '#']);
        let path = if path.is_empty() { "/" } else { path };
        let url = Self { authority: format!("{host}:{port}"), path: path.to_owned() };
        is_valid.then_some(url).ok_or(EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_may_have_a_port_and_a_path() {
        for (text, expected) in [
            ("http://127.0.0.1:9901/readyz", Some(("127.0.0.1:9901", "/readyz"))),
            ("http://[::1]:9901/a?b", Some(("[::1]:9901", "/a?b"))),
            ("http://localhost", Some(("localhost:80", "/"))),
            ("http://[::1]/", Some(("[::1]:80", "/"))),
            ("https://localhost/", None),
            ("localhost:9901/readyz", None),
            ("http:///readyz", None),
            ("http://localhost:99999/", None),
            ("http://user@localhost/", None),
            ("http://localhost/a b", None),
            ("http://localhost/\r\nX: y", None),
        ] {
            let url = text.parse::<Url>().ok();
            let parts = url.as_ref().map(|url| (url.authority.as_str(), url.path.as_str()));
            assert_eq!(parts, expected, "{text}");
        }
    }
}
