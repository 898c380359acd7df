//! Health of the targets that are checked, read when a scraper asks. The file bounds how many there are.

use std::{
    fmt::{Debug, Error},
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// What one check has found of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetCheck {
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// The target as in the file.
    pub target: String,
    /// Name of the check.
    pub check: String,
    /// One of its addresses is up, or was not checked yet.
    pub up: bool,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
}

/// Those who know the targets.
pub(crate) trait CheckedTargets: Debug + Send + Sync {
    /// Every target that is checked, once for each of its checks.
    fn targets(&self) -> Vec<TargetCheck>;
}

/// The targets as a source of metrics; empty without any.
#[derive(Debug, Clone, Default)]
pub(super) struct TargetSource(Arc<OnceLock<Arc<dyn CheckedTargets>>>);

impl TargetSource {
    /// Shows `targets` from now on. There is one such set in the life of a daemon.
    pub(super) fn fill(&self, targets: Arc<dyn CheckedTargets>) {
        let _second = self.0.set(targets);
    }
}

/// The labels of a target and its check.
fn labels(target: &TargetCheck) -> [(&'static str, &str); 3] {
    [("transport", target.transport), ("target", &target.target), ("check", &target.check)]
}

impl Collector for TargetSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let targets = self.0.get().map(|targets| targets.targets()).unwrap_or_default();
        if targets.is_empty() {
            return Ok(());
        }
        let help = "1 if the check counts the target as up, 0 if as down";
        let mut family = encoder.encode_descriptor("target_up", help, None, MetricType::Gauge)?;
        for target in &targets {
            ConstGauge::new(i64::from(target.up)).encode(family.encode_family(&labels(target))?)?;
        }
        let help = "Checks of a target, by result";
        let mut family = encoder.encode_descriptor("target_checks", help, None, MetricType::Counter)?;
        for target in &targets {
            let [transport, name, check] = labels(target);
            for (result, count) in [("passed", target.passed), ("failed", target.failed)] {
                let labels = [transport, name, check, ("result", result)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[derive(Debug)]
    struct Two;

    impl CheckedTargets for Two {
        fn targets(&self) -> Vec<TargetCheck> {
            let target = |target: &str, up| TargetCheck {
                transport: "tcp",
                target: target.to_owned(),
                check: "web".to_owned(),
                up,
                passed: 7,
                failed: 3,
            };
            vec![target("192.0.2.1:80", true), target("192.0.2.2:80", false)]
        }
    }

    #[test]
    fn targets_show_under_their_documented_names() {
        let metrics = Metrics::new();
        let before = metrics.encode().unwrap();
        assert!(!before.contains("rpxy_l4_target_up") && !before.contains("rpxy_l4_target_checks"), "none is checked");
        metrics.set_targets(Arc::new(Two));
        let text = metrics.encode().unwrap();
        for line in [
            "# TYPE rpxy_l4_target_up gauge",
            "rpxy_l4_target_up{transport=\"tcp\",target=\"192.0.2.1:80\",check=\"web\"} 1",
            "rpxy_l4_target_up{transport=\"tcp\",target=\"192.0.2.2:80\",check=\"web\"} 0",
            "# TYPE rpxy_l4_target_checks counter",
            "rpxy_l4_target_checks_total{transport=\"tcp\",target=\"192.0.2.1:80\",check=\"web\",result=\"passed\"} 7",
            "rpxy_l4_target_checks_total{transport=\"tcp\",target=\"192.0.2.1:80\",check=\"web\",result=\"failed\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let documentation = include_str!("../../../docs/metrics.md");
        for name in ["rpxy_l4_target_up", "rpxy_l4_target_checks_total"] {
            assert!(documentation.contains(&format!("| `{name}` |")), "docs/metrics.md does not name {name}");
        }
    }
}
