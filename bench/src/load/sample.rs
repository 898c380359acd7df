//! Outcome of one run of the load generator, as its process reports it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

/// The outcome of one run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// Operations inside the measured window: exchanges, connections, datagrams or bytes.
    pub operations: u64,
    /// Length of the measured window, in seconds.
    pub seconds: f64,
    /// Operations from the start to the end of the run, warm-up included: what processor time is divided by.
    pub all_operations: u64,
    /// Median latency of one operation, in microseconds; 0 where the workload has none.
    pub p50_us: f64,
    /// 99th percentile of the latency of one operation, in microseconds; 0 where the workload has none.
    pub p99_us: f64,
    /// Operations that failed, over the whole run.
    pub failures: u64,
}

impl Sample {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        // Counts of a few seconds are far below 2^53.
        self.operations as f64 / self.seconds
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        json!({
            "operations": self.operations,
            "seconds": self.seconds,
            "all_operations": self.all_operations,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "failures": self.failures,
        })
        .to_string()
    }

    /// Reads what [`Sample::to_json`] has written.
    ///
    /// # Errors
    ///
    /// When a field is missing, or nothing was measured.
    pub fn from_json(line: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let count = |key: &str| value[key].as_u64().with_context(|| format!("{key} in {line}"));
        let number = |key: &str| value[key].as_f64().with_context(|| format!("{key} in {line}"));
        let sample = Self {
            operations: count("operations")?,
            seconds: number("seconds")?,
            all_operations: count("all_operations")?,
            p50_us: number("p50_us")?,
            p99_us: number("p99_us")?,
            failures: count("failures")?,
        };
        ensure!(sample.operations > 0 && sample.seconds > 0.0, "nothing was measured: {line}");
        Ok(sample)
    }
}

/// Durations of operations, for percentiles.
#[derive(Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Adds the duration of one operation.
    pub fn record(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Number of operations recorded.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest duration that at least `per_mille` thousandths of all do not exceed, in microseconds; 0 of none.
    pub fn percentile_us(&mut self, per_mille: usize) -> f64 {
        let rank = (self.0.len() * per_mille).div_ceil(1000).saturating_sub(1);
        if self.0.is_empty() {
            return 0.0;
        }
        let (_, duration, _) = self.0.select_nth_unstable(rank);
        duration.as_secs_f64() * 1e6
    }
}
