//! Lines that strangers cause: few for each source network, and few in all.

use std::{net::IpAddr, time::Duration};

use super::{
    bucket::{Bucket, Rate},
    sources::{Sources, timing},
};
use crate::config::model::{NewSessions, SourcePrefix};

/// A number at once, and then so many a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineRate {
    /// At once; at least 1.
    pub burst: u32,
    /// In the long run; at least 1.
    pub per_second: u32,
}

/// Source networks that are told apart; more of them only means that some get lines more often.
const SLOTS: usize = 1 << 12;

/// Rates of lines, of each source network and of all of them.
#[derive(Debug)]
pub(crate) struct Lines {
    sources: Sources,
    all: Bucket,
    rate: Rate,
}

impl Lines {
    /// Full buckets.
    #[must_use]
    pub(crate) fn new(of_source: LineRate, of_all: LineRate) -> Self {
        let limit = |LineRate { burst, per_second }| {
            let number = |number| std::num::NonZeroU32::new(number).unwrap_or(std::num::NonZeroU32::MIN);
            NewSessions { rate: number(per_second), burst: number(burst), prefix: SourcePrefix { v4: 32, v6: 64 } }
        };
        Self {
            sources: Sources::sized(limit(of_source), SLOTS),
            all: Bucket::default(),
            rate: Rate::from_timing(timing(&limit(of_all), 1)),
        }
    }

    /// Returns whether `source` may cause a line at `now` (any monotonic time). One that may not takes nothing from the
    /// others.
    pub(crate) fn allow(&self, source: IpAddr, now: Duration) -> bool {
        // In a flood from everywhere, the first answer is the cheapest.
        self.all.has_room(now, self.rate) && self.sources.allow(source, now) && self.all.take(now, self.rate)
    }
}
