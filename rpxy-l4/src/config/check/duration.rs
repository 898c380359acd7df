//! Lengths of time: `30s`, `5m`, `1h`, or a bare integer of seconds.

use std::{ops::RangeInclusive, time::Duration};

use crate::config::{
    file::{Field, Table},
    report::{Report, quote},
};

pub(super) const DRAIN: Duration = Duration::from_secs(5);
/// Time for which connections go on after an upgrade.
pub(super) const UPGRADE: Duration = Duration::from_secs(3600);
pub(super) const PROBE: Duration = Duration::from_secs(3);
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// A client that half-closes after its request may wait long for the answer.
pub(super) const TCP_HALF_CLOSED: Duration = Duration::from_secs(3600);
/// Nearly all backends that end their side have closed.
pub(super) const TCP_BACKEND_CLOSED: Duration = Duration::from_secs(60);
pub(super) const TCP_STALL: Duration = Duration::from_secs(300);
pub(super) const TARGET_RETRY: Duration = Duration::from_secs(10);
pub(super) const DNS_MIN_TTL: Duration = Duration::from_secs(30);
pub(super) const DNS_MAX_TTL: Duration = Duration::from_secs(3600);
pub(super) const UDP_IDLE: Duration = Duration::from_secs(30);
pub(super) const QUIC_IDLE: Duration = Duration::from_secs(60);
pub(super) const WIREGUARD_IDLE: Duration = Duration::from_secs(300);
pub(super) const QUIC_AFFINITY: Duration = Duration::from_secs(300);

/// 136 years. Longer times are accepted, as 0.2.x does, and cut to this: a clock can always add it without overflow.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// The duration at `key`, or `default` when it is absent or wrong.
pub(super) fn or_default(report: &mut Report<'_>, table: &Table<'_>, key: &'static str, default: Duration) -> Duration {
    table.field(key).and_then(|field| duration(report, &field)).unwrap_or(default)
}

/// Like [`or_default`]; 0 is an error.
pub(super) fn positive(report: &mut Report<'_>, table: &Table<'_>, key: &'static str, default: Duration) -> Duration {
    let Some(field) = table.field(key) else { return default };
    match duration(report, &field) {
        Some(Duration::ZERO) => {
            report.error(&field.position, "must be longer than 0");
            default
        }
        Some(duration) => duration,
        None => default,
    }
}

/// Like [`or_default`]; out of `range` is an error.
pub(super) fn within(
    report: &mut Report<'_>,
    table: &Table<'_>,
    key: &'static str,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Duration {
    let Some(field) = table.field(key) else { return default };
    let duration = duration(report, &field).unwrap_or(default);
    if range.contains(&duration) {
        return duration;
    }
    report.error(&field.position, format!("must be from {:?} to {:?}", range.start(), range.end()));
    default
}

/// The duration at `key`, where 0 means that there is no limit.
pub(super) fn limit(
    report: &mut Report<'_>,
    table: &Table<'_>,
    key: &'static str,
    default: Option<Duration>,
) -> Option<Duration> {
    match table.field(key).and_then(|field| duration(report, &field)) {
        Some(duration) => (duration > Duration::ZERO).then_some(duration),
        None => default,
    }
}

fn duration(report: &mut Report<'_>, field: &Field<'_>) -> Option<Duration> {
    if field.is_integer() {
        return field.integer(report, 0..=u64::MAX).map(|seconds| Duration::from_secs(seconds).min(LONGEST));
    }
    let text = field.string(report)?;
    let parsed = parse(text);
    if parsed.is_none() {
        report.error_with(
            &field.position,
            format!("invalid duration {}", quote(text)),
            "an integer and a unit without a space: ms, s, m, h or d, as in \"30s\"",
        );
    }
    parsed
}

/// An integer and a unit without space in between; space around both is ignored.
fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_start = text.find(char::is_alphabetic)?;
    let (number, unit) = text.split_at_checked(unit_start)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.saturating_mul(milliseconds)).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        let units = [
            (1, &["ms", "MS"][..]),
            (1_000, &["s", "sec", "secs", "second", "seconds", "S", "Sec", "SECONDS"]),
            (60_000, &["m", "min", "mins", "minute", "minutes", "M", "Minutes"]),
            (3_600_000, &["h", "hr", "hrs", "hour", "hours", "H"]),
            (86_400_000, &["d", "D"]),
        ];
        for (milliseconds, spellings) in units {
            for unit in spellings {
                assert_eq!(parse(&format!("7{unit}")), Some(Duration::from_millis(7 * milliseconds)), "7{unit}");
            }
        }
        let rows = [
            ("zero", "0s", Duration::ZERO),
            ("space around", " 30s\n", Duration::from_secs(30)),
            ("plus sign, as 0.2.x", "+30s", Duration::from_secs(30)),
            ("leading zeros", "0030s", Duration::from_secs(30)),
            ("longest", "4294967295s", LONGEST),
            ("cut to the longest", "4294967296s", LONGEST),
            ("no overflow", "18446744073709551615h", LONGEST),
        ];
        for (name, text, expected) in rows {
            assert_eq!(parse(text), Some(expected), "{name}");
        }
    }

    #[test]
    fn refused() {
        let rows = [
            ("empty", ""),
            ("no unit", "30"),
            ("no number", "s"),
            ("space in between", "30 s"),
            ("fraction", "1.5h"),
            ("negative", "-1s"),
            ("unknown unit", "30x"),
            ("two units", "1h30m"),
            ("number too large", "18446744073709551616s"),
        ];
        for (name, text) in rows {
            assert_eq!(parse(text), None, "{name}");
        }
    }
}
