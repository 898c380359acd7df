//! Quantities as people read them.

/// A length of time. Two units: seconds matter for minutes, not for days.
pub(super) fn time(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest}s"),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// A number of bytes. Powers of 1024, with three digits or so.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (count.max(1).ilog2() / 10).min(6);
    let unit = usize::try_from(power).ok().and_then(|power| units.get(power)).unwrap_or(&"B");
    let whole = count >> (10 * power);
    if power == 0 || whole >= 10 {
        return format!("{whole} {unit}");
    }
    let tenths = (count >> (10 * (power - 1))) % 1024 * 10 / 1024;
    format!("{whole}.{tenths} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_239, "9.9 KiB"),
            (10_240, "10 KiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(bytes(count), expected, "{count}");
        }
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (3599, "59m59s"),
            (3600, "1h0m"),
            (86_399, "23h59m"),
            (90_000, "1d1h"),
        ] {
            assert_eq!(time(seconds), expected, "{seconds}");
        }
    }
}
