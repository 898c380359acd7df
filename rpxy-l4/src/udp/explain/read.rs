//! What can be read of first datagrams, beside what is decided about them.

use std::{net::IpAddr, sync::Arc};

use rpxy_l4_proto::{
    Probe,
    quic::{InitialProbe, LongType, packets},
    tls::ClientHello,
    wireguard::Message,
};

use super::super::{Listener, core::Rehearsed};
use crate::{
    explain::{self, Seen},
    route::{self, Datagrams, UdpRoute},
};

/// What can be read of the datagrams, to be shown and compared with rules. Nothing is decided by it.
pub(super) struct Read {
    pub(super) hello: Option<Probe<ClientHello>>,
    pub(super) wireguard: Option<Message>,
    pub(super) has_initial: bool,
}

/// [`Seen`] with what it refers to.
pub(super) struct SeenFields<'a> {
    seen: Kind<'a>,
    alpns: Vec<&'a [u8]>,
}

enum Kind<'a> {
    Nothing,
    Quic(Option<&'a str>, IpAddr),
    WireGuard(&'a [u8], IpAddr),
    Undecided(&'static str),
}

impl SeenFields<'_> {
    pub(super) fn as_asked(&self) -> Seen<'_> {
        match self.seen {
            Kind::Nothing => Seen::Nothing,
            Kind::Quic(name, source) => Seen::Quic(route::Asked { name, alpns: &self.alpns, source }),
            Kind::WireGuard(initiation, source) => Seen::WireGuard(initiation, source),
            Kind::Undecided(protocol) => Seen::Undecided(protocol),
        }
    }
}

impl Read {
    pub(super) fn new(listener: &Listener, datagrams: &[Vec<u8>]) -> Self {
        let first = datagrams.first().map(Vec::as_slice).unwrap_or_default();
        let wireguard = listener.routes.wireguard_message(first);
        let mut hello = None;
        let initial = packets(first).find(|packet| packet.typ == LongType::Initial);
        let has_initial = initial.is_some();
        if let Some(initial) = initial.filter(|_| listener.routes.has_quic() && wireguard.is_none()) {
            let mut probe = InitialProbe::new(initial.version, initial.dcid);
            for datagram in datagrams {
                let answer = probe.advance(datagram);
                let is_final = !matches!(answer, Probe::NeedMore);
                hello = Some(answer);
                if is_final {
                    break;
                }
            }
        }
        Self { hello, wireguard, has_initial }
    }

    /// The rule that the hello comes to by what it says in the clear.
    pub(super) fn rule<'l>(&self, listener: &'l Listener, source: IpAddr) -> Option<&'l Arc<UdpRoute>> {
        match &self.hello {
            Some(Probe::Match(hello)) => listener.routes.quic(Some(hello), source),
            Some(Probe::Unreadable) => listener.routes.quic(None, source),
            Some(Probe::NeedMore | Probe::NotThis) | None => None,
        }
    }

    /// The protocol; that of a refusal is not always told.
    pub(super) fn carries(&self, told: Datagrams) -> Datagrams {
        match (told, &self.wireguard, &self.hello) {
            (Datagrams::Any, Some(_), _) => Datagrams::WireGuard,
            (Datagrams::Any, None, Some(Probe::Match(_) | Probe::Unreadable)) => Datagrams::Quic,
            (told, ..) => told,
        }
    }

    pub(super) fn seen<'a>(&'a self, carries: Datagrams, source: IpAddr, datagrams: &'a [Vec<u8>]) -> SeenFields<'a> {
        let mut alpns = Vec::new();
        let first = datagrams.first().map(Vec::as_slice).unwrap_or_default();
        let seen = match (&self.wireguard, &self.hello) {
            (Some(Message::Initiation { .. }), _) => Kind::WireGuard(first, source),
            (Some(_), _) => Kind::Undecided("wireguard"),
            (None, Some(Probe::Match(hello))) => {
                alpns = hello.alpn().collect();
                Kind::Quic(hello.server_name(), source)
            }
            (None, Some(Probe::Unreadable)) => Kind::Quic(None, source),
            (None, _) if carries == Datagrams::Quic => Kind::Undecided("quic"),
            (None, _) => Kind::Nothing,
        };
        SeenFields { seen, alpns }
    }

    pub(super) fn told(&self, carries: Datagrams, became: &Rehearsed) -> explain::Recognised {
        let detail = match (&self.wireguard, &self.hello, carries) {
            (Some(Message::Initiation { .. }), ..) => Some("a handshake initiation"),
            (Some(_), ..) => Some("a message of a tunnel that is not known here (stray)"),
            (None, Some(Probe::Match(_)), _) => None,
            (None, Some(Probe::Unreadable), _) => {
                Some("a hello that cannot be read: it has neither server name nor ALPN")
            }
            (None, Some(Probe::NeedMore), _) => Some("a hello that is not complete"),
            (None, Some(Probe::NotThis), _) => Some("an Initial packet that does not open"),
            (None, None, Datagrams::Quic) => {
                Some("a packet of a connection that is not known here, or of another version")
            }
            (None, None, _) => Some("none of the protocols that have a rule here"),
        };
        let told = explain::Recognised {
            protocol: carries.name(),
            detail: detail.map(str::to_owned),
            ..explain::Recognised::default()
        };
        let told = match &self.hello {
            Some(Probe::Match(hello)) => explain::Recognised {
                server_name: hello.server_name().map(str::to_owned),
                alpn: hello.alpn().map(|alpn| alpn.escape_ascii().to_string()).collect(),
                ..told
            },
            Some(_) | None => told,
        };
        match became {
            Rehearsed::Session { detail: Some(detail), .. } if detail.ech.is_some() => explain::Recognised {
                ech: detail.ech,
                inner_server_name: detail.inner_server_name.clone(),
                alpn: detail.alpn.clone(),
                ..told
            },
            Rehearsed::Refused { ech: Some(state), .. } => explain::Recognised { ech: Some(state.name()), ..told },
            Rehearsed::Session { .. } | Rehearsed::Refused { .. } | Rehearsed::Waits | Rehearsed::Negotiated => told,
        }
    }
}
