//! What is sent to an address, and what its answer says. No IO.
//!
//! It errs towards failing: an answer passes only when it is what was asked for.

mod bytes;
mod http;
mod quic;
mod tls;

use std::{num::NonZeroU16, sync::Arc};

use quic::VersionNegotiation;
use tls::ServerHello;

use crate::{
    config::model::{Check, CheckKind, Host, HttpCheck},
    route::Random,
};

/// Bytes of an answer that are looked at.
const MOST_ANSWER: usize = 8192;

/// What an answer says so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is not complete.
    NeedMore,
    Passed,
    /// In a few words, for the log.
    Failed(String),
}

/// One question to one address: what to send, and how to read the answer.
#[derive(Debug)]
pub(super) struct Question {
    send: Vec<u8>,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// None is needed once the question has been taken.
    Taken,
    /// None is needed unless it is a refusal.
    NoRefusal,
    Hello(ServerHello),
    Status {
        check: HttpCheck,
        arrived: Vec<u8>,
    },
    Bytes {
        expect: Arc<[u8]>,
        arrived: Vec<u8>,
    },
    Datagram {
        expect: Arc<[u8]>,
    },
    Versions(VersionNegotiation),
}

/// Whom `check` asks for at `host`, with a target's `port`: the name in a hello, the host of a request; `None` where nobody
/// is named.
pub(super) fn addressee(check: &Check, host: &Host, port: u16) -> Option<Arc<str>> {
    match &check.kind {
        CheckKind::Tls { server_name: Some(name) } => Some(Arc::clone(name)),
        // An address must not be sent (RFC 6066 section 3).
        CheckKind::Tls { server_name: None } => match host {
            Host::Name(name) | Host::Srv(name) => Some(Arc::clone(name)),
            Host::Ip { .. } | Host::LinkLocal { .. } | Host::Unix(_) => None,
        },
        CheckKind::Http(HttpCheck { host: Some(host), .. }) => Some(Arc::clone(host)),
        CheckKind::Http(HttpCheck { host: None, .. }) => {
            let port = check.port.map_or(port, NonZeroU16::get);
            Some(http::authority(host, port).into())
        }
        CheckKind::Connect | CheckKind::Stream { .. } | CheckKind::Datagram { .. } | CheckKind::Quic => None,
    }
}

impl Question {
    /// The question of `check`, which asks for `addressee`.
    pub(super) fn new(check: &Check, addressee: Option<&str>, random: &Random) -> Self {
        let (payload, answer) = match &check.kind {
            CheckKind::Connect => (Vec::new(), Answer::Taken),
            CheckKind::Tls { .. } => {
                let (hello, answer) = tls::question(addressee, random);
                (hello, Answer::Hello(answer))
            }
            CheckKind::Http(http) => {
                let request = http::request(&http.path, addressee.unwrap_or_default());
                (request, Answer::Status { check: http.clone(), arrived: Vec::new() })
            }
            CheckKind::Stream { send, expect: None } => (send.to_vec(), Answer::Taken),
            CheckKind::Stream { send, expect: Some(expect) } => {
                (send.to_vec(), Answer::Bytes { expect: Arc::clone(expect), arrived: Vec::new() })
            }
            CheckKind::Datagram { send, expect: None } => (send.to_vec(), Answer::NoRefusal),
            CheckKind::Datagram { send, expect: Some(expect) } => {
                (send.to_vec(), Answer::Datagram { expect: Arc::clone(expect) })
            }
            CheckKind::Quic => {
                let (datagram, answer) = quic::question(random);
                (datagram, Answer::Versions(answer))
            }
        };
        let mut send = introduction(check);
        send.extend(payload);
        Self { send, answer }
    }

    /// What is sent; over UDP in one datagram.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.send
    }

    /// All of it has been sent.
    pub(super) fn sent(&self) -> Judgement {
        match self.answer {
            Answer::Taken => Judgement::Passed,
            Answer::NoRefusal
            | Answer::Hello(_)
            | Answer::Status { .. }
            | Answer::Bytes { .. }
            | Answer::Datagram { .. }
            | Answer::Versions(_) => Judgement::NeedMore,
        }
    }

    /// More of the answer has come: the next bytes of a stream, or a datagram.
    pub(super) fn arrived(&mut self, bytes: &[u8]) -> Judgement {
        match &mut self.answer {
            Answer::Taken | Answer::NoRefusal => Judgement::Passed,
            Answer::Hello(hello) => hello.arrived(bytes),
            Answer::Status { check, arrived } => {
                keep(arrived, bytes);
                or_too_long(http::judge(arrived, &check.status), arrived, "no status")
            }
            Answer::Bytes { expect, arrived } => {
                keep(arrived, bytes);
                or_too_long(bytes::judge(arrived, expect), arrived, "not what is expected")
            }
            Answer::Datagram { expect } => match bytes::judge(bytes, expect) {
                Judgement::NeedMore => Judgement::Failed("the answer is not what is expected".to_owned()),
                judgement @ (Judgement::Passed | Judgement::Failed(_)) => judgement,
            },
            Answer::Versions(versions) => versions.arrived(bytes),
        }
    }

    /// The time is up; returns whether silence passes.
    pub(super) fn may_be_silent(&self) -> bool {
        matches!(self.answer, Answer::NoRefusal)
    }
}

/// Keeps as much as is looked at.
fn keep(arrived: &mut Vec<u8>, bytes: &[u8]) {
    let room = MOST_ANSWER.saturating_sub(arrived.len());
    arrived.extend(bytes.iter().take(room));
}

fn or_too_long(judgement: Judgement, arrived: &[u8], what: &str) -> Judgement {
    if judgement == Judgement::NeedMore && arrived.len() >= MOST_ANSWER {
        return Judgement::Failed(format!("{what} in the first {MOST_ANSWER} bytes of the answer"));
    }
    judgement
}

/// The PROXY header of a connection that the daemon makes for itself, where the backend expects one: `UNKNOWN` in version
/// 1, `LOCAL` in version 2 (proxy-protocol.txt, sections 2.1 and 2.2).
#[cfg(feature = "proxy-protocol")]
fn introduction(check: &Check) -> Vec<u8> {
    use rpxy_l4_proto::proxy_protocol::{Addresses, Tlvs, encode_v1_unknown, encode_v2};

    use crate::config::model::ProxyVersion;
    let mut header = Vec::new();
    match check.send_proxy {
        None => {}
        Some(ProxyVersion::V1) => encode_v1_unknown(&mut header),
        Some(ProxyVersion::V2) => encode_v2(&Addresses::Local, &Tlvs::default(), &mut header),
    }
    header
}

#[cfg(not(feature = "proxy-protocol"))]
fn introduction(_check: &Check) -> Vec<u8> {
    Vec::new()
}

#[cfg(test)]
mod tests;
