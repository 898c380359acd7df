//! An answer, and how it is written (RFC 9112).

use std::borrow::Cow;

/// Content type of text for people.
const PLAIN: &str = "text/plain; charset=utf-8";

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// Code and phrase, such as `200 OK`.
    pub status: &'static str,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// Further fields, each with its CRLF.
    pub fields: &'static str,
    /// The content.
    pub body: Cow<'static, str>,
}

impl Response {
    /// Text for people.
    #[must_use]
    pub(crate) fn plain(status: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        Self { status, content_type: PLAIN, fields: "", body: body.into() }
    }

    /// To what is no request, or more than one should be.
    #[must_use]
    pub(crate) fn malformed() -> Self {
        Self::plain("400 Bad Request", "not a request that is answered here\n")
    }

    /// To a method that the resource does not have.
    #[must_use]
    pub(crate) fn method() -> Self {
        let fields = "Allow: GET, HEAD\r\n";
        Self { fields, ..Self::plain("405 Method Not Allowed", "only GET and HEAD are answered\n") }
    }

    /// The whole message; to HEAD without the body.
    pub(super) fn into_bytes(self, is_head: bool) -> Vec<u8> {
        let Self { status, content_type, fields, body } = self;
        let length = body.len();
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n{fields}Connection: close\r\n\r\n"
        );
        if !is_head {
            text.push_str(&body);
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_head_has_everything_but_the_body() {
        let bytes = |is_head| String::from_utf8(Response::method().into_bytes(is_head)).unwrap();
        let (get, head) = (bytes(false), bytes(true));
        assert_eq!(get, format!("{head}only GET and HEAD are answered\n"));
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{head}");
        assert!(head.ends_with("\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Length: 31\r\n"), "{head}");
    }
}
