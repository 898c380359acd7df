//! `explain` against the core that decides: made-up configurations, states of targets, clients and datagrams, each explained
//! and then given to a worker's sessions.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rpxy_l4_common::mac1::Mac1Key;
use rpxy_l4_proto::{
    quic::{ConnectionId, Version, first_datagrams},
    tls::{Offer, client_hello},
};

use super::{
    super::{
        Snapshot,
        affinity::Affinity,
        core::{Command, Flow, Output, Sessions},
    },
    State, explain,
};
use crate::{
    config,
    config::model::{Config, Dns, Transport},
    explain::{Draw, Explanation, Question, Verdict},
    limit::{Bans, ByListener, DrainedListeners},
    metrics::Metrics,
    resolve::Resolver,
    route::Targets,
};

const KEYS: [[u8; 32]; 2] = [[7; 32], [8; 32]];

fn configuration(draw: &Draw) -> String {
    let targets = |id: &str| {
        let targets: Vec<String> = (0..1 + draw.below(3))
            .map(|index| {
                // One of them has to be neither.
                let mark =
                    if index == 0 { id } else { draw.one(&["", ", backup = true", ", down = true", ", weight = 3"]) };
                format!("{{ address = '198.51.100.{}:{}'{mark} }}", 1 + draw.below(4), 1000 + index)
            })
            .collect();
        format!("[{}]", targets.join(", "))
    };
    let balance = || draw.one(&["none", "source_ip", "source_socket", "random", "round_robin", "least_conn"]);
    let mut text = "listen_port = 1\n".to_owned();
    if draw.one_in(2) {
        text += &format!("udp_target = {}\nudp_load_balance = '{}'\n", targets(""), balance());
    }
    for (key, words) in [
        ("unmatched", &["drop", "default"] as &[_]),
        ("orphan", &["drop", "default", "balance"]),
        ("quic_unknown_version", &["drop", "default"]),
    ] {
        if draw.one_in(2) {
            text += &format!("{key} = '{}'\n", draw.one(words));
        }
    }
    if draw.one_in(4) {
        text += draw.one(&["deny = ['192.0.2.0/24']\n", "allow = ['203.0.113.0/24', '2001:db8::/32']\n"]);
    }
    if draw.one_in(4) {
        text += "udp_new_sessions_per_source = 1\nudp_new_sessions_burst = 1\n";
    }
    for rule in 0..1 + draw.below(5) {
        let protocol = draw.one(&["quic", "quic", "wireguard"]);
        let id = format!(", quic_server_id = '0a0{rule}'");
        let id = if protocol == "quic" && draw.one_in(3) { &*id } else { "" };
        let (to, balance) = (targets(id), balance());
        text += &format!("[protocols.r{rule}]\nprotocol = '{protocol}'\ntarget = {to}\nload_balance = '{balance}'\n");
        if protocol == "quic" {
            let names = draw.some(&["a.example", "b.example", "x.a.example", "*.example", "*.a.example"]);
            if !names.is_empty() {
                text += &format!("server_names = {names:?}\n");
            }
            let alpns = draw.some(&["h3", "doq"]);
            if !alpns.is_empty() {
                text += &format!("alpns = {alpns:?}\n");
            }
        } else {
            if draw.one_in(2) {
                text += &format!("public_key = '{}'\n", STANDARD.encode(draw.one(&KEYS)));
            }
            if draw.one_in(4) {
                text += "reserved = 'any'\n";
            }
        }
        let from = draw.some(&["203.0.113.0/24", "203.0.113.7", "192.0.2.0/24", "2001:db8::/32"]);
        if !from.is_empty() && draw.one_in(2) {
            text += &format!("from = {from:?}\n");
        }
    }
    text
}

fn initial(draw: &Draw) -> Vec<Vec<u8>> {
    let name = draw.one(&[Some("a.example"), Some("x.a.example"), Some("c.example"), Some("example"), None]);
    let long = [&[b'x'; 250][..]; 8];
    let alpns = [&[] as &[&[u8]], &[&b"h3"[..]], &[b"doq", b"h3"], &long];
    let alpn = draw.one(&alpns);
    let hello = client_hello(&Offer {
        server_name: name,
        alpn,
        random: [1; 32],
        session_id: &[],
        key_share: [2; 32],
        transport_parameters: Some(&[15, 0]),
    });
    let version = draw.one(&[Version::V1, Version::V2]);
    let id = |byte| ConnectionId::new(&[byte; 8]).unwrap();
    first_datagrams(version, id(0x51), id(0x52), &hello.unwrap()).unwrap()
}

fn datagrams(draw: &Draw) -> Vec<Vec<u8>> {
    match draw.below(10) {
        0..4 => {
            let mut datagrams = initial(draw);
            if draw.one_in(4) {
                datagrams.truncate(1);
            }
            if draw.one_in(3) {
                // Small, another version, or damaged.
                let first = &mut datagrams[0];
                match draw.below(3) {
                    0 => first.truncate(600),
                    // A version that does not exist (RFC 9000 section 15).
                    1 => first[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]),
                    _ => first[100] ^= 1,
                }
            }
            datagrams
        }
        4 | 5 => {
            let mut initiation = [5; 148];
            initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
            Mac1Key::new(&draw.one(&KEYS)).sign(&mut initiation);
            initiation[1] = draw.one(&[0, 0, 9]);
            vec![initiation.to_vec()]
        }
        6 => vec![[&[4, 0, 0, 0][..], &[3; 60]].concat()],
        7 => vec![[&[draw.one(&[0x41, 0x01, 0x1f])][..], &[0x0a, draw.one(&[0, 1, 2])], &[9; 60]].concat()],
        8 => vec![[&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[0; 20]].concat()],
        _ => vec![draw.one(&[&[] as &[u8], &[0], b"a query", &[0xff; 1300]]).to_vec()],
    }
}

/// What a worker makes of it: `goes <address>`, `waits`, `answered`, or `refused <reason>`.
fn decided(sessions: &mut Sessions, client: SocketAddr, datagrams: &[Vec<u8>], now: Duration) -> String {
    let flow = Flow { listener: 0, client, local: None };
    let mut out = Output::default();
    for datagram in datagrams {
        sessions.handle_datagrams(&flow, datagram, datagram.len(), 0, now, &mut out);
        let opened = out.commands.iter().find_map(|command| {
            let Command::Open { address, .. } = command else { return None };
            Some(format!("goes {address}"))
        });
        if let Some(opened) = opened {
            return opened;
        }
        if let Some(refused) = out.refused.first() {
            return format!("refused {}", refused.reason.name());
        }
    }
    if !sessions.is_empty() {
        return "waits".to_owned();
    }
    if out.commands.iter().any(|command| matches!(command, Command::Reply { .. })) {
        return "answered".to_owned();
    }
    format!("refused {}", out.dropped.first().map_or("?", |(reason, _)| reason.name()))
}

/// What a daemon has in effect.
struct World {
    config: Config,
    metrics: Arc<Metrics>,
    bans: Arc<Bans>,
    targets: Targets,
    resolver: Resolver,
    snapshot: Arc<Snapshot>,
}

impl World {
    const SOCKET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);

    fn new(text: &str) -> Self {
        let config = config::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}")).config;
        let metrics = Metrics::new();
        let bans = Arc::new(Bans::default());
        bans.set_configured(&["203.0.113.9".parse::<IpAddr>().unwrap().into()]);
        let dns = Dns { min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(1) };
        let resolver = Resolver::new(tokio::runtime::Handle::current(), dns, Arc::clone(&metrics));
        let targets = Targets::new(metrics.udp_accounts());
        let active = ByListener::default();
        let listens = [(Self::SOCKET, "default")];
        let snapshot = Arc::new(Snapshot::new(&config, &listens, &active, &targets, &resolver));
        Self { config, metrics, bans, targets, resolver, snapshot }
    }

    /// A worker without sessions.
    fn worker(&self, seed: u64) -> Sessions {
        let affinity = Arc::new(Affinity::new(Duration::ZERO, Arc::clone(&self.metrics)));
        let mut sessions = Sessions::new(Arc::clone(&self.snapshot), affinity, Arc::clone(&self.bans), seed);
        sessions.handle_listening(0, Arc::clone(self.snapshot.at(Self::SOCKET)));
        sessions
    }

    fn explained(&self, from: SocketAddr, first: &[Vec<u8>], drained: bool, now: Duration) -> Explanation {
        let Self { config, bans, targets, resolver, snapshot, .. } = self;
        let state = State { snapshot, bans, targets, resolver, drained, not_steered: None, now };
        let (transport, listener) = (Transport::Udp, None);
        let question = Question { transport, listener, from, first: first.to_vec(), rule: None, limit: 100 };
        explain(state, &config.top, &question, "daemon").unwrap()
    }
}

#[tokio::test]
async fn where_all_targets_are_full_one_that_has_shown_less_gives_way() {
    let world = World::new("listen_port = 1\nudp_target = [{ address = '192.0.2.1:1', max_connections = 1 }]\n");
    let mut worker = world.worker(1);
    let first = [b"a question".to_vec()];
    for (row, client, full) in [("one place", "203.0.113.7:1", false), ("none", "203.0.113.8:1", true)] {
        let (client, now) = (client.parse().unwrap(), Duration::from_secs(1));
        let explained = world.explained(client, &first, false, now);
        let noted = explained.notes.iter().any(|note| note.contains("(target_connections)"));
        assert_eq!(noted, full, "{row}: {explained:#?}");
        let Verdict::Goes { to, .. } = &explained.verdict else { panic!("{row}: {explained:#?}") };
        assert_eq!(to[..], ["192.0.2.1:1".into()], "{row}");
        assert_eq!(decided(&mut worker, client, &first, now), "goes 192.0.2.1:1", "{row}");
    }
}

#[tokio::test]
async fn an_explanation_is_what_the_core_decides() {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for seed in 0..150 {
        let draw = Draw::new(seed);
        let text = configuration(&draw);
        let world = World::new(&text);
        for case in 0..10_u64 {
            let now = Duration::from_millis(1 + 100 * case);
            for (_, health) in world.targets.list() {
                match draw.below(8) {
                    0 => drop(health.administrative().drain(now)),
                    1 => drop(health.failed(now, Duration::from_secs(3600))),
                    2 => drop((health.administrative().up(), health.reached())),
                    // It is due.
                    3 => drop(health.failed(now, Duration::ZERO)),
                    _ => {}
                }
            }
            let drained = draw.one_in(12);
            let addresses = ["203.0.113.7", "203.0.113.8", "203.0.113.9", "192.0.2.1", "2001:db8::1"];
            let client = SocketAddr::new(draw.one(&addresses).parse().unwrap(), draw.one(&[0, 50_000]));
            let first = datagrams(&draw);
            let explained = world.explained(client, &first, drained, now);
            let again = world.explained(client, &first, drained, now);
            let about = format!("seed {seed}, case {case}: {first:?} from {client}: {explained:#?}\n{text}");
            assert_eq!(again, explained, "asking leaves no trace: {about}");

            let mut sessions = world.worker(seed);
            let mut listeners = DrainedListeners::default();
            if drained {
                listeners.drain(None, Duration::ZERO);
            }
            sessions.set_drained(Arc::new(listeners));
            let decided = decided(&mut sessions, client, &first, now);
            let kind = match &explained.verdict {
                Verdict::Goes { to, .. } => {
                    let address = decided.strip_prefix("goes ").unwrap_or_else(|| panic!("{decided}, {about}"));
                    assert!(to.contains(&address.into()), "{address}, {about}");
                    if to.len() > 1 { "one of several" } else { "goes" }
                }
                Verdict::Refused { reason, .. } => {
                    assert_eq!(decided, format!("refused {reason}"), "{about}");
                    reason
                }
                Verdict::Answered { .. } => {
                    assert_eq!(decided, "answered", "{about}");
                    "answered"
                }
                Verdict::Waits { .. } => {
                    assert_eq!(decided, "waits", "{about}");
                    "waits"
                }
            };
            *seen.entry(kind).or_default() += 1;
            let chosen = usize::from(explained.chosen.as_ref().is_some_and(|chosen| chosen.rule.is_some()));
            assert_eq!(explained.others.len() + chosen, world.config.top.rules.len(), "each rule has its say: {about}");
        }
    }
    for kind in [
        "goes",
        "one of several",
        "waits",
        "answered",
        "banned",
        "denied",
        "drained",
        "source_limited",
        "unmatched",
        "orphan",
        "not_recognised",
        "unknown_version",
        "unreachable",
    ] {
        assert!(seen.get(kind).is_some_and(|count| *count >= 3), "{kind}: {seen:?}");
    }
}
