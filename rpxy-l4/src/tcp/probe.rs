//! Protocol recognition: every protocol that has a rule is probed, in one pass over the bytes received so far.
//!
//! Errs towards the default target: what cannot be told in time is passed on whole, so that protocols unknown to us, or
//! whose server speaks first, still work.

use rpxy_l4_proto::{
    Probe,
    http::{HttpProbe, HttpRequest},
    socks5, ssh,
    tls::{ClientHello, HelloProbe},
};

use crate::route::{Protocol, TcpRoutes};

/// Bytes kept of a connection that is not decided yet: a ClientHello of 64 KiB with its record headers fits.
pub(super) const MAX_RECEIVED: usize = 80 << 10;

/// A recognised protocol, with the fields that routing needs.
#[derive(Debug)]
pub(super) enum Recognised {
    Http(HttpRequest),
    Tls {
        hello: Box<ClientHello>,
        /// Offset of the end of its last record in the stream, if it fills that.
        end: Option<usize>,
    },
    Ssh,
    Socks5,
}

/// The protocols still possible.
#[derive(Debug)]
pub(super) struct Prober {
    tls: Option<HelloProbe>,
    http: Option<HttpProbe>,
    ssh: bool,
    socks5: bool,
}

impl Prober {
    pub(super) fn new(routes: &TcpRoutes) -> Self {
        Self {
            tls: routes.looks_for(Protocol::Tls).then(HelloProbe::default),
            http: routes.looks_for(Protocol::Http).then(|| HttpProbe::new(routes.needs_http_host())),
            ssh: routes.looks_for(Protocol::Ssh),
            socks5: routes.looks_for(Protocol::Socks5),
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
                Probe::NotThis => self.tls = None,
                Probe::NeedMore => {}
            }
        }
        if let Some(probe) = &mut self.http {
            match probe.advance(stream) {
                Probe::Match(request) => return Probe::Match(Recognised::Http(request)),
                Probe::NotThis => self.http = None,
                Probe::NeedMore => {}
            }
        }
        if self.ssh {
            match ssh::probe(stream) {
                Probe::Match(()) => return Probe::Match(Recognised::Ssh),
                Probe::NotThis => self.ssh = false,
                Probe::NeedMore => {}
            }
        }
        if self.socks5 {
            match socks5::probe(stream) {
                Probe::Match(()) => return Probe::Match(Recognised::Socks5),
                Probe::NotThis => self.socks5 = false,
                Probe::NeedMore => {}
            }
        }
        let nothing_left = self.tls.is_none() && self.http.is_none() && !self.ssh && !self.socks5;
        if nothing_left || stream.len() >= MAX_RECEIVED { Probe::NotThis } else { Probe::NeedMore }
    }

    /// The answer when no more bytes come in time. A client that certainly speaks HTTP does so also when its host is not
    /// known yet (an HTTP/2 client may wait for the server's SETTINGS first).
    pub(super) fn settle(self) -> Option<Recognised> {
        let version = self.http?.version()?;
        Some(Recognised::Http(HttpRequest { version, host: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Prober {
        Prober { tls: Some(HelloProbe::default()), http: Some(HttpProbe::new(true)), ssh: true, socks5: true }
    }

    /// The answer to a stream, given in one piece and again byte by byte.
    fn answer(make: impl Fn() -> Prober, stream: &[u8]) -> String {
        let name = |outcome: Probe<Recognised>| match outcome {
            Probe::Match(Recognised::Http(request)) => format!("http {:?}", request.host),
            Probe::Match(Recognised::Tls { .. }) => "tls".to_owned(),
            Probe::Match(Recognised::Ssh) => "ssh".to_owned(),
            Probe::Match(Recognised::Socks5) => "socks5".to_owned(),
            Probe::NotThis => "none of them".to_owned(),
            Probe::NeedMore => "more".to_owned(),
        };
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
            let only_tls = || Prober { tls: Some(HelloProbe::default()), http: None, ssh: false, socks5: false };
            assert_eq!(answer(only_tls, stream), "none of them", "{case}");
        }
    }

    #[test]
    fn http_is_http_at_the_deadline_although_its_host_never_came() {
        for (case, stream, expected) in [
            ("request line", b"GET / HTTP/1.1\r\nAccept: */*\r\n" as &[u8], true),
            ("preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
            ("half a request line", b"GET /", false),
            ("something else", b"SSH-", false),
        ] {
            let mut prober = all();
            assert!(!matches!(prober.advance(stream), Probe::Match(Recognised::Http(_))), "{case}");
            assert_eq!(prober.settle().is_some(), expected, "{case}");
        }
    }

    #[test]
    fn an_endless_head_is_given_up() {
        let mut stream = b"GET / HTTP/1.1\r\n".to_vec();
        while stream.len() < MAX_RECEIVED {
            stream.extend_from_slice(b"x-filler: 0123456789\r\n");
        }
        assert!(matches!(all().advance(&stream), Probe::NotThis));
    }
}
