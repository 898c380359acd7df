//! The targets of a group, in the order in which a client would try them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    config::model::Balance,
    resolve::{Lookup, NOT_OFFERED},
    route::{Endpoint, Group, Pick, Tried},
};

/// Targets of a group that are listed; those that would be tried come first.
const MOST_LISTED: usize = 64;

/// How a target is chosen, and which there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TargetChoice {
    /// As in the file.
    pub balance: &'static str,
    /// In words.
    pub by: String,
    /// What is down is not tried at all.
    pub only_healthy: bool,
    pub list: Vec<TargetLine>,
    /// Targets that are not listed.
    pub not_listed: usize,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TargetLine {
    pub target: Arc<str>,
    /// When it is tried: 1 is first; several are 1 where time, chance or load decides. `None` if it is not tried.
    pub order: Option<usize>,
    pub backup: bool,
    pub weight: u16,
    /// Connections at once, if it has a limit.
    pub max_connections: Option<u32>,
    /// Addresses of a name or service, as far as they are known, in an order in which they may be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// `up`, `down`, `drained`, or `off` for `down = true` in the file.
    pub state: &'static str,
    /// Why it is not up.
    pub reason: Option<String>,
    /// For how long, in milliseconds, where that is known.
    pub since_ms: Option<u64>,
    /// Connections or sessions that it has.
    pub active: u32,
    /// What else there is to say of it.
    pub note: Option<&'static str>,
}

/// How a client comes to targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By balancing: so many at most, and none behind one that is known to be down.
    Few(usize),
    /// By balancing, until none is left.
    All,
    /// By its address whatever the balancing is, until none is left.
    BySource,
    /// To this one alone.
    Fixed(usize),
}

/// The order in which a client tries targets.
#[derive(Debug)]
pub(crate) struct Order {
    pub choice: TargetChoice,
    /// Those that may be first; empty if there is none to try.
    pub first: Vec<Arc<str>>,
}

/// Asks `group` for the targets that `client` would try at `now`. `against` tells of a target that balancing has chosen why
/// it cannot be had all the same.
pub(crate) fn order(
    group: &Group,
    client: SocketAddr,
    way: Way,
    now: Duration,
    against: impl Fn(&Endpoint) -> Option<&'static str>,
) -> Order {
    let balance = if way == Way::BySource { Balance::SourceIp } else { group.balance() };
    let most = if let Way::Few(most) = way { most } else { usize::MAX };
    let pick = |tried: &Tried| match way {
        Way::Few(_) | Way::All => group.rehearse(client, 0, now, tried),
        Way::BySource => group.rehearse_by_source(client, now, tried),
        Way::Fixed(index) => tried.is_empty().then_some(Pick { index, up: true }),
    };
    let mut tried = Tried::default();
    let mut order: Vec<(usize, usize, Option<&'static str>)> = Vec::new();
    let mut first = Vec::new();
    let mut place = 0;
    while place < most.min(MOST_LISTED) && order.len() < MOST_LISTED {
        let Some(next) = pick(&tried) else { break };
        tried.add(next.index);
        let Some(endpoint) = group.endpoint(next.index) else { break };
        if let Some(note) = against(endpoint) {
            order.push((next.index, 0, Some(note)));
            continue;
        }
        place += 1;
        if place == 1 {
            let certain = matches!(way, Way::Fixed(_)) || is_certain(balance, client);
            first = if certain { vec![next.index] } else { group.alternatives(next, now) };
            first.retain(|index| group.endpoint(*index).is_some_and(|endpoint| against(endpoint).is_none()));
            order.extend(first.iter().take(MOST_LISTED).map(|index| (*index, 1, None)));
        } else if !first.contains(&next.index) {
            order.push((next.index, place, None));
        }
        if matches!(way, Way::Few(_)) && !next.up {
            // Nobody tries another one behind what is known to be down.
            break;
        }
    }
    let listed: Vec<usize> = order.iter().map(|(index, ..)| *index).collect();
    let rest = (0..group.endpoints().len()).filter(|index| !listed.contains(index)).map(|index| (index, 0, None));
    let all: Vec<_> = order.iter().copied().chain(rest).collect();
    let line = |(index, place, note): &(usize, usize, Option<&'static str>)| {
        let endpoint = group.endpoint(*index)?;
        let check = endpoint.active.as_ref().map(|active| (&active.check.name, &*active.checked));
        let known = endpoint.lookup().map(Lookup::known);
        let unresolved = match &known {
            Some(None) => Some("not resolved yet"),
            Some(Some(known)) if known.is_empty() => Some(NOT_OFFERED),
            Some(Some(_)) | None => None,
        };
        let addresses = known.map(|known| {
            let tiers = group.order(endpoint, &known.unwrap_or_default(), client, 0, now);
            tiers.into_iter().flatten().map(|address| address.to_string()).collect()
        });
        let report = endpoint.health.report(endpoint.target.down, check, now);
        Some(TargetLine {
            target: Arc::clone(&endpoint.text),
            order: (*place > 0).then_some(*place),
            backup: endpoint.target.backup,
            weight: endpoint.target.weight.get(),
            max_connections: endpoint.target.max_connections.map(std::num::NonZeroU32::get),
            addresses,
            state: report.state,
            reason: report.reason,
            since_ms: report.since_ms,
            active: report.active,
            note: note.or(unresolved),
        })
    };
    let text = |index: &usize| group.endpoint(*index).map(|endpoint| Arc::clone(&endpoint.text));
    let choice = TargetChoice {
        balance: name(balance),
        by: words(balance, client, way, first.len()),
        only_healthy: group.only_healthy(),
        list: all.iter().take(MOST_LISTED).filter_map(line).collect(),
        not_listed: all.len().saturating_sub(MOST_LISTED),
    };
    Order { choice, first: first.iter().filter_map(text).collect() }
}

/// Returns whether the client alone decides.
fn is_certain(balance: Balance, client: SocketAddr) -> bool {
    match balance {
        Balance::None | Balance::SourceIp => true,
        Balance::SourceSocket => client.port() != 0,
        Balance::Random | Balance::RoundRobin | Balance::LeastConn => false,
    }
}

fn name(balance: Balance) -> &'static str {
    match balance {
        Balance::None => "none",
        Balance::SourceIp => "source_ip",
        Balance::SourceSocket => "source_socket",
        Balance::Random => "random",
        Balance::RoundRobin => "round_robin",
        Balance::LeastConn => "least_conn",
    }
}

fn words(balance: Balance, client: SocketAddr, way: Way, first: usize) -> String {
    let one_of = |what: &str| {
        if first > 1 { format!("{what}: one of the {first} that are first") } else { what.to_owned() }
    };
    match balance {
        _ if matches!(way, Way::Fixed(_)) => "the one that the connection ID names (server_ids)".to_owned(),
        Balance::None => "the first in the file that can be reached".to_owned(),
        Balance::SourceIp if way == Way::BySource => "by the client's address, as orphan asks for".to_owned(),
        Balance::SourceIp => "by the client's address".to_owned(),
        Balance::SourceSocket if client.port() == 0 => one_of("by the client's address and port, which is not given"),
        Balance::SourceSocket => "by the client's address and port".to_owned(),
        Balance::Random => one_of("at random, by weight"),
        Balance::RoundRobin => one_of("in turn, by weight"),
        Balance::LeastConn => one_of("by the connections that each has for its weight"),
    }
}
