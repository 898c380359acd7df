//! Rates, made of two overviews.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;

use crate::{
    config::model::Transport,
    overview::{Counts, Overview, Rule, Target, Times},
};

/// What happened between two looks at one daemon, for each second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// The time between them in seconds.
    pub(super) interval_s: f64,
    /// TCP connections accepted.
    pub(super) connections: f64,
    /// TCP connections turned away.
    pub(super) connections_refused: f64,
    /// UDP sessions that got a backend.
    pub(super) sessions: f64,
    /// Datagrams turned away.
    pub(super) datagrams_refused: f64,
    /// Datagrams that the daemon forwarded.
    pub(super) datagrams: f64,
    /// Packets that the kernel forwarded.
    pub(super) steered: f64,
    /// Payload from clients, over all rules.
    pub(super) bytes_up: f64,
    /// Payload to clients.
    pub(super) bytes_down: f64,
    /// Processors in use.
    pub(super) processors: f64,
    /// In the order of the overview.
    pub(super) rules: Vec<RuleRates>,
    /// Likewise.
    pub(super) targets: Vec<TargetRates>,
}

/// What a rule carried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RuleRates {
    transport: Transport,
    name: Arc<str>,
    #[serde(flatten)]
    pub(super) carried: Carried,
    /// Connections or sessions turned away.
    pub(super) refused: f64,
}

/// What a target carried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct TargetRates {
    transport: Transport,
    rule: Option<Arc<str>>,
    target: String,
    #[serde(flatten)]
    pub(super) carried: Carried,
    /// Failed attempts to reach it.
    pub(super) failures: f64,
    /// Mean time in microseconds that connections took to be established, if there were any.
    pub(super) connect_us: Option<f64>,
    /// The same of the time to the first byte.
    pub(super) first_byte_us: Option<f64>,
}

/// Connections or sessions, and their payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Carried {
    /// Those that got a backend.
    pub(super) started: f64,
    /// Payload from clients.
    pub(super) bytes_up: f64,
    /// Payload to clients.
    pub(super) bytes_down: f64,
}

impl Rates {
    /// The rates between two overviews; `None` where they are not of one daemon, or of one moment.
    pub(super) fn between(before: &Overview, after: &Overview) -> Option<Self> {
        let millis = after.uptime_ms.checked_sub(before.uptime_ms).filter(|millis| *millis > 0)?;
        if before.pid != after.pid {
            return None;
        }
        let per = Per(as_f64(millis) / 1000.0);
        let rules = rules(per, before, after);
        let sum = |of: fn(&Carried) -> f64| rules.iter().map(|rule| of(&rule.carried)).sum();
        let total = |counts: &Counts| counts.values().sum();
        let steered = |overview: &Overview| overview.kernel_plane.counters.get("steered").copied().unwrap_or_default();
        Some(Self {
            interval_s: per.0,
            connections: per.of(before.tcp.accepted, after.tcp.accepted),
            connections_refused: per.of(total(&before.tcp.refused), total(&after.tcp.refused)),
            sessions: per.of(before.udp.started, after.udp.started),
            datagrams_refused: per.of(total(&before.udp.refused), total(&after.udp.refused)),
            datagrams: per.of(before.udp.datagrams_up, after.udp.datagrams_up)
                + per.of(before.udp.datagrams_down, after.udp.datagrams_down),
            steered: per.of(steered(before), steered(after)),
            bytes_up: sum(|carried| carried.bytes_up),
            bytes_down: sum(|carried| carried.bytes_down),
            processors: per.of(before.process.cpu_ms, after.process.cpu_ms) / 1000.0,
            rules,
            targets: targets(per, before, after),
        })
    }
}

/// Seconds between two numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Per(pub(super) f64);

impl Per {
    /// What came to `before` in a second. A counter that went back began anew, and tells nothing.
    pub(super) fn of(self, before: u64, after: u64) -> f64 {
        after.checked_sub(before).map_or(0.0, |more| as_f64(more) / self.0)
    }
}

fn rules(per: Per, before: &Overview, after: &Overview) -> Vec<RuleRates> {
    let key = |rule: &Rule| (rule.transport, Arc::clone(&rule.name));
    let old: HashMap<_, &Rule> = before.rules.iter().map(|rule| (key(rule), rule)).collect();
    let rates = |rule: &Rule| {
        let before = old.get(&key(rule)).copied();
        let carried = before.map(|before| Carried {
            started: per.of(before.started, rule.started),
            bytes_up: per.of(before.bytes_up, rule.bytes_up),
            bytes_down: per.of(before.bytes_down, rule.bytes_down),
        });
        let total = |counts: &Counts| counts.values().sum();
        RuleRates {
            transport: rule.transport,
            name: Arc::clone(&rule.name),
            carried: carried.unwrap_or_default(),
            refused: before.map_or(0.0, |before| per.of(total(&before.refused), total(&rule.refused))),
        }
    };
    after.rules.iter().map(rates).collect()
}

fn targets(per: Per, before: &Overview, after: &Overview) -> Vec<TargetRates> {
    // What is counted is the same in each rule that names a target.
    let old: HashMap<_, &Target> =
        before.targets.iter().map(|target| ((target.transport, target.target.as_str()), target)).collect();
    let rates = |target: &Target| {
        let before = old.get(&(target.transport, target.target.as_str())).copied();
        let carried = before.map(|before| Carried {
            started: per.of(before.started, target.started),
            bytes_up: per.of(before.bytes_up, target.bytes_up),
            bytes_down: per.of(before.bytes_down, target.bytes_down),
        });
        TargetRates {
            transport: target.transport,
            rule: target.rule.clone(),
            target: target.target.clone(),
            carried: carried.unwrap_or_default(),
            failures: before.map_or(0.0, |before| per.of(before.failures, target.failures)),
            connect_us: before.and_then(|before| mean(before.connect, target.connect)),
            first_byte_us: before.and_then(|before| mean(before.first_byte, target.first_byte)),
        }
    };
    after.targets.iter().map(rates).collect()
}

/// The mean of the times that came between.
fn mean(before: Option<Times>, after: Option<Times>) -> Option<f64> {
    let (before, after) = (before?, after?);
    let count = after.count.checked_sub(before.count).filter(|count| *count > 0)?;
    Some(as_f64(after.sum_us.checked_sub(before.sum_us)?) / as_f64(count))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(super) fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overview(uptime_ms: u64, pid: u32) -> Overview {
        let mut overview = Overview { uptime_ms, pid, ..Overview::default() };
        overview.rules.push(Rule::new("web".into(), Transport::Tcp));
        overview.targets.push(Target::new(Transport::Tcp, "a:1".to_owned()));
        overview
    }

    #[test]
    fn rates_are_of_one_daemon_at_two_moments() {
        for (row, before, after, expected) in [
            ("two seconds", (1000, 7), (3000, 7), Some(2.0)),
            ("the same moment", (1000, 7), (1000, 7), None),
            ("another process", (1000, 7), (3000, 8), None),
            ("the same number again", (5000, 7), (3000, 7), None),
        ] {
            let rates = Rates::between(&overview(before.0, before.1), &overview(after.0, after.1));
            assert_eq!(rates.map(|rates| rates.interval_s), expected, "{row}");
        }
    }

    #[test]
    fn counters_become_rates() {
        let (before, mut after) = (overview(1000, 7), overview(3000, 7));
        after.tcp.accepted = 10;
        after.tcp.refused = Counts::from([("unmatched".into(), 3), ("banned".into(), 1)]);
        after.process.cpu_ms = 1000;
        after.kernel_plane.counters = Counts::from([("steered".into(), 8)]);
        after.rules[0].bytes_down = 4096;
        after.rules.push(Rule { bytes_down: 1 << 40, ..Rule::new("new".into(), Transport::Tcp) });
        after.targets[0].connect = Some(Times { count: 4, sum_us: 2000, ..Times::default() });
        let mut known = before.clone();
        known.targets[0].connect = Some(Times { count: 2, sum_us: 500, ..Times::default() });
        let rates = Rates::between(&known, &after).unwrap();
        assert_eq!((rates.connections, rates.connections_refused, rates.processors), (5.0, 2.0, 0.5));
        assert_eq!(
            (rates.steered, rates.bytes_down),
            (4.0, 2048.0),
            "what a new rule has carried is not of this interval"
        );
        assert_eq!(rates.targets[0].connect_us, Some(750.0));
        let back = Rates::between(&after, &Overview { uptime_ms: 4000, ..before }).unwrap();
        assert_eq!((back.connections, back.bytes_down), (0.0, 0.0), "counters that went back");
    }
}
