//! A request, as far as it decides about an answer (RFC 9110, RFC 9112).

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    /// Anything else.
    Other,
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request<'h> {
    pub method: Method,
    /// The path of its target, without a query.
    pub path: &'h str,
    /// The authority of its target, where that has one.
    authority: Option<&'h str>,
    /// Names and values, in order.
    fields: Vec<(&'h str, &'h str)>,
}

/// It is not HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'h> Request<'h> {
    /// Reads a head: the request line and the fields, up to the empty line.
    pub(crate) fn read(head: &'h [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(head).map_err(|_not_text| Malformed)?;
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Malformed);
        };
        if !version.starts_with("HTTP/1.") {
            return Err(Malformed);
        }
        let method = match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            _ => Method::Other,
        };
        let (authority, origin) = split(target);
        let path = origin.split('?').next().unwrap_or_default();
        let fields = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name, value.trim_matches([' ', '\t']))).collect();
        Ok(Self { method, path, authority, fields })
    }

    /// The values of the fields called `name`, in order.
    pub(crate) fn fields(&self, name: &str) -> impl Iterator<Item = &'h str> {
        self.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The only field called `name`.
    #[must_use]
    pub(crate) fn field(&self, name: &str) -> Option<&'h str> {
        let mut values = self.fields(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Host and port for which the request is meant: of its target, or else of its only `Host` (RFC 9112 section 3.2).
    #[must_use]
    pub(crate) fn host(&self) -> Option<&'h str> {
        let named = self.field("host")?;
        Some(self.authority.unwrap_or(named))
    }
}

/// Authority and rest of a request target, in origin form or in absolute form (RFC 9112 section 3.2).
fn split(target: &str) -> (Option<&str>, &str) {
    match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => match rest.find('/').and_then(|at| rest.split_at_checked(at)) {
            Some((authority, origin)) => (Some(authority), origin),
            None => (Some(rest), "/"),
        },
        Some(_) | None => (None, target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_by_method_and_path() {
        use Method::{Get, Head, Other};
        for (line, expected) in [
            ("GET /metrics HTTP/1.1", Ok((Get, "/metrics"))),
            ("GET /metrics?x=1 HTTP/1.1", Ok((Get, "/metrics"))),
            ("GET /metrics HTTP/1.0", Ok((Get, "/metrics"))),
            ("GET http://gateway:9901/metrics?x=http://y HTTP/1.1", Ok((Get, "/metrics"))),
            ("HEAD /metrics HTTP/1.1", Ok((Head, "/metrics"))),
            ("POST /metrics HTTP/1.1", Ok((Other, "/metrics"))),
            ("get /metrics HTTP/1.1", Ok((Other, "/metrics"))),
            ("GET / HTTP/1.1", Ok((Get, "/"))),
            ("GET http://gateway HTTP/1.1", Ok((Get, "/"))),
            ("GET /metrics/ HTTP/1.1", Ok((Get, "/metrics/"))),
            ("GET /http://x/metrics HTTP/1.1", Ok((Get, "/http://x/metrics"))),
            ("GET /metrics", Err(Malformed)),
            ("GET  /metrics HTTP/1.1", Err(Malformed)),
            ("GET /metrics HTTP/2.0", Err(Malformed)),
            ("\u{16}\u{3}\u{1}", Err(Malformed)),
            ("", Err(Malformed)),
        ] {
            let head = format!("{line}\r\nHost: a\r\n\r\n");
            let read = Request::read(head.as_bytes()).map(|request| (request.method, request.path));
            assert_eq!(read, expected, "{line}");
        }
        assert_eq!(Request::read(b"GET /\xff HTTP/1.1\r\n\r\n"), Err(Malformed));
    }

    #[test]
    fn the_host_is_that_of_the_target_and_otherwise_of_the_only_field() {
        for (row, target, fields, expected) in [
            ("a field", "/", "Host: a:1\r\n", Some("a:1")),
            ("whatever the case and space", "/", "hOST:\t a \r\n", Some("a")),
            ("none", "/", "X-Host: a\r\n", None),
            ("an empty one", "/", "Host:\r\n", Some("")),
            ("two", "/", "Host: a\r\nHost: a\r\n", None),
            ("the target's", "http://b:2/x?http://c", "Host: a\r\n", Some("b:2")),
            ("the target's without a path", "http://b:2", "Host: a\r\n", Some("b:2")),
            ("a URL in a query", "/?http://b/", "Host: a\r\n", Some("a")),
            ("beyond the head", "/", "\r\nHost: a\r\n", None),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(Request::read(head.as_bytes()).unwrap().host(), expected, "{row}");
        }
    }
}
