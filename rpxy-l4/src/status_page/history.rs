//! The last minutes, for plots: a sample every few seconds, the oldest forgotten.

use std::{collections::VecDeque, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::metrics::Sample;

/// Samples that are kept: ten minutes.
const MOST: usize = 121;
/// What each sample has, in order.
const FIELDS: [&str; 10] = [
    "uptime_ms",
    "connections",
    "accepted",
    "sessions",
    "begun",
    "bytes_up",
    "bytes_down",
    "refused",
    "relayed",
    "steered",
];

/// The samples, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<[u64; FIELDS.len()]>);

impl History {
    /// Adds how things were at an uptime.
    pub(super) fn add(&mut self, uptime: Duration, sample: Sample) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        let uptime = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
        let Sample { connections, accepted, sessions, begun, bytes_up, bytes_down, refused, relayed, steered } = sample;
        self.0.push_back([
            uptime,
            connections,
            accepted,
            sessions,
            begun,
            bytes_up,
            bytes_down,
            refused,
            relayed,
            steered,
        ]);
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut history = serializer.serialize_struct("History", 2)?;
        history.serialize_field("fields", &FIELDS)?;
        history.serialize_field("samples", &self.0)?;
        history.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: u64) -> serde_json::Value {
        let mut history = History::default();
        for n in 0..samples {
            history.add(Duration::from_secs(n), Sample { connections: n, steered: 2 * n, ..Sample::default() });
        }
        serde_json::to_value(&history).unwrap()
    }

    #[test]
    fn the_latest_samples_are_kept() {
        for (row, samples, kept, oldest) in
            [("none", 0, 0, None), ("one", 1, 1, Some(0)), ("just all", 121, 121, Some(0)), ("more", 122, 121, Some(1))]
        {
            let history = after(samples);
            let samples = history["samples"].as_array().unwrap();
            assert_eq!(samples.len(), kept, "{row}");
            let first = samples.first().map(|sample| sample[0].as_u64().unwrap() / 1000);
            assert_eq!(first, oldest, "{row}");
        }
    }

    #[test]
    fn each_value_stands_under_its_name() {
        let history = after(8);
        let fields = history["fields"].as_array().unwrap();
        let at = |name: &str| fields.iter().position(|field| field == name).unwrap();
        let last = history["samples"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&last[at("uptime_ms")], &last[at("connections")], &last[at("steered")]),
            (&7000.into(), &7.into(), &14.into())
        );
    }
}
