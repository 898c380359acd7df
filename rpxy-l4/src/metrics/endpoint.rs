//! The metrics endpoint: `/metrics` for Prometheus, `/healthz` and `/readyz` for those who start and balance.

use std::net::SocketAddr;

use super::{Metrics, format::Format, text};
use crate::web::{Method, Request, Response, Site};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Metrics,
    /// The process lives.
    Health,
    /// It takes new traffic.
    Readiness,
}

impl Site for Metrics {
    async fn answer(&self, request: &Request<'_>, _local: Option<SocketAddr>) -> Response {
        match (Resource::at(request.path), request.method) {
            (None, _) => Response::plain("404 Not Found", "there are /metrics, /healthz and /readyz\n"),
            (Some(_), Method::Other) => Response::method(),
            (Some(Resource::Metrics), _) => scrape(self, Format::of(request)),
            // The thread that answers is the one that does everything but forwarding.
            (Some(Resource::Health), _) => Response::plain("200 OK", "alive\n"),
            (Some(Resource::Readiness), _) => readiness(self),
        }
    }
}

impl Resource {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/healthz" => Some(Self::Health),
            "/readyz" => Some(Self::Readiness),
            _ => None,
        }
    }
}

fn scrape(metrics: &Metrics, format: Format) -> Response {
    let Ok(openmetrics) = metrics.encode() else {
        return Response::plain("500 Internal Server Error", "the metrics cannot be written\n");
    };
    let body = match format {
        Format::OpenMetrics => openmetrics,
        Format::Prometheus => text::prometheus(&openmetrics),
    };
    Response { status: "200 OK", content_type: format.content_type(), fields: "", body: body.into() }
}

fn readiness(metrics: &Metrics) -> Response {
    match metrics.readiness().reason() {
        Some(reason) => Response::plain("503 Service Unavailable", format!("not ready: {reason}\n")),
        None if metrics.is_file_refused() => Response::plain(
            "200 OK",
            "ready\nthe last reload was refused: the configuration before it stays in effect\n",
        ),
        None => Response::plain("200 OK", "ready\n"),
    }
}
