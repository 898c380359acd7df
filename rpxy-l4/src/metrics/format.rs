//! The format of metrics that a scraper asks for.

use crate::web::Request;

/// Format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The text format 0.0.4 of Prometheus.
    Prometheus,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    /// The one that `request` prefers.
    pub(super) fn of(request: &Request<'_>) -> Self {
        Self::accepted(request.fields("accept"))
    }

    /// `OpenMetrics` where the client prefers it, or likes it as well, by name; otherwise the text format, which everybody
    /// reads. There is no answer 406: a scraper with an odd field wants numbers all the same.
    fn accepted<'h, I: Iterator<Item = &'h str>>(fields: I) -> Self {
        let (mut openmetrics, mut text) = (0, 0);
        for range in fields.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(weight).unwrap_or(1000);
            match kind.as_str() {
                "application/openmetrics-text" => openmetrics = weight.max(openmetrics),
                "text/plain" | "text/*" | "*/*" => text = weight.max(text),
                _ => {}
            }
        }
        if openmetrics > 0 && openmetrics >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A `q` parameter in thousandths (RFC 9110 section 12.4.2).
fn weight(parameter: &str) -> Option<u32> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, part) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    Some((whole.parse::<u32>().ok()?.saturating_mul(1000)).saturating_add(part.parse().ok()?).min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_the_client_prefers() {
        use Format::{OpenMetrics, Prometheus};
        let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (row, fields, expected) in [
            ("nothing", &[][..], Prometheus),
            ("anything", &["*/*"], Prometheus),
            ("text", &["text/plain"], Prometheus),
            ("OpenMetrics", &["application/openmetrics-text"], OpenMetrics),
            ("whatever the case", &["Application/OpenMetrics-Text; Q=0.1"], OpenMetrics),
            ("Prometheus 2", &[prometheus_2], OpenMetrics),
            ("text before it", &["application/openmetrics-text;q=0.3, text/plain;q=0.301"], Prometheus),
            ("both alike", &["text/plain, application/openmetrics-text"], OpenMetrics),
            ("in two fields", &["text/plain;q=0.5", "application/openmetrics-text"], OpenMetrics),
            ("anything but it", &["application/openmetrics-text;q=0, */*;q=0.1"], Prometheus),
            ("protobuf only", &["application/vnd.google.protobuf"], Prometheus),
            ("a weight that is none", &["application/openmetrics-text;q=x, text/plain;q=0.5"], OpenMetrics),
        ] {
            assert_eq!(Format::accepted(fields.iter().copied()), expected, "{row}");
        }
    }
}
