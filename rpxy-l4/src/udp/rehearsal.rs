//! A listener with the rules of another one, and targets that nobody else knows.
//!
//! What decides about datagrams also counts, takes places and claims targets; here it does so on ground of its own.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    Listener, Snapshot,
    affinity::Affinity,
    core::{Rehearsed, TargetAddresses},
};
use crate::{
    config::model::{self, AccessLists, AccessLogFormat, AccessLogRefused, Ech, Host, Matcher, Rule, Target, Upstream},
    limit::ByListener,
    log::AccessLines,
    metrics::{Accounts, Metrics},
    resolve::Resolver,
    route::{Targets, UdpRoute},
};

/// What became of datagrams.
#[derive(Debug)]
pub(super) struct Rehearsal {
    pub(super) became: Rehearsed,
    /// The targets that a session goes to, as the file has them.
    pub(super) upstream: Option<Upstream>,
}

/// Asks what becomes of the first `datagrams` of `client` at `listener`. Bans, access lists, limits, and the state of
/// targets have no say.
pub(super) fn rehearse(
    listener: &model::Listener,
    client: SocketAddr,
    datagrams: &[Vec<u8>],
    resolver: &Resolver,
) -> Rehearsal {
    let mut real = Vec::new();
    let stand_in = stand_in(listener, &mut real);
    let targets = Targets::new(&Arc::new(Accounts::default()));
    let (active, sources) = (ByListener::default(), ByListener::default());
    let compiled = Arc::new(Listener::new(&stand_in, (&active, &sources), &targets, resolver));
    let literal = real.iter().flat_map(|upstream| upstream.targets.iter().filter_map(Target::literal));
    let snapshot = Arc::new(Snapshot {
        listeners: HashMap::new(),
        nowhere: Arc::default(),
        // Details of the hello are kept for this form alone.
        access_lines: AccessLines { format: AccessLogFormat::Json, refused: AccessLogRefused::Off },
        target_addresses: TargetAddresses::literal(literal),
    });
    let affinity = Arc::new(Affinity::new(Duration::ZERO, Metrics::new()));
    let became = Rehearsed::new(&snapshot, &compiled, affinity, client, datagrams);
    let upstream = match &became {
        Rehearsed::Session { route, .. } => number_of(route).and_then(|number| real.get(number).cloned()),
        Rehearsed::Waits | Rehearsed::Negotiated | Rehearsed::Refused { .. } => None,
    };
    Rehearsal { became, upstream }
}

/// The listener with other targets, which `real` has by number.
fn stand_in(listener: &model::Listener, real: &mut Vec<Upstream>) -> model::Listener {
    let mut replace = |upstream: &Upstream| {
        let number = u32::try_from(real.len()).unwrap_or(u32::MAX);
        real.push(upstream.clone());
        let targets = upstream.targets.iter().zip(1..).map(|(target, port)| Target {
            host: Host::Ip { address: Ipv4Addr::from(number).into(), scope: 0 },
            port,
            down: false,
            max_connections: None,
            ..target.clone()
        });
        Upstream { targets: targets.collect(), check: None, only_healthy: false, ..upstream.clone() }
    };
    let mut udp = model::Udp { max_connections: None, new_sessions: None, ..listener.udp.clone() };
    udp.default = udp.default.as_ref().map(&mut replace);
    let rules = listener.rules.iter().filter(|rule| rule.matcher.is_udp()).map(|rule| {
        let mut rule = Rule::clone(rule);
        rule.max_connections = None;
        rule.upstream = replace(&rule.upstream);
        if let Matcher::Quic(model::TlsMatcher { ech: Some(ech), .. }) = &mut rule.matcher {
            let mut stand_in = Ech::clone(ech);
            for private in &mut stand_in.private {
                private.upstream = replace(&private.upstream);
            }
            *ech = Arc::new(stand_in);
        }
        Arc::new(rule)
    });
    let rules = rules.collect();
    let access = AccessLists::default();
    model::Listener {
        access,
        udp,
        rules,
        tcp: model::Tcp { default: None, ..listener.tcp.clone() },
        ..listener.clone()
    }
}

/// The number of the targets of a route.
fn number_of(route: &UdpRoute) -> Option<usize> {
    match route.group.endpoints().first()?.target.host {
        Host::Ip { address: std::net::IpAddr::V4(address), .. } => usize::try_from(u32::from(address)).ok(),
        Host::Ip { .. } | Host::LinkLocal { .. } | Host::Name(_) | Host::Srv(_) | Host::Unix(_) => None,
    }
}
