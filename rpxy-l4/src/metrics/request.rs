//! A request to the metrics endpoint, as far as it decides about the answer (RFC 9110, RFC 9112).

use std::str::Lines;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    /// `/metrics`, in this format.
    Metrics(Format),
    /// `/healthz`: the process lives.
    Health,
    /// `/readyz`: it takes new traffic.
    Readiness,
}

/// Format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The text format 0.0.4 of Prometheus.
    Prometheus,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

/// A request that has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) resource: Resource,
    /// It is HEAD: the answer has no body.
    pub(super) head: bool,
}

/// A request that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not HTTP.
    Malformed,
    /// There is no such resource.
    NotFound,
    /// Only GET and HEAD are answered.
    Method,
}

impl Request {
    /// Reads a head: the request line and the fields, up to the empty line.
    pub(super) fn read(head: &[u8]) -> Result<Self, Refused> {
        let Ok(text) = std::str::from_utf8(head) else { return Err(Refused::Malformed) };
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Refused::Malformed);
        };
        if !version.starts_with("HTTP/1.") {
            return Err(Refused::Malformed);
        }
        let resource = match path(target) {
            "/metrics" => Resource::Metrics(Format::accepted(lines)),
            "/healthz" => Resource::Health,
            "/readyz" => Resource::Readiness,
            _ => return Err(Refused::NotFound),
        };
        match method {
            "GET" => Ok(Self { resource, head: false }),
            "HEAD" => Ok(Self { resource, head: true }),
            _ => Err(Refused::Method),
        }
    }
}

/// The path of a request target, in origin form or in absolute form (RFC 9112 section 3.2).
fn path(target: &str) -> &str {
    let origin = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        Some(_) | None => target,
    };
    origin.split('?').next().unwrap_or_default()
}

impl Format {
    /// `OpenMetrics` where the client prefers it, or likes it as well, by name; otherwise the text format, which everybody
    /// reads. There is no answer 406: a scraper with an odd field wants numbers all the same.
    fn accepted(fields: Lines<'_>) -> Self {
        let (mut openmetrics, mut text) = (0, 0);
        let named = fields.filter_map(|line| line.split_once(':'));
        let accepted = named.filter(|(name, _)| name.eq_ignore_ascii_case("accept"));
        for range in accepted.flat_map(|(_, value)| value.split(',')) {
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

    fn read(head: &str) -> Result<Request, Refused> {
        Request::read(head.as_bytes())
    }

    #[test]
    fn requests_are_answered_by_path_and_method() {
        let metrics = Resource::Metrics(Format::Prometheus);
        let ok = |resource, head| Ok(Request { resource, head });
        for (line, expected) in [
            ("GET /metrics HTTP/1.1", ok(metrics, false)),
            ("GET /metrics?x=1 HTTP/1.1", ok(metrics, false)),
            ("GET /metrics HTTP/1.0", ok(metrics, false)),
            ("GET http://gateway:9901/metrics?x=http://y HTTP/1.1", ok(metrics, false)),
            ("HEAD /metrics HTTP/1.1", ok(metrics, true)),
            ("GET /healthz HTTP/1.1", ok(Resource::Health, false)),
            ("HEAD /readyz?verbose HTTP/1.1", ok(Resource::Readiness, true)),
            ("POST /metrics HTTP/1.1", Err(Refused::Method)),
            ("get /metrics HTTP/1.1", Err(Refused::Method)),
            ("GET / HTTP/1.1", Err(Refused::NotFound)),
            ("GET http://gateway HTTP/1.1", Err(Refused::NotFound)),
            ("GET /metrics/ HTTP/1.1", Err(Refused::NotFound)),
            ("GET /metricsx HTTP/1.1", Err(Refused::NotFound)),
            ("GET /metrics", Err(Refused::Malformed)),
            ("GET  /metrics HTTP/1.1", Err(Refused::Malformed)),
            ("GET /metrics HTTP/2.0", Err(Refused::Malformed)),
            ("\u{16}\u{3}\u{1}", Err(Refused::Malformed)),
            ("", Err(Refused::Malformed)),
        ] {
            assert_eq!(read(&format!("{line}\r\nHost: a\r\n\r\n")), expected, "{line}");
        }
        assert_eq!(Request::read(b"GET /\xff HTTP/1.1\r\n\r\n"), Err(Refused::Malformed));
    }

    #[test]
    fn the_format_is_the_one_that_the_client_prefers() {
        use Format::{OpenMetrics, Prometheus};
        let prometheus_2 = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (row, fields, expected) in [
            ("nothing", "", Prometheus),
            ("anything", "Accept: */*", Prometheus),
            ("text", "Accept: text/plain", Prometheus),
            ("OpenMetrics", "Accept: application/openmetrics-text", OpenMetrics),
            ("whatever the case", "aCCEPT: Application/OpenMetrics-Text; Q=0.1", OpenMetrics),
            ("Prometheus 2", prometheus_2, OpenMetrics),
            ("text before it", "Accept: application/openmetrics-text;q=0.3, text/plain;q=0.301", Prometheus),
            ("both alike", "Accept: text/plain, application/openmetrics-text", OpenMetrics),
            ("in two fields", "Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text", OpenMetrics),
            ("anything but it", "Accept: application/openmetrics-text;q=0, */*;q=0.1", Prometheus),
            ("protobuf only", "Accept: application/vnd.google.protobuf", Prometheus),
            ("another field", "X-Accept: application/openmetrics-text", Prometheus),
            ("a weight that is none", "Accept: application/openmetrics-text;q=x, text/plain;q=0.5", OpenMetrics),
        ] {
            let request = read(&format!("GET /metrics HTTP/1.1\r\n{fields}\r\n\r\n")).unwrap();
            assert_eq!(request.resource, Resource::Metrics(expected), "{row}");
        }
    }
}
