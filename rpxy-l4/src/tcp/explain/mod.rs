//! What would become of a connection, asked of the code that serves one, in its order of questions.
//!
//! Nothing is taken or counted: limits are read, balancing is rehearsed, and hellos that do not open are charged to nobody.

#[cfg(feature = "proxy-protocol")]
mod header;
mod recognised;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use rpxy_l4_proto::Probe;
#[cfg(feature = "proxy-protocol")]
use rpxy_l4_proto::proxy_protocol::has_signature;

use recognised::{Recognition, detail, no_rule, readable, short};

use super::{
    Listener, Origin, Shared, Snapshot,
    alert::Refusal,
    connect::{most_reaching, none_to_try},
    connection::choose,
    ech::{Destination, destination},
    is_unnamed,
    probe::{Prober, Recognised},
    source::Introduction,
    splice::foretell,
};
use crate::{
    config::model,
    explain,
    explain::{
        Asked, Chosen, Explanation, Order, Plane, Question, Rules, Seen, TargetChoice, Verdict, Way, explain_rules,
        order, refusal_of_access,
    },
    metrics::{EchState, Outcome},
    route::{self, Endpoint, Protocol, Route, Tried},
};

/// Explains what would become of the connection that `question` describes at `listener`; `None` if that has no sockets of
/// TCP. `answered_by` is for the answer alone; `drained` says that the listeners are, `splices` that the kernel may take over.
pub(crate) fn explain(
    shared: &Shared,
    snapshot: &Snapshot,
    listener: &model::Listener,
    question: &Question,
    (answered_by, drained, splices): (&'static str, bool, bool),
) -> Option<Explanation> {
    let compiled = snapshot.listeners.values().find(|compiled| compiled.name == listener.name)?;
    let mut listen: Vec<String> = snapshot
        .listeners
        .iter()
        .filter(|(_, compiled)| compiled.name == listener.name)
        .map(|(address, _)| address.to_string())
        .collect();
    listen.sort();
    let now = shared.uptime(tokio::time::Instant::now());
    let mut asking =
        Asking { shared, listener: compiled, questions: Vec::new(), verdict: None, notes: Vec::new(), now };
    if drained {
        let answer = "the listening sockets are closed by command: see `rpxy-l4 up`";
        asking.refuses("in service", Outcome::Drained, answer);
    }
    let received = question.first.concat();
    let (origin, received) = asking.admit(question.from, &received);
    let source = origin.source;

    let recognition = asking.recognise(&received);
    let recognised = recognition.value.as_ref();
    let found = choose(&compiled.routes, recognised, source.ip());
    let mut told = recognition.told();
    let rules = asking.rules(listener, question, recognised, found.and_then(|route| route.rule.as_deref()), source);
    let Rules { matched, others, not_listed } = rules;
    let mut chosen = None;
    let mut targets = None;
    let mut relayed = "TCP is relayed by the daemon".to_owned();
    #[cfg_attr(not(feature = "proxy-protocol"), expect(unused_mut, reason = "there are no headers"))]
    let mut proxy_header = None;
    match found {
        None => asking.refuse_unfound(listener, recognised, received.is_empty()),
        Some(route) => {
            chosen = Some(Chosen {
                rule: route.rule.clone(),
                because: matched.map_or_else(|| no_rule(&compiled.routes, recognised), |matched| matched.0),
            });
            let opened = asking.open(route, recognition.value.as_ref(), source, &mut told);
            let route = opened.as_ref().unwrap_or(route);
            asking.places(route);
            let order = asking.targets(route, source);
            asking.go(route, &order);
            targets = Some(order.choice);
            if splices {
                let protocol = recognised.map_or(Protocol::Any, Recognised::protocol);
                relayed = format!("{relayed}: {}", foretell(route.splice, protocol));
            }
            #[cfg(feature = "proxy-protocol")]
            {
                proxy_header = header::proxy(route, &origin, &listen, &mut asking.notes);
            }
        }
    }
    let Asking { questions, verdict, notes, .. } = asking;
    Some(Explanation {
        transport: question.transport,
        listener: listener.name.clone(),
        listen,
        from: compiled.source(question.from).to_string(),
        answered_by,
        bytes: question.first.iter().map(Vec::len).sum(),
        datagrams: 0,
        verdict: verdict.unwrap_or(Verdict::Waits { until: "it begins".to_owned() }),
        questions,
        recognised: told,
        chosen,
        others,
        not_listed,
        targets: targets.filter(|targets: &TargetChoice| !targets.list.is_empty()),
        proxy_header,
        plane: Plane { plane: "userspace", because: vec![relayed] },
        notes,
    })
}

/// An explanation in the making.
struct Asking<'a> {
    shared: &'a Shared,
    listener: &'a Listener,
    questions: Vec<Asked>,
    /// The first refusal, or the target.
    verdict: Option<Verdict>,
    notes: Vec<String>,
    now: Duration,
}

impl Asking<'_> {
    fn passes(&mut self, question: &'static str, answer: impl Into<String>) {
        self.questions.push(Asked::passes(question, answer));
    }

    /// The first refusal is the one that counts.
    fn refuses(&mut self, question: &'static str, outcome: Outcome, answer: impl Into<String>) {
        let answer = answer.into();
        self.refused(outcome, answer.clone());
        self.questions.push(Asked::refuses(question, outcome.name(), answer));
    }

    fn refused(&mut self, outcome: Outcome, because: String) {
        self.verdict.get_or_insert(Verdict::Refused { reason: outcome.name(), because });
    }

    /// Who is let in, and as whom, up to the end of the PROXY header. Returns what was received behind that.
    fn admit<'r>(&mut self, peer: SocketAddr, received: &'r [u8]) -> (Origin, Cow<'r, [u8]>) {
        #[cfg(feature = "proxy-protocol")]
        if let Some(receive) = &self.listener.settings.receive_proxy {
            let (mut origin, mut received) = (own(peer), Cow::Borrowed(received));
            let is_trusted = receive.trusted.iter().any(|network| network.contains(&peer.ip().to_canonical()));
            if !is_trusted && !is_unnamed(peer) && !has_signature(&received) {
                self.notes.push(
                    "clients of this listener are introduced by load balancers of tcp_trusted_proxies: this one is taken \
                     as named by a PROXY header"
                        .to_owned(),
                );
                self.of_client(peer, Introduction::Header);
                self.max_connections();
                return (origin, received);
            }
            self.of_client(peer, Introduction::None);
            self.max_connections();
            let introduced = match super::inbound::introduction(receive, peer, &received) {
                super::inbound::Introduced::By { origin, len, .. } => {
                    received = received.get(len..).unwrap_or_default().to_vec().into();
                    Ok(origin)
                }
                super::inbound::Introduced::Refused(outcome) => Err(outcome),
                super::inbound::Introduced::NeedMore { may_be_absent } => {
                    super::inbound::no_more(may_be_absent, peer).map(|(origin, _)| origin)
                }
            };
            match introduced {
                Ok(told) if told.source == peer => self.passes("PROXY header", "none: its own connection"),
                Ok(told) => self.passes("PROXY header", format!("names the client {}", told.source)),
                Err(outcome) => self.refuses("PROXY header", outcome, proxy_refusal(outcome)),
            }
            if let Ok(told) = introduced {
                origin = told;
                self.of_client(told.source, Introduction::Header);
            }
            return (origin, received);
        }
        self.of_client(peer, Introduction::None);
        self.max_connections();
        (own(peer), Cow::Borrowed(received))
    }

    /// Bans, access lists and limits of sources.
    fn of_client(&mut self, source: SocketAddr, introduction: Introduction) {
        if is_unnamed(source) {
            return self.passes("client", "of a unix socket: has no address to ask about");
        }
        let (bans, ip) = (&self.shared.bans, source.ip());
        if bans.refuses(ip) {
            let answer = explain::banned(bans.around(ip));
            self.refuses("ban", Outcome::Banned, answer);
        } else {
            self.passes("ban", "not banned");
        }
        if !self.listener.knows_client(introduction) {
            return self.passes("access list", "not asked of a load balancer");
        }
        match self.listener.refuses(source, introduction) {
            Some(denied) => self.refuses("access list", Outcome::Denied, refusal_of_access(denied, ip)),
            None if self.listener.access.is_open() => self.passes("access list", "none"),
            None => self.passes("access list", "allows it"),
        }
        let settings = &self.listener.settings;
        match (self.shared.would_place(self.listener, source, introduction), settings.max_connections_per_source) {
            (Some(Outcome::SourceRate), _) => {
                self.refuses("source", Outcome::SourceRate, "its network is over tcp_new_connections_per_source now");
            }
            (Some(outcome), max) => {
                let max = max.map_or(0, std::num::NonZeroU32::get);
                let answer = format!("its network has {max} connections, tcp_max_connections_per_source");
                self.refuses("source", outcome, answer);
            }
            (None, Some(max)) => {
                let count = self.listener.per_source.count(ip, settings.source_prefix);
                self.passes("source", format!("its network has {count} of {max} connections"));
            }
            (None, None) => self.passes("source", "no limit"),
        }
    }

    fn max_connections(&mut self) {
        let (count, max) = (self.listener.connections.count(), self.listener.settings.max_connections.get());
        let answer = format!("{count} of {max}");
        if count >= max {
            self.refuses("connections", Outcome::TooMany, format!("{answer}, tcp_max_connections"));
        } else {
            self.passes("connections", answer);
        }
    }

    fn recognise(&mut self, received: &[u8]) -> Recognition {
        let routes = &self.listener.routes;
        if !routes.must_probe() {
            let detail = Some("not looked at: there is only tcp_target".to_owned());
            return Recognition { value: None, detail };
        }
        let mut prober = Prober::new(routes);
        match prober.advance(received) {
            Probe::Match(value) => Recognition { detail: detail(&value), value: Some(value) },
            Probe::NotThis | Probe::Unreadable => {
                Recognition { value: None, detail: Some("none of the protocols that have a rule here".to_owned()) }
            }
            Probe::NeedMore => {
                let patience = prober.patience().unwrap_or(self.listener.settings.probe_timeout);
                self.notes.push(format!(
                    "more bytes could still change the answer: it is what becomes of these after {patience:?} without more"
                ));
                let value = prober.settle(received);
                let nothing = if received.is_empty() { "no byte" } else { "nothing certain" };
                let detail = value.as_ref().map_or_else(|| Some(nothing.to_owned()), detail);
                Recognition { value, detail }
            }
        }
    }

    fn rules(
        &mut self,
        listener: &model::Listener,
        question: &Question,
        recognised: Option<&Recognised>,
        chosen: Option<&str>,
        source: SocketAddr,
    ) -> Rules {
        let ip = source.ip();
        let asked = |name| route::Asked { name, alpns: &[], source: ip };
        let alpns: Vec<&[u8]>;
        let seen = match recognised {
            Some(Recognised::Tls { hello, .. }) => {
                alpns = hello.alpn().collect();
                Seen::Tls(route::Asked { name: hello.server_name(), alpns: &alpns, source: ip })
            }
            Some(Recognised::TlsUnreadable) => Seen::Tls(asked(None)),
            Some(Recognised::Http(request)) => Seen::Http(asked(request.host.as_deref())),
            Some(Recognised::Http2Waiting) if self.listener.routes.http_has_one_group() => Seen::AnyHttp(asked(None)),
            Some(Recognised::Http2Waiting | Recognised::HttpUnreadable) => Seen::Http(asked(None)),
            Some(Recognised::Ssh) => Seen::Ssh(ip),
            Some(Recognised::Socks5) => Seen::Socks5(ip),
            None => Seen::Nothing,
        };
        explain_rules(listener, false, seen, chosen, question.rule.as_deref(), question.limit)
    }

    /// There is no destination.
    fn refuse_unfound(&mut self, listener: &model::Listener, recognised: Option<&Recognised>, is_silent: bool) {
        match recognised.map(Recognised::protocol) {
            Some(protocol) => {
                self.refused(Outcome::Unmatched, explain::unmatched(listener, short(protocol), "tcp_target"));
            }
            None if is_silent => {
                self.refused(Outcome::NotRecognised, "the client says nothing, and there is no tcp_target".to_owned());
            }
            None => {
                self.refused(Outcome::NotRecognised, "it is not recognised, and there is no tcp_target".to_owned());
            }
        }
    }

    /// The route of private targets, if the hello opens.
    fn open(
        &mut self,
        route: &Route,
        recognised: Option<&Recognised>,
        source: SocketAddr,
        told: &mut explain::Recognised,
    ) -> Option<std::sync::Arc<Route>> {
        const QUESTION: &str = "ECH";
        let rule = route.ech.as_ref()?;
        let (hello, end) = match recognised {
            Some(Recognised::Tls { hello, end }) => (hello, *end),
            Some(Recognised::TlsUnreadable) => {
                told.ech = Some(EchState::NotOffered.name());
                if rule.is_required() {
                    self.refuses(QUESTION, Outcome::Unmatched, "the hello cannot be read, and the rule requires ECH");
                } else {
                    self.passes(QUESTION, "the hello cannot be read: it goes on as it is");
                }
                return None;
            }
            Some(_) | None => return None,
        };
        let decision = rule.rehearse(hello, source.ip(), &self.shared.failed_hellos, self.now);
        let state = decision.state();
        told.ech = Some(state.name());
        match destination(decision, end) {
            Ok(Destination::Outer(state)) => {
                self.passes(QUESTION, format!("{}: goes on by its outer name", state.name()));
                None
            }
            Ok(Destination::Private { inner, route, .. }) => {
                told.inner_server_name = inner.server_name().map(str::to_owned);
                told.alpn = inner.alpn().map(readable).collect();
                self.passes(QUESTION, "opens: goes to the private targets of its inner name");
                Some(route)
            }
            Err(Refusal { outcome, .. }) => {
                // One that does not fill its last record is not to be rewritten.
                let state = if outcome == Outcome::EchInvalid { EchState::Invalid } else { state };
                self.refuses(QUESTION, outcome, explain::refusal_of_ech(state));
                None
            }
        }
    }

    /// Limits of the rule.
    fn places(&mut self, route: &Route) {
        let (count, most) = (route.connections.count(), self.shared.most_of_rule(self.listener, route));
        let of = match (route.max_connections, most) {
            (Some(max), _) => format!("{count} of {max}, its max_connections"),
            (None, u32::MAX) => format!("{count}, no limit of its own"),
            (None, most) => format!("{count} of {most}, its share while places are short"),
        };
        if count >= most {
            self.refuses("rule's connections", Outcome::RuleConnections, of);
        } else {
            self.passes("rule's connections", of);
        }
        let (waiting, most) = (route.group.reaching().count(), most_reaching(self.listener));
        if waiting >= most {
            let answer = format!("{waiting} wait for its targets already, as many as may");
            self.refuses("waiting for targets", Outcome::Unreachable, answer);
        }
    }

    fn targets(&self, route: &Route, source: SocketAddr) -> Order {
        let most = usize::try_from(self.listener.settings.connect_attempts.get()).unwrap_or(usize::MAX);
        order(&route.group, source, Way::Few(most), self.now, |endpoint: &Endpoint| {
            if endpoint.is_full() {
                return Some("has as many connections as it may have");
            }
            let own = endpoint.address().and_then(Result::ok).is_some_and(|address| self.listener.own.is(address));
            own.then_some("is this daemon's own listener")
        })
    }

    fn go(&mut self, route: &Route, order: &Order) {
        if order.first.is_empty() {
            let outcome = none_to_try(&route.group, &Tried::default()).unwrap_or(Outcome::Unreachable);
            let because = if outcome == Outcome::TargetConnections {
                "each target has as many connections as it may have"
            } else if outcome == Outcome::Unhealthy {
                "no target is up, and only_healthy wants one"
            } else {
                "no target may be tried"
            };
            self.refused(outcome, because.to_owned());
        } else {
            let goes = Verdict::Goes { rule: route.rule.clone(), to: order.first.clone() };
            self.verdict.get_or_insert(goes);
        }
    }
}

fn own(peer: SocketAddr) -> Origin {
    Origin {
        source: peer,
        #[cfg(feature = "proxy-protocol")]
        destination: None,
    }
}

#[cfg(feature = "proxy-protocol")]
fn proxy_refusal(outcome: Outcome) -> &'static str {
    if outcome == Outcome::ProxyUntrusted {
        "the peer is not in tcp_trusted_proxies"
    } else if outcome == Outcome::ProxyIncomplete {
        "not complete"
    } else {
        "missing or malformed"
    }
}
