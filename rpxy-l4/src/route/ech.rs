//! The policy for Encrypted Client Hello of a rule, for both transports.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use rpxy_l4_proto::{
    ech::{Alert, Context, ENCRYPTED_CLIENT_HELLO, EchKeys, FirstHello, open_first},
    tls::ClientHello,
};

use super::{Conditions, NameTable};
use crate::{
    config::model::{Ech, EchPolicy, Upstream},
    limit::Prefixes,
    metrics::EchState,
};

/// Private names do not depend on where a client is.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The `ech` table of a rule, compiled: keys, and private names leading to a `T`.
#[derive(Debug)]
pub(crate) struct EchRoute<T> {
    /// The keys that open hellos.
    pub keys: EchKeys,
    policy: EchPolicy,
    private: NameTable<T>,
}

/// The answer of a rule to the first hello of a connection.
#[derive(Debug)]
pub(crate) enum EchDecision<T> {
    /// The hello goes to the targets of the rule unchanged, by its outer name.
    Outer(EchState),
    /// The hello was decrypted.
    Opened {
        /// The hello that the backend gets.
        inner: Box<ClientHello>,
        /// Its destination.
        route: Arc<T>,
        /// Opens a second hello.
        context: Context,
    },
    /// The hello has no destination, and the client is told nothing: there is no extension where the policy requires
    /// one, or no private name fits.
    Unmatched(EchState),
    /// No correct client sends this hello.
    Invalid(Alert),
}

impl<T> EchDecision<T> {
    /// The state that the hello counts as.
    pub(crate) fn state(&self) -> EchState {
        match self {
            Self::Outer(state) | Self::Unmatched(state) => *state,
            Self::Opened { .. } => EchState::Accepted,
            Self::Invalid(_) => EchState::Invalid,
        }
    }
}

impl<T> EchRoute<T> {
    /// Compiles `ech`; `to` makes the destination of a group of private targets.
    pub(crate) fn new(ech: &Ech, mut to: impl FnMut(&Upstream) -> Arc<T>) -> Self {
        let mut private = NameTable::default();
        for entry in &ech.private {
            // The rule itself has asked where the client is from.
            let conditions = Conditions { names: &entry.server_names, alpns: &entry.alpns, from: &[] };
            private.add(conditions, &to(&entry.upstream));
        }
        Self { keys: ech.keys.clone(), policy: ech.policy, private }
    }

    /// Applies the policy to the first hello of a connection from `source`. Hellos that do not open are charged to
    /// `failures` at `now` (any monotonic time); a source beyond that limit goes by its outer names.
    pub(crate) fn decide(
        &self,
        hello: &ClientHello,
        source: IpAddr,
        failures: &Prefixes,
        now: Duration,
    ) -> EchDecision<T> {
        let decision = self.rehearse(hello, source, failures, now);
        if matches!(decision, EchDecision::Outer(EchState::Undecryptable)) {
            failures.allow(source, now);
        }
        decision
    }

    /// The same decision, charged to nobody.
    pub(crate) fn rehearse(
        &self,
        hello: &ClientHello,
        source: IpAddr,
        failures: &Prefixes,
        now: Duration,
    ) -> EchDecision<T> {
        if self.policy == EchPolicy::Rejected {
            let offered = hello.extension(ENCRYPTED_CLIENT_HELLO).is_some();
            return EchDecision::Outer(if offered { EchState::SwitchedOff } else { EchState::NotOffered });
        }
        match open_first(&self.keys, hello, || failures.would_allow(source, now)) {
            FirstHello::NotOffered if self.policy == EchPolicy::Required => {
                EchDecision::Unmatched(EchState::NotOffered)
            }
            FirstHello::NotOffered => EchDecision::Outer(EchState::NotOffered),
            FirstHello::Rejected(rejection) => EchDecision::Outer(rejection.into()),
            FirstHello::Accepted { inner, context } => match self.find(&inner) {
                Some(route) => EchDecision::Opened { route: Arc::clone(route), inner, context },
                // Ends like any hello whose name has no rule: no default takes what was meant to be private.
                None => EchDecision::Unmatched(EchState::Accepted),
            },
            FirstHello::Invalid(alert) => EchDecision::Invalid(alert),
        }
    }

    /// Returns whether a hello without the extension has no destination.
    pub(crate) fn is_required(&self) -> bool {
        self.policy == EchPolicy::Required
    }

    /// The destination of a decrypted hello; `None` when no private name fits.
    fn find(&self, inner: &ClientHello) -> Option<&Arc<T>> {
        let alpns: Vec<&[u8]> = inner.alpn().collect();
        self.private.find(inner.server_name(), &alpns, NOWHERE)
    }

    /// The destinations of all private names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.private.iter()
    }
}

#[cfg(test)]
mod tests {
    use rpxy_l4_proto::Probe;

    use super::*;
    use crate::config::{ech::from_base64, model::EchPrivate, parse};

    /// Hellos of a Go client: outside for `public.example`, inside for `private.example`.
    const OUTER: &[u8] = include_bytes!("../../../rpxy-l4-proto/src/ech/testdata/go_hello_first.bin");
    const LIST: &str = "AEH+DQA9QQAgACBA33gCXp5kB6qZDDobZiUWmF3pM58j/PDRen/3YLbEWwAEAAEAAQAOcHVibGljLmV4YW1wbGUAAA==";
    const KEY: &str = "iCqDaWFEAeGlFe0ajA6KD/5SKj9w7lT9bmx2tu1Od0c=";

    fn rule(policy: EchPolicy, private_name: &str) -> EchRoute<String> {
        let text = format!(
            "listen_port = 1\n[protocols.\"t\"]\nprotocol = \"tls\"\nserver_names = [\"{private_name}\"]\n\
             target = [\"192.0.2.1:1\"]"
        );
        let rule = parse(&text).unwrap().config.top.rules[0].clone();
        let crate::config::model::Matcher::Tls(matcher) = &rule.matcher else { panic!("{rule:?}") };
        let private = EchPrivate {
            server_names: matcher.server_names.clone(),
            alpns: Vec::new(),
            upstream: rule.upstream.clone(),
        };
        let keys = from_base64(LIST, &[KEY]).unwrap();
        EchRoute::new(&Ech { keys, policy, private: vec![private] }, |_| Arc::new("private".to_owned()))
    }

    fn hello(message: &[u8]) -> ClientHello {
        let Probe::Match(hello) = ClientHello::parse(message.to_vec()) else { panic!("not a hello") };
        hello
    }

    /// The outer hello with one byte replaced, counted from its end.
    fn with_byte(from_end: usize, byte: u8) -> Vec<u8> {
        let mut message = OUTER.to_vec();
        let at = message.len() - from_end;
        message[at] = byte;
        message
    }

    /// A hello without extensions.
    fn plain() -> Vec<u8> {
        let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &[0, 0]].concat();
        [&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat()
    }

    fn answer(decision: &EchDecision<String>) -> String {
        match decision {
            EchDecision::Outer(state) => format!("outer {}", state.name()),
            EchDecision::Opened { inner, route, .. } => format!("{} to {route}", inner.server_name().unwrap_or("-")),
            EchDecision::Unmatched(state) => format!("unmatched {}", state.name()),
            EchDecision::Invalid(alert) => format!("alert {alert}"),
        }
    }

    #[test]
    fn policies() {
        use EchPolicy::{Allowed, Rejected, Required};
        let damaged = with_byte(1, OUTER[OUTER.len() - 1] ^ 1);
        for (row, policy, private, message, expected) in [
            ("opened", Allowed, "private.example", OUTER, "private.example to private"),
            ("opened where required", Required, "private.example", OUTER, "private.example to private"),
            ("no private name fits", Allowed, "other.example", OUTER, "unmatched accepted"),
            ("switched off", Rejected, "private.example", OUTER, "outer switched_off"),
            ("switched off, none offered", Rejected, "private.example", &plain(), "outer not_offered"),
            ("none offered", Allowed, "private.example", &plain(), "outer not_offered"),
            ("none offered where required", Required, "private.example", &plain(), "unmatched not_offered"),
            ("does not open", Allowed, "private.example", &damaged, "outer undecryptable"),
            ("does not open, required", Required, "private.example", &damaged, "outer undecryptable"),
        ] {
            let failures = Prefixes::new(1);
            let source = "192.0.2.1".parse().unwrap();
            let decision = rule(policy, private).decide(&hello(message), source, &failures, Duration::ZERO);
            assert_eq!(answer(&decision), expected, "{row}");
        }
    }

    #[test]
    fn a_source_whose_hellos_do_not_open_is_limited() {
        let damaged = hello(&with_byte(1, OUTER[OUTER.len() - 1] ^ 1));
        let (rule, failures) = (rule(EchPolicy::Allowed, "private.example"), Prefixes::new(1));
        let decide = |hello: &ClientHello, source: &str| {
            answer(&rule.decide(hello, source.parse().unwrap(), &failures, Duration::ZERO))
        };
        while decide(&damaged, "192.0.2.1") == "outer undecryptable" {}
        assert_eq!(decide(&damaged, "192.0.2.1"), "outer limited");
        assert_eq!(decide(&hello(OUTER), "192.0.2.1"), "outer limited", "also for a hello that would open");
        assert_eq!(decide(&hello(OUTER), "192.0.2.2"), "private.example to private", "another source");
    }
}
