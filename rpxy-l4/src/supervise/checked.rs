//! Targets that are checked: which those are, and what is told of them.

use std::net::IpAddr;

use super::daemon::KnownTargets;
use crate::{
    config::model::Config,
    health::Subject,
    metrics::{CheckedTargets, TargetCheck},
    route::{CheckedTarget, Targets},
    tcp, udp,
};

/// The targets that a configuration asks to be checked, those of several rules more than once.
pub(super) fn subjects(tcp: &tcp::Snapshot, udp: &udp::Snapshot) -> Vec<Subject> {
    tcp.endpoints().chain(udp.endpoints()).filter_map(Subject::of).collect()
}

/// The addresses that checks come from: those of connections of any listener.
pub(super) fn sources(config: &Config) -> Vec<IpAddr> {
    let of_all = config.listeners().flat_map(|listener| listener.tcp.source_addresses.iter().copied());
    let mut sources: Vec<IpAddr> = of_all.collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

impl CheckedTargets for KnownTargets {
    fn targets(&self) -> Vec<TargetCheck> {
        let of = |transport: &'static str, targets: &Targets| {
            targets.list_checked().into_iter().map(move |CheckedTarget { target, check, checked }| {
                let (passed, failed) = checked.counts();
                TargetCheck { transport, target, check: check.to_string(), up: !checked.is_down(), passed, failed }
            })
        };
        let mut all: Vec<TargetCheck> = of("tcp", &self.tcp).chain(of("udp", &self.udp)).collect();
        // A series must not come twice: variants of one check are one.
        all.dedup_by(|next, kept| {
            let same = (next.transport, &next.target, &next.check) == (kept.transport, &kept.target, &kept.check);
            if same {
                kept.up &= next.up;
                kept.passed += next.passed;
                kept.failed += next.failed;
            }
            same
        });
        all
    }
}

#[cfg(all(test, feature = "proxy-protocol"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{config, metrics::Metrics, route::Standing};

    #[test]
    fn variants_of_a_check_are_one_series() {
        let text = "listen_port = 1\n[health.x]\nkind = 'connect'\n\
                    [protocols.a]\nprotocol = 'ssh'\ntarget = ['192.0.2.1:1']\nhealth = 'x'\n\
                    [protocols.b]\nprotocol = 'tls'\ntarget = ['192.0.2.1:1']\nhealth = 'x'\n\
                    send_proxy_protocol = 'v2'\n";
        let config = config::parse(text).unwrap_or_else(|problems| panic!("{problems}")).config;
        let targets = KnownTargets::new(&Metrics::new());
        let upstreams = config.top.rules.iter().map(|rule| &rule.upstream);
        let found: Vec<_> = upstreams
            .map(|upstream| targets.tcp.checked(&upstream.targets[0], upstream.check.as_ref().unwrap()))
            .collect();
        assert!(!Arc::ptr_eq(&found[0], &found[1]));
        assert_eq!(targets.targets(), [], "no address is checked yet");
        let standing = Arc::new(Standing::default());
        standing.passed();
        for checked in &found {
            checked.set(vec![(Some(([192, 0, 2, 1], 443).into()), Arc::clone(&standing))]);
        }
        let both = TargetCheck {
            transport: "tcp",
            target: "192.0.2.1:1".to_owned(),
            check: "x".to_owned(),
            up: true,
            passed: 2,
            failed: 0,
        };
        assert_eq!(targets.targets(), [both]);
    }
}
