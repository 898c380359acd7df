//! What first bytes were recognised as, in words.

use crate::{
    explain,
    route::{Protocol, TcpRoutes},
    tcp::probe::Recognised,
};

/// What the bytes were recognised as.
pub(super) struct Recognition {
    pub(super) value: Option<Recognised>,
    pub(super) detail: Option<String>,
}

impl Recognition {
    /// For the answer.
    pub(super) fn told(&self) -> explain::Recognised {
        let protocol = self.value.as_ref().map_or(Protocol::Any, Recognised::protocol).name();
        let told = explain::Recognised { protocol, detail: self.detail.clone(), ..explain::Recognised::default() };
        match &self.value {
            Some(Recognised::Tls { hello, .. }) => explain::Recognised {
                server_name: hello.server_name().map(str::to_owned),
                alpn: hello.alpn().map(readable).collect(),
                ..told
            },
            Some(Recognised::Http(request)) => explain::Recognised { server_name: request.host.clone(), ..told },
            Some(_) | None => told,
        }
    }
}

/// What there is to say beyond the protocol.
pub(super) fn detail(recognised: &Recognised) -> Option<String> {
    let words = match recognised {
        Recognised::Http(request) if request.host.is_none() => "a request whose host is not known or not asked for",
        Recognised::Http2Waiting => "HTTP/2 that waits for the server before it names a host",
        Recognised::HttpUnreadable => "a request that cannot be read",
        Recognised::TlsUnreadable => "a hello that cannot be read: it has neither server name nor ALPN",
        Recognised::Http(_) | Recognised::Tls { .. } | Recognised::Ssh | Recognised::Socks5 => return None,
    };
    Some(words.to_owned())
}

/// Why the default targets.
pub(super) fn no_rule(routes: &TcpRoutes, recognised: Option<&Recognised>) -> String {
    match recognised.map(Recognised::protocol) {
        _ if !routes.must_probe() => "there is only tcp_target".to_owned(),
        None => "it is not recognised".to_owned(),
        Some(protocol) => format!("no rule for {} fits, and unmatched is \"default\"", short(protocol)),
    }
}

/// The protocol as rules name it.
pub(super) fn short(protocol: Protocol) -> &'static str {
    protocol.name().strip_prefix("tcp:").unwrap_or("tcp")
}

/// An ALPN protocol name, of any bytes.
pub(super) fn readable(alpn: &[u8]) -> String {
    alpn.escape_ascii().to_string()
}
