//! What would become of first datagrams, asked of the code that decides about them, in its order of questions.
//!
//! Nothing is taken or counted: the decision is [rehearsed](super::rehearsal), limits are read, balancing leaves no trace.

mod plane;
mod read;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rpxy_l4_proto::{Probe, wireguard::Message};

use plane::{speaks_against, steered, words};
use read::Read;

use super::{
    Listener, Snapshot,
    core::Rehearsed,
    rehearsal::{Rehearsal, rehearse},
};
use crate::{
    config::model::{self, UnknownVersion},
    explain::{self, Asked, Chosen, Explanation, Order, Plane, Question, Rules, Verdict, Way, explain_rules, order},
    limit::Bans,
    metrics::DatagramDrop,
    resolve::{Lookup, Resolver},
    route::{Datagrams, Endpoint, Group, Targets, UdpRoute},
};

/// The state that the answer depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State<'a> {
    pub snapshot: &'a Snapshot,
    pub bans: &'a Bans,
    pub targets: &'a Targets,
    pub resolver: &'a Resolver,
    /// An operator wants no new sessions.
    pub drained: bool,
    /// Why nothing is steered; `None` where something may be.
    pub not_steered: Option<&'static str>,
    /// Time since the daemon's start.
    pub now: Duration,
}

/// Explains what would become of the datagrams that `question` describes at `listener`; `None` if that has no sockets of
/// UDP. `answered_by` is for the answer alone.
pub(crate) fn explain(
    state: State<'_>,
    listener: &model::Listener,
    question: &Question,
    answered_by: &'static str,
) -> Option<Explanation> {
    let compiled = state.snapshot.listeners.values().find(|compiled| compiled.name == listener.name)?;
    let sockets = state.snapshot.listeners.iter().filter(|(_, compiled)| compiled.name == listener.name);
    let mut listen: Vec<String> = sockets.map(|(address, _)| address.to_string()).collect();
    listen.sort();
    let client = question.from;
    let none = [Vec::new()];
    let datagrams = if question.first.is_empty() { &none[..] } else { &question.first };
    let mut asking = Asking { state, listener: compiled, questions: Vec::new(), verdict: None, notes: Vec::new() };
    asking.of_client(client);

    let Rehearsal { became, upstream } = rehearse(listener, client, datagrams, state.resolver);
    let read = Read::new(compiled, datagrams);
    let (route, carries) = match &became {
        Rehearsed::Session { route, .. } => (Some(route), read.carries(route.carries)),
        Rehearsed::Waits | Rehearsed::Negotiated => (None, Datagrams::Quic),
        Rehearsed::Refused { carries, .. } => (None, read.carries(*carries)),
    };
    // The rule that a hello without destination has come to.
    let outer = read.rule(compiled, client.ip()).filter(|_| matches!(became, Rehearsed::Refused { ech: Some(_), .. }));
    let chosen_rule = route.and_then(|route| route.rule.as_deref()).or(outer.and_then(|route| route.rule.as_deref()));
    let seen = read.seen(carries, client.ip(), datagrams);
    let rules = explain_rules(listener, true, seen.as_asked(), chosen_rule, question.rule.as_deref(), question.limit);
    let Rules { matched, others, not_listed } = rules;
    let mut targets = None;
    let mut chosen = None;
    let mut plane = Plane { plane: "userspace", because: state.not_steered.map(str::to_owned).into_iter().collect() };
    match &became {
        Rehearsed::Session { route, fixed, by_source, .. } => {
            chosen = Some(Chosen {
                rule: route.rule.clone(),
                because: matched.map_or_else(|| no_rule(carries, &read).to_owned(), |matched| matched.0),
            });
            asking.places(route, client, fixed.is_some(), *by_source);
            let way = match (fixed, by_source) {
                (Some(index), _) => Way::Fixed(*index),
                (None, true) => Way::BySource,
                (None, false) => Way::All,
            };
            if let Some(upstream) = &upstream {
                let group = Group::new(upstream, state.targets, state.resolver);
                let order = order(&group, client, way, state.now, |endpoint: &Endpoint| {
                    endpoint.is_full().then_some("has as many sessions as it may have")
                });
                asking.go(route, &group, &order);
                plane = asking.plane(route, &group, client);
                targets = Some(order.choice);
            }
        }
        Rehearsed::Waits => {
            asking.decide(Verdict::Waits { until: "the rest of the ClientHello, in further datagrams".to_owned() });
        }
        Rehearsed::Negotiated => asking.decide(Verdict::Answered {
            with: "Version Negotiation: no rule takes a version whose hello cannot be read".to_owned(),
        }),
        Rehearsed::Refused { reason, ech: Some(state), .. } => {
            let rule = outer.and_then(|route| route.rule.clone());
            chosen = matched.map(|matched| Chosen { rule, because: matched.0 });
            asking.refuses("ECH", *reason, explain::refusal_of_ech(*state));
        }
        Rehearsed::Refused { reason, ech: None, .. } => {
            let because = refusal(*reason, listener, carries, &read);
            asking.decide(Verdict::Refused { reason: reason.name(), because });
        }
    }
    let Asking { questions, verdict, notes, .. } = asking;
    Some(Explanation {
        transport: question.transport,
        listener: Arc::clone(&listener.name),
        listen,
        from: client.to_string(),
        answered_by,
        bytes: datagrams.iter().map(Vec::len).sum(),
        datagrams: datagrams.len(),
        verdict: verdict.unwrap_or(Verdict::Waits { until: "it begins".to_owned() }),
        questions,
        recognised: read.told(carries, &became),
        chosen,
        others,
        not_listed,
        targets,
        proxy_header: None,
        plane,
        notes,
    })
}

/// An explanation in the making.
struct Asking<'a> {
    state: State<'a>,
    listener: &'a Listener,
    questions: Vec<Asked>,
    /// The first refusal, or the target.
    verdict: Option<Verdict>,
    notes: Vec<String>,
}

impl Asking<'_> {
    fn passes(&mut self, question: &'static str, answer: impl Into<String>) {
        self.questions.push(Asked::passes(question, answer));
    }

    fn refuses(&mut self, question: &'static str, reason: DatagramDrop, answer: impl Into<String>) {
        let because = answer.into();
        self.questions.push(Asked::refuses(question, reason.name(), because.clone()));
        self.decide(Verdict::Refused { reason: reason.name(), because });
    }

    /// The first decision is the one that counts.
    fn decide(&mut self, verdict: Verdict) {
        self.verdict.get_or_insert(verdict);
    }

    fn of_client(&mut self, client: SocketAddr) {
        let ip = client.ip();
        if self.state.bans.refuses(ip) {
            self.refuses("ban", DatagramDrop::Banned, explain::banned(self.state.bans.around(ip)));
        } else {
            self.passes("ban", "not banned");
        }
        match self.listener.access.why(ip) {
            Some(denied) => self.refuses("access list", DatagramDrop::Denied, explain::refusal_of_access(denied, ip)),
            None if self.listener.access.is_open() => self.passes("access list", "none"),
            None => self.passes("access list", "allows it"),
        }
    }

    /// Whether one more session may begin.
    fn places(&mut self, route: &UdpRoute, client: SocketAddr, is_fixed: bool, by_source: bool) {
        if self.state.drained && !is_fixed {
            let answer = "the listener is drained by command: see `rpxy-l4 up`";
            self.refuses("in service", DatagramDrop::Drained, answer);
        }
        if let Some(sources) = self.listener.sources.as_ref().filter(|_| !is_fixed && !by_source) {
            let rate = sources.limit().rate;
            if sources.would_allow(client.ip(), self.state.now) {
                self.passes("source", format!("its network is within {rate} new sessions a second"));
            } else {
                let answer = format!("its network is over {rate} new sessions a second");
                self.refuses("source", DatagramDrop::SourceLimited, answer);
            }
        }
        // The rule as it is in effect.
        let rule = self.listener.routes.named(route.rule.as_deref());
        if let Some((rule, most)) = rule.and_then(|rule| Some((rule, rule.max_connections?.get()))) {
            self.room("rule's sessions", rule.connections.count(), most, DatagramDrop::RuleConnections);
        }
        let limit = &self.listener.sessions;
        self.room("sessions", limit.active.count(), limit.most, DatagramDrop::TooMany);
    }

    /// A limit at which one gives way to another.
    fn room(&mut self, question: &'static str, count: u32, most: u32, reason: DatagramDrop) {
        if count < most {
            return self.passes(question, format!("{count} of {most}"));
        }
        self.passes(question, format!("{count} of {most}: one that has shown less gives way"));
        self.notes.push(format!("if every session has shown more, this one is refused ({})", reason.name()));
    }

    fn go(&mut self, route: &UdpRoute, group: &Group, order: &Order) {
        let goes = |to| Verdict::Goes { rule: route.rule.clone(), to };
        if !order.first.is_empty() {
            return self.decide(goes(order.first.clone()));
        }
        let full: Vec<_> = group.full(self.state.now).map(|(_, endpoint)| Arc::clone(&endpoint.text)).collect();
        if !full.is_empty() {
            let note = "each target has as many sessions as it may have: one of the rule's that has shown less gives way; \
                        if none has, this one is refused (target_connections)";
            self.notes.push(note.to_owned());
            return self.decide(goes(full));
        }
        let (reason, because) = if group.only_healthy() {
            (DatagramDrop::Unhealthy, "no target is up, and only_healthy wants one")
        } else {
            (DatagramDrop::Unreachable, "no target may be tried")
        };
        self.decide(Verdict::Refused { reason: reason.name(), because: because.to_owned() });
    }

    /// What the kernel may do of a session of `route`.
    fn plane(&self, route: &UdpRoute, group: &Group, client: SocketAddr) -> Plane {
        let mut against: Vec<String> = self.state.not_steered.map(str::to_owned).into_iter().collect();
        let literal = |endpoint: &Endpoint| endpoint.target.literal().map(|address| address.ip());
        let named = |endpoint: &Endpoint| {
            let known = endpoint.lookup().and_then(Lookup::known).unwrap_or_default();
            known.into_iter().map(|place| place.address.ip())
        };
        let mut all_against = true;
        for endpoint in group.endpoints().iter().take(16) {
            let addresses: Vec<IpAddr> = literal(endpoint).into_iter().chain(named(endpoint)).collect();
            for address in &addresses {
                match speaks_against(client.ip(), *address) {
                    Some(reason) => against.push(format!("{}: {}", endpoint.text, words(reason))),
                    None => all_against = false,
                }
            }
            all_against &= !addresses.is_empty();
        }
        let kernel = self.state.not_steered.is_none() && !all_against;
        against.dedup();
        if self.state.not_steered.is_none() {
            against.push(steered(route.carries).to_owned());
        }
        Plane { plane: if kernel { "kernel" } else { "userspace" }, because: against }
    }
}

/// Why the default targets.
fn no_rule(carries: Datagrams, read: &Read) -> &'static str {
    match (carries, &read.wireguard, &read.hello) {
        (_, Some(Message::Initiation { .. }), _) => "no rule for wireguard fits, and unmatched is \"default\"",
        (_, Some(_), _) => "a stray, and orphan has it go there",
        (_, None, Some(Probe::Match(_) | Probe::Unreadable)) => "no rule for quic fits, and unmatched is \"default\"",
        _ => "it is not recognised",
    }
}

/// Why it goes nowhere.
fn refusal(reason: DatagramDrop, listener: &model::Listener, carries: Datagrams, read: &Read) -> String {
    let protocol = carries.name().strip_prefix("udp:").unwrap_or("udp");
    if reason == DatagramDrop::Unmatched {
        explain::unmatched(listener, protocol, "udp_target")
    } else if reason == DatagramDrop::NotRecognised {
        "it is not recognised, and there is no udp_target".to_owned()
    } else if reason == DatagramDrop::Orphan {
        "it is from the middle of a connection or tunnel that is not known here, and orphan has no destination for it"
            .to_owned()
    } else if reason == DatagramDrop::Loop {
        "the client's address is a target's: an answer that went astray begins no session".to_owned()
    } else if reason == DatagramDrop::UnknownVersion && listener.udp.unknown_version == UnknownVersion::Drop {
        "quic of a version whose hello cannot be read, and quic_unknown_version is \"drop\"".to_owned()
    } else if reason == DatagramDrop::Malformed && read.has_initial {
        "an Initial packet in a datagram that is too small".to_owned()
    } else {
        reason.name().replace('_', " ")
    }
}

#[cfg(test)]
mod tests;
