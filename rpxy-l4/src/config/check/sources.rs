//! Limits on connections and sessions, in all and for one source network.

use std::{num::NonZeroU32, sync::Arc};

use crate::config::{
    file::Table,
    model::{LimitOf, NewSessions, SourcePrefix},
    report::Report,
};

/// One a microsecond, which is more than one machine can begin.
const MOST_NEW: u32 = 1_000_000;
/// Of fewer places than this, one source may have all unless the file says otherwise.
const FEW_PLACES: u32 = 64;

/// The length of the prefix that makes a source network.
pub(super) fn prefix(report: &mut Report<'_>, table: &Table<'_>) -> SourcePrefix {
    let mut bits = |key, most: u8, usual| {
        let bits = table.field(key).and_then(|field| field.integer::<u32>(report, 1..=most.into()));
        bits.and_then(|bits| u8::try_from(bits).ok()).unwrap_or(usual)
    };
    SourcePrefix { v4: bits("source_prefix_v4", 32, 32), v6: bits("source_prefix_v6", 128, 56) }
}

/// The rate at `rate_key` with the burst at `burst_key`; `None` is no limit.
pub(super) fn new(
    report: &mut Report<'_>,
    table: &Table<'_>,
    (rate_key, burst_key): (&'static str, &'static str),
    prefix: SourcePrefix,
) -> Option<NewSessions> {
    let mut number = |key, range| table.field(key).and_then(|field| field.integer::<u32>(report, range));
    let rate = number(rate_key, 0..=MOST_NEW).and_then(NonZeroU32::new);
    let burst = number(burst_key, 1..=MOST_NEW).and_then(NonZeroU32::new);
    let Some(rate) = rate else {
        table.warn_unused(report, burst_key, &format!("has no effect, because there is no {rate_key}"), None);
        return None;
    };
    let burst = burst.unwrap_or(rate.saturating_mul(const { NonZeroU32::new(2).unwrap() }));
    Some(NewSessions { rate, burst, prefix })
}

/// Whose a limit is that `keys` describe: of the listener `name` if its `table` says one of them.
pub(super) fn limit_of(table: &Table<'_>, name: &Arc<str>, keys: &[&'static str]) -> LimitOf {
    table.overrides(keys).then(|| Arc::clone(name))
}

/// Connections of one source, of `places` in all. By default three of four, so that no single one shuts out the others.
pub(super) fn connections(report: &mut Report<'_>, table: &Table<'_>, places: NonZeroU32) -> Option<NonZeroU32> {
    match table.field("tcp_max_connections_per_source").and_then(|field| field.integer::<u32>(report, 0..=u32::MAX)) {
        Some(most) => NonZeroU32::new(most),
        None if places.get() < FEW_PLACES => None,
        None => NonZeroU32::new(places.get() - places.get() / 4),
    }
}
