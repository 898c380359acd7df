//! The series of rules and targets, made of their accounts when a scraper asks.

use std::{
    fmt::{Debug, Error},
    sync::{Arc, atomic::Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::{
    accounts::{Accounts, Load, RuleAccount, TCP_REFUSALS, TargetAccount, UDP_REFUSALS},
    times::{Counted, Times},
};

/// The accounts of both transports as a source of metrics.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) tcp: Arc<Accounts>,
    pub(super) udp: Arc<Accounts>,
}

/// What an account is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRule {
    transport: &'static str,
    rule: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTarget {
    transport: &'static str,
    target: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

type Rules = Vec<(OfRule, Arc<RuleAccount>)>;
type Targets = Vec<(OfTarget, Arc<TargetAccount>)>;

impl Series {
    /// The source of these accounts.
    pub(super) fn collector(&self) -> Box<dyn Collector> {
        Box::new(Self { tcp: Arc::clone(&self.tcp), udp: Arc::clone(&self.udp) })
    }

    fn transports(&self) -> [(&'static str, &Accounts); 2] {
        [("tcp", &self.tcp), ("udp", &self.udp)]
    }

    fn rules(&self) -> Rules {
        let of = |(transport, accounts): (&'static str, &Accounts)| {
            let labelled = move |(rule, account)| (OfRule { transport, rule }, account);
            accounts.rules().into_iter().map(labelled).collect::<Vec<_>>()
        };
        self.transports().into_iter().flat_map(of).collect()
    }

    fn targets(&self) -> Targets {
        let of = |(transport, accounts): (&'static str, &Accounts)| {
            let labelled = move |(target, account)| (OfTarget { transport, target }, account);
            accounts.targets().into_iter().map(labelled).collect::<Vec<_>>()
        };
        self.transports().into_iter().flat_map(of).collect()
    }
}

impl Collector for Series {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let rules = self.rules();
        let loads = || rules.iter().map(|(labels, account)| (labels, &account.load));
        encode_loads(&mut encoder, "rule", "of a rule", &loads)?;
        let help = "Connections and sessions of a rule that were turned away, by reason";
        let mut family = encoder.encode_descriptor("rule_refused", help, None, MetricType::Counter)?;
        for (labels, account) in &rules {
            let reasons: Vec<&'static str> = match labels.transport {
                "tcp" => TCP_REFUSALS.iter().map(|outcome| outcome.name()).collect(),
                _ => UDP_REFUSALS.iter().map(|reason| reason.name()).collect(),
            };
            for (reason, count) in reasons.into_iter().zip(account.refusals()) {
                counter(&mut family, &(labels.clone(), Reason { reason }), count)?;
            }
        }
        let targets = self.targets();
        let loads = || targets.iter().map(|(labels, account)| (labels, &account.load));
        encode_loads(&mut encoder, "target", "to a target", &loads)?;
        let help = "Failed attempts to reach a target";
        let mut family = encoder.encode_descriptor("target_connect_failed", help, None, MetricType::Counter)?;
        for (labels, account) in &targets {
            counter(&mut family, labels, account.connect_failed.load(Ordering::Relaxed))?;
        }
        let of_tcp = targets.iter().filter(|(labels, _)| labels.transport == "tcp");
        let times = of_tcp.map(|(labels, account)| (labels, &account.connect));
        let help = "Time that a TCP connection to a target took to be established";
        encode_times(&mut encoder, "target_connect", help, times)?;
        let times = targets.iter().map(|(labels, account)| (labels, &account.first_byte));
        let help =
            "Time from a connection to a target, or a session's first datagram, to the first byte of its backend";
        encode_times(&mut encoder, "target_first_byte", help, times)
    }
}

/// Series that rules and targets have in common, named after `what`.
fn encode_loads<'a, L, I>(
    encoder: &mut DescriptorEncoder<'_>,
    what: &str,
    whose: &str,
    loads: &impl Fn() -> I,
) -> Result<(), Error>
where
    L: EncodeLabelSet + Clone + 'a,
    I: Iterator<Item = (&'a L, &'a Load)>,
{
    let (name, help) = (format!("{what}_started"), format!("Connections and sessions {whose} that got a backend"));
    let mut family = encoder.encode_descriptor(&name, &help, None, MetricType::Counter)?;
    for (labels, load) in loads() {
        counter(&mut family, labels, load.started())?;
    }
    let (name, help) = (format!("{what}_active"), format!("Connections and sessions {whose} now"));
    let mut family = encoder.encode_descriptor(&name, &help, None, MetricType::Gauge)?;
    for (labels, load) in loads() {
        ConstGauge::new(load.active()).encode(family.encode_family(labels)?)?;
    }
    let (name, help) = (format!("{what}_relayed"), format!("Payload of connections and sessions {whose}"));
    let mut family = encoder.encode_descriptor(&name, &help, Some(&Unit::Bytes), MetricType::Counter)?;
    for (labels, load) in loads() {
        let (up, down) = load.bytes();
        counter(&mut family, &(labels.clone(), Direction { direction: "up" }), up)?;
        counter(&mut family, &(labels.clone(), Direction { direction: "down" }), down)?;
    }
    Ok(())
}

fn counter(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> Result<(), Error> {
    ConstCounter::new(value).encode(family.encode_family(labels)?)
}

fn encode_times<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    times: impl Iterator<Item = (&'a OfTarget, &'a Times)>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for (labels, times) in times {
        let Counted { sum, count, buckets } = times.counted();
        family.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::metrics::{Carried, Metrics, Outcome};

    #[test]
    fn rules_and_targets_show_with_what_they_carry() {
        let metrics = Metrics::new();
        let name: Arc<str> = "a \"b\" \\ \n".into();
        let (rule, target) = (metrics.tcp_accounts().rule(&name), metrics.tcp_accounts().target("a:1"));
        let (default, other) =
            (metrics.udp_accounts().rule(&"udp_target".into()), metrics.udp_accounts().target("a:1"));
        let mut first = Carried::new(&rule, &target);
        first.tell(3, 4);
        target.connected(Duration::from_millis(3));
        first.answered(Duration::from_secs(9));
        rule.refused(Outcome::NoPort);
        target.connect_failed();
        drop(Carried::new(&default, &other));
        let text = metrics.encode().unwrap();
        for line in [
            r#"rpxy_l4_rule_started_total{transport="tcp",rule="a \"b\" \\ \n"} 1"#,
            r#"rpxy_l4_rule_active{transport="tcp",rule="a \"b\" \\ \n"} 1"#,
            r#"rpxy_l4_rule_refused_total{transport="tcp",rule="a \"b\" \\ \n",reason="no_port"} 1"#,
            r#"rpxy_l4_rule_refused_total{transport="udp",rule="udp_target",reason="shortage"} 0"#,
            r#"rpxy_l4_rule_started_total{transport="udp",rule="udp_target"} 1"#,
            r#"rpxy_l4_rule_active{transport="udp",rule="udp_target"} 0"#,
            r#"rpxy_l4_target_started_total{transport="tcp",target="a:1"} 1"#,
            r#"rpxy_l4_target_relayed_bytes_total{transport="tcp",target="a:1",direction="down"} 4"#,
            r#"rpxy_l4_target_connect_failed_total{transport="tcp",target="a:1"} 1"#,
            r#"rpxy_l4_target_connect_failed_total{transport="udp",target="a:1"} 0"#,
            r#"rpxy_l4_target_connect_seconds_bucket{le="0.0025",transport="tcp",target="a:1"} 0"#,
            r#"rpxy_l4_target_connect_seconds_bucket{le="0.005",transport="tcp",target="a:1"} 1"#,
            r#"rpxy_l4_target_first_byte_seconds_bucket{le="5.0",transport="tcp",target="a:1"} 0"#,
            r#"rpxy_l4_target_first_byte_seconds_bucket{le="+Inf",transport="tcp",target="a:1"} 1"#,
            r#"rpxy_l4_target_first_byte_seconds_sum{transport="tcp",target="a:1"} 9.0"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
        }
        drop((rule, target, first));
        assert!(!metrics.encode().unwrap().contains("transport=\"tcp\",rule"), "the rule is gone");
    }

    #[test]
    fn a_thousand_rules_have_as_many_series_as_documented() {
        let metrics = Metrics::new();
        let before = metrics.encode().unwrap().lines().count();
        let names: Vec<Arc<str>> = (0..1000).map(|number| format!("rule-{number}").into()).collect();
        let rules: Vec<_> = names.iter().map(|name| metrics.tcp_accounts().rule(name)).collect();
        let hosts = (0..100).map(|number| format!("backend-{number}.example.com:443"));
        let targets: Vec<_> = hosts.map(|host| metrics.tcp_accounts().target(&host)).collect();
        let began = Instant::now();
        let text = crate::metrics::text::prometheus(&metrics.encode().unwrap());
        // `cargo test --release -p rpxy-l4 --lib a_thousand_rules -- --nocapture` shows what a scrape takes.
        println!("{} bytes in {:?}", text.len(), began.elapsed());
        assert_eq!(metrics.encode().unwrap().lines().count() - before, 1000 * 9 + 100 * 37);
        drop((rules, targets));
    }
}
