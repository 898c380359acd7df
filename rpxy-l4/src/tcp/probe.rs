//! Protocol recognition: every protocol that has a rule is probed, in one pass over the bytes received so far.
//!
//! Errs towards the default target as long as nothing is certain, so that protocols unknown to us, or whose server speaks
//! first, still work. What can only be a protocol that has rules is that protocol, however odd, long or slow it is: a
//! destination meant for something else never gets it, and it never gets that destination's banner.

use std::time::Duration;

use rpxy_l4_proto::{
    Probe,
    http::{HttpProbe, HttpRequest, HttpVersion},
    socks5, ssh,
    tls::{ClientHello, HelloProbe},
};

use crate::route::{Protocol, TcpRoutes};

/// Bytes kept of a connection that is not decided yet: a ClientHello of 64 KiB with its record headers fits, unless the
/// records are tiny.
pub(super) const MAX_RECEIVED: usize = 80 << 10;
/// Time for an HTTP/2 client to name a host when the host changes nothing but the rule: time for one more segment, and
/// short beside a handshake.
const HTTP2_PAUSE: Duration = Duration::from_millis(50);

/// A recognised protocol, with the fields that routing needs.
#[derive(Debug)]
pub(super) enum Recognised {
    Http(HttpRequest),
    /// HTTP/2, whose client has not named a host in time: it may wait for the server's SETTINGS first.
    Http2Waiting,
    /// HTTP that cannot be read, or not yet: it has no host.
    HttpUnreadable,
    Tls {
        hello: Box<ClientHello>,
        /// Offset of the end of its last record in the stream, if it fills that.
        end: Option<usize>,
    },
    /// TLS that cannot be read, or not yet: it has neither server name nor ALPN.
    TlsUnreadable,
    Ssh,
    Socks5,
}

impl Recognised {
    /// The protocol.
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Http(_) | Self::Http2Waiting | Self::HttpUnreadable => Protocol::Http,
            Self::Tls { .. } | Self::TlsUnreadable => Protocol::Tls,
            Self::Ssh => Protocol::Ssh,
            Self::Socks5 => Protocol::Socks5,
        }
    }
}

/// The protocols still possible.
#[derive(Debug)]
pub(super) struct Prober {
    tls: Option<HelloProbe>,
    http: Option<HttpProbe>,
    ssh: bool,
    socks5: bool,
    /// The host of HTTP/2 decides nothing.
    any_host: bool,
}

impl Prober {
    pub(super) fn new(routes: &TcpRoutes) -> Self {
        Self {
            tls: routes.looks_for(Protocol::Tls).then(HelloProbe::default),
            http: routes.looks_for(Protocol::Http).then(|| HttpProbe::new(routes.needs_http_host())),
            ssh: routes.looks_for(Protocol::Ssh),
            socks5: routes.looks_for(Protocol::Socks5),
            any_host: routes.http_has_one_group(),
        }
    }

    /// Looks at all bytes of the connection so far; call again with more after [`Probe::NeedMore`].
    pub(super) fn advance(&mut self, stream: &[u8]) -> Probe<Recognised> {
        if stream.is_empty() {
            return Probe::NeedMore;
        }
        if let Some(probe) = &mut self.tls {
            match probe.advance(stream) {
                Probe::Match(hello) => {
                    return Probe::Match(Recognised::Tls { hello: Box::new(hello), end: probe.end() });
                }
                Probe::Unreadable => return Probe::Match(Recognised::TlsUnreadable),
                Probe::NotThis => self.tls = None,
                Probe::NeedMore => {}
            }
        }
        // Before HTTP, which needs more for any word: the first line of SSH is never asked whether it is a request.
        if self.ssh {
            match ssh::probe(stream) {
                Probe::Match(()) | Probe::Unreadable => return Probe::Match(Recognised::Ssh),
                Probe::NotThis => self.ssh = false,
                Probe::NeedMore => {}
            }
        }
        if self.socks5 {
            match socks5::probe(stream) {
                Probe::Match(()) | Probe::Unreadable => return Probe::Match(Recognised::Socks5),
                Probe::NotThis => self.socks5 = false,
                Probe::NeedMore => {}
            }
        }
        if let Some(probe) = &mut self.http {
            match probe.advance(stream) {
                Probe::Match(request) => return Probe::Match(Recognised::Http(request)),
                Probe::Unreadable => return Probe::Match(Recognised::HttpUnreadable),
                Probe::NotThis => self.http = None,
                Probe::NeedMore => {}
            }
        }
        let nothing_left = self.tls.is_none() && self.http.is_none() && !self.ssh && !self.socks5;
        if nothing_left {
            Probe::NotThis
        } else if stream.len() >= MAX_RECEIVED {
            self.settle(stream).map_or(Probe::NotThis, Probe::Match)
        } else {
            Probe::NeedMore
        }
    }

    /// The time after which it is no use to wait for more, if that is shorter than the probe's.
    pub(super) fn patience(&self) -> Option<Duration> {
        let waits_for_host = self.http.as_ref().and_then(HttpProbe::version) == Some(HttpVersion::Http2);
        (waits_for_host && self.any_host).then_some(HTTP2_PAUSE)
    }

    /// The answer when no more bytes than `stream` come in time: what they can only be, `None` if that is not certain.
    pub(super) fn settle(&self, stream: &[u8]) -> Option<Recognised> {
        if self.tls.as_ref().is_some_and(HelloProbe::is_certain) {
            return Some(Recognised::TlsUnreadable);
        }
        if self.socks5 && socks5::has_begun(stream) {
            return Some(Recognised::Socks5);
        }
        let http = self.http.as_ref()?;
        match http.version() {
            Some(HttpVersion::Http2) => Some(Recognised::Http2Waiting),
            Some(version @ HttpVersion::Http1) => Some(Recognised::Http(HttpRequest { version, host: None })),
            None => http.has_begun().then_some(Recognised::HttpUnreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Prober {
        Prober {
            tls: Some(HelloProbe::default()),
            http: Some(HttpProbe::new(true)),
            ssh: true,
            socks5: true,
            any_host: false,
        }
    }

    fn name(outcome: Probe<Recognised>) -> String {
        match outcome {
            Probe::Match(Recognised::Http(request)) => format!("http {:?}", request.host),
            Probe::Match(Recognised::Http2Waiting) => "http waiting".to_owned(),
            Probe::Match(Recognised::HttpUnreadable) => "http unreadable".to_owned(),
            Probe::Match(Recognised::Tls { hello, .. }) => format!("tls {:?}", hello.server_name()),
            Probe::Match(Recognised::TlsUnreadable) => "tls unreadable".to_owned(),
            Probe::Match(Recognised::Ssh) => "ssh".to_owned(),
            Probe::Match(Recognised::Socks5) => "socks5".to_owned(),
            Probe::NotThis => "none of them".to_owned(),
            Probe::NeedMore => "more".to_owned(),
            Probe::Unreadable => panic!("a prober tells which protocol it is"),
        }
    }

    /// The answer to a stream, given in one piece and again byte by byte.
    fn answer(make: impl Fn() -> Prober, stream: &[u8]) -> String {
        let whole = name(make().advance(stream));
        let mut slow = make();
        let mut last = "more".to_owned();
        for end in 1..=stream.len() {
            last = name(slow.advance(&stream[..end]));
            if last != "more" {
                break;
            }
        }
        assert_eq!(whole, last, "segmentation changed the answer");
        whole
    }

    #[test]
    fn each_protocol_is_told_apart_in_any_segmentation() {
        for (case, stream, expected) in [
            ("nothing yet", b"" as &[u8], "more"),
            ("http", b"GET / HTTP/1.1\r\nHost: A.example:80\r\n\r\n", "http Some(\"a.example\")"),
            ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n", "ssh"),
            ("socks5", &[5, 2, 0, 2], "socks5"),
            ("socks5 incomplete", &[5, 2, 0], "more"),
            ("start of a TLS record", &[22, 3, 1, 2, 0, 1, 0], "more"),
            ("socks4", &[4, 1, 0, 80, 192, 0, 2, 1, 0], "socks5"),
            ("an unreadable hello", &[22, 3, 1, 0, 4, 1, 1, 0, 0], "tls unreadable"),
            ("an SSLv2-compatible hello", &[0x80, 12, 1, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 1], "tls unreadable"),
            ("ssh that ends like a request", b"SSH-2.0-x HTTP/1.1\r\n", "ssh"),
            ("a lenient request", b"\r\nGET  / HTTP/1.1 \r\nHost: a.example\r\n\r\n", "http Some(\"a.example\")"),
            ("another line", b"EHLO a.example\r\n", "none of them"),
            ("neither", b"\x00\x01\x02\x03", "none of them"),
            ("http with no end", b"POST /a/long/path", "more"),
        ] {
            assert_eq!(answer(all, stream), expected, "{case}");
        }
    }

    #[test]
    fn protocols_without_a_rule_are_not_looked_for() {
        for (case, stream) in
            [("ssh", b"SSH-2.0-x\r\n" as &[u8]), ("socks5", &[5, 1, 0]), ("http", b"GET / HTTP/1.0\r\n\r\n")]
        {
            let only_tls =
                || Prober { tls: Some(HelloProbe::default()), http: None, ssh: false, socks5: false, any_host: false };
            assert_eq!(answer(only_tls, stream), "none of them", "{case}");
        }
    }

    #[test]
    fn what_is_certain_when_no_more_comes_is_what_it_is() {
        for (case, stream, expected) in [
            ("a request line", b"GET / HTTP/1.1\r\nAccept: */*\r\n" as &[u8], "http None"),
            ("the preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http waiting"),
            ("half a request line", b"GET /", "http unreadable"),
            ("half the preface", b"PRI * HTTP/2.0\r\n\r", "http unreadable"),
            ("three bytes of a record", &[22, 3, 1], "tls unreadable"),
            ("half a hello", &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], "tls unreadable"),
            ("some of three methods", &[5, 3, 0], "socks5"),
            ("half a user ID", &[4, 1, 0, 80, 192, 0, 2, 1, b'm'], "socks5"),
            ("nothing", b"", "none of them"),
            ("half a method", b"GE", "none of them"),
            ("empty lines", b"\r\n", "none of them"),
            ("two bytes of a record", &[22, 3], "none of them"),
            ("one byte of SOCKS", &[5], "none of them"),
            ("some of 200 methods", &[5, 200, 0], "none of them"),
            ("half an identification", b"SSH", "none of them"),
        ] {
            let mut prober = all();
            assert!(matches!(prober.advance(stream), Probe::NeedMore), "{case}");
            assert_eq!(name(prober.settle(stream).map_or(Probe::NotThis, Probe::Match)), expected, "{case}");
        }
    }

    #[test]
    fn what_is_too_long_to_read_is_what_it_is() {
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        head.resize_with(MAX_RECEIVED, || b'x');
        let hello = [22, 3, 1, 0, 1, 1].into_iter().chain([22, 3, 1, 0, 1, 0]);
        // A hello of 64 KiB in records of one byte does not fit.
        let body = [22, 3, 1, 0, 1, 0xff].into_iter().cycle();
        let records: Vec<u8> = hello.chain(body).take(MAX_RECEIVED).collect();
        for (case, stream, expected) in [
            ("a head", head, "http unreadable"),
            ("a request line", [b"GET /".to_vec(), vec![b'x'; MAX_RECEIVED]].concat(), "http unreadable"),
            ("records", records, "tls unreadable"),
        ] {
            assert_eq!(name(all().advance(&stream)), expected, "{case}");
        }
    }

    #[test]
    fn http2_waits_for_its_host_only_where_that_decides() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for (case, any_host, stream, expected) in [
            ("one group", true, preface as &[u8], Some(HTTP2_PAUSE)),
            ("several groups", false, preface, None),
            ("HTTP/1", true, b"GET / HTTP/1.1\r\n", None),
            ("half the preface", true, &preface[..20], None),
        ] {
            let mut prober = Prober { any_host, ..all() };
            assert!(matches!(prober.advance(stream), Probe::NeedMore), "{case}");
            assert_eq!(prober.patience(), expected, "{case}");
        }
    }
}
