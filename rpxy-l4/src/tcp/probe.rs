//! What does a connection speak? Every protocol that has a rule is asked, in one pass over the bytes received so far.
//!
//! Errs towards the default target: what cannot be told in time is passed on whole, so that protocols unknown to us, or
//! whose server speaks first, still work.

use rpxy_l4_proto::{
    Outcome,
    http::{HttpProbe, HttpRequest},
    socks5, ssh,
    tls::{ClientHello, HelloProbe},
};

use crate::route::{Protocol, TcpRoutes};

/// Bytes kept of a connection that is not decided yet: a ClientHello of 64 KiB with its record headers fits.
pub(super) const MAX_RECEIVED: usize = 80 << 10;

/// What was recognised.
#[derive(Debug)]
pub(super) enum Recognised {
    Http(HttpRequest),
    Tls(Box<ClientHello>),
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

    /// Looks at all bytes of the connection so far; call again with more after [`Outcome::NeedMore`].
    pub(super) fn advance(&mut self, stream: &[u8]) -> Outcome<Recognised> {
        if stream.is_empty() {
            return Outcome::NeedMore;
        }
        if let Some(probe) = &mut self.tls {
            match probe.advance(stream) {
                Outcome::Match(hello) => return Outcome::Match(Recognised::Tls(Box::new(hello))),
                Outcome::NotThis => self.tls = None,
                Outcome::NeedMore => {}
            }
        }
        if let Some(probe) = &mut self.http {
            match probe.advance(stream) {
                Outcome::Match(request) => return Outcome::Match(Recognised::Http(request)),
                Outcome::NotThis => self.http = None,
                Outcome::NeedMore => {}
            }
        }
        if self.ssh {
            match ssh::probe(stream) {
                Outcome::Match(()) => return Outcome::Match(Recognised::Ssh),
                Outcome::NotThis => self.ssh = false,
                Outcome::NeedMore => {}
            }
        }
        if self.socks5 {
            match socks5::probe(stream) {
                Outcome::Match(()) => return Outcome::Match(Recognised::Socks5),
                Outcome::NotThis => self.socks5 = false,
                Outcome::NeedMore => {}
            }
        }
        let nothing_left = self.tls.is_none() && self.http.is_none() && !self.ssh && !self.socks5;
        if nothing_left || stream.len() >= MAX_RECEIVED { Outcome::NotThis } else { Outcome::NeedMore }
    }
}
