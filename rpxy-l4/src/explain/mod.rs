//! What is asked about a connection or datagram that has not come, and what is answered.
//!
//! The answers are those of the code that decides: `tcp::explain` and `udp::explain` ask it, and put what it says into an
//! [`Explanation`]. Here are its parts, and those that both transports have in common: why a rule is not chosen, and in
//! which order targets are tried.

#[cfg(test)]
mod draw;
mod listener;
mod question;
mod rules;
mod targets;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::Serialize;

#[cfg(test)]
pub(crate) use draw::Draw;
pub(crate) use listener::{NoListener, listener};
pub(crate) use question::{LISTED, MOST_BYTES, MOST_DATAGRAMS, Question};
pub(crate) use rules::{OtherRule, Rules, Seen, explain_rules};
pub(crate) use targets::{Order, TargetChoice, Way, order};

use crate::{
    config::model::{Listener, Transport, Unmatched},
    limit::{AccessDenied, BanSource},
    metrics::EchState,
};

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Explanation {
    pub transport: Transport,
    /// The listener that takes it.
    pub listener: Arc<str>,
    /// Where that listens.
    pub listen: Vec<String>,
    /// The client.
    pub from: String,
    /// Who answers: `daemon`, which knows load and health, or `file`.
    pub answered_by: &'static str,
    /// Bytes and datagrams that were given.
    pub bytes: usize,
    pub datagrams: usize,
    pub verdict: Verdict,
    /// What was asked before it could go anywhere, in order.
    pub questions: Vec<Asked>,
    pub recognised: Recognised,
    /// The rule, or the default targets; `None` if there is no destination.
    pub chosen: Option<Chosen>,
    /// Why no other rule.
    pub others: Vec<OtherRule>,
    /// Other rules that are not listed, by reason.
    pub not_listed: BTreeMap<&'static str, usize>,
    pub targets: Option<TargetChoice>,
    /// The PROXY header that the target is sent; `None` for none.
    pub proxy_header: Option<String>,
    pub plane: Plane,
    /// What the answer depends on beyond that.
    pub notes: Vec<String>,
}

/// What would become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It goes to one of these targets.
    Goes {
        /// The rule; `None` for the default targets.
        rule: Option<Arc<str>>,
        /// As the file writes them; several where time, chance or load decides.
        to: Vec<Arc<str>>,
    },
    /// It is turned away.
    Refused {
        /// As counters and logs call it.
        reason: &'static str,
        /// In words.
        because: String,
    },
    /// It is answered by the daemon itself.
    Answered {
        /// In words.
        with: String,
    },
    /// More bytes are needed before anything is decided.
    Waits {
        /// In words.
        until: String,
    },
}

/// One question that could have refused it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Asked {
    pub question: &'static str,
    /// As counters and logs call the refusal; `None` if it passes.
    pub refused: Option<&'static str>,
    /// The finding.
    pub answer: String,
}

impl Asked {
    /// It passes.
    pub(crate) fn passes(question: &'static str, answer: impl Into<String>) -> Self {
        Self { question, refused: None, answer: answer.into() }
    }

    /// It does not.
    pub(crate) fn refuses(question: &'static str, refused: &'static str, answer: impl Into<String>) -> Self {
        Self { question, refused: Some(refused), answer: answer.into() }
    }
}

/// What the bytes are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Recognised {
    /// As the access log writes it: `tcp:tls`, `udp:quic`, ...
    pub protocol: &'static str,
    /// In words, where there is more to say.
    pub detail: Option<String>,
    /// The name that is asked for in the clear.
    pub server_name: Option<String>,
    /// The name in the decrypted hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_server_name: Option<String>,
    /// ALPN protocols offered, those of the decrypted hello where there is one.
    pub alpn: Vec<String>,
    /// State of Encrypted Client Hello, at a rule with keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ech: Option<&'static str>,
}

/// The destination that was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Chosen {
    /// `None` for the default targets.
    pub rule: Option<Arc<str>>,
    /// Why it is the one.
    pub because: String,
}

/// Who would forward it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Plane {
    /// `userspace`, or `kernel` where nothing speaks against steering.
    pub plane: &'static str,
    /// What speaks against steering, or what it waits for.
    pub because: Vec<String>,
}

/// Why an access list refuses a client.
pub(crate) fn refusal_of_access(denied: AccessDenied, client: IpAddr) -> String {
    match denied {
        AccessDenied::Outside => "the client is in no network of allow".to_owned(),
        AccessDenied::Inside(length) => match IpNet::new(client.to_canonical(), length) {
            Ok(network) => format!("{} is in deny", network.trunc()),
            Err(_) => "the client is in deny".to_owned(),
        },
    }
}

/// What becomes of a protocol of which no rule fits, where the default targets do not get it.
pub(crate) fn unmatched(listener: &Listener, protocol: &str, default: &str) -> String {
    match listener.unmatched {
        Unmatched::Drop => format!("no rule for {protocol} fits, and unmatched is \"drop\""),
        Unmatched::Default => format!("no rule for {protocol} fits, and there is no {default}"),
    }
}

/// Why a hello has no destination at a rule with keys for Encrypted Client Hello.
pub(crate) fn refusal_of_ech(state: EchState) -> &'static str {
    match state {
        EchState::Accepted => "the hello opens, but its inner name has no target",
        EchState::NotOffered => "the hello offers none, and the rule requires it",
        EchState::Invalid
        | EchState::UnknownConfig
        | EchState::UnknownSuite
        | EchState::Limited
        | EchState::Undecryptable
        | EchState::SwitchedOff => "no correct client sends this hello",
    }
}

/// Who has banned a client.
pub(crate) fn banned(by: Option<(IpNet, BanSource)>) -> String {
    match by {
        Some((network, BanSource::Command)) => format!("{network} is banned by command: `rpxy-l4 unban {network}`"),
        Some((network, BanSource::Configuration)) => format!("{network} is banned by ebpf.ban in the file"),
        None => "banned".to_owned(),
    }
}

/// Some words, separated by commas; at most three.
pub(crate) fn few<T: std::fmt::Display>(words: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 3;
    let mut words = words.into_iter();
    let shown: Vec<String> = words.by_ref().take(SHOWN).map(|word| word.to_string()).collect();
    match words.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
