//! What the status page answers to which request.

use std::net::SocketAddr;

use super::Page;
use crate::web::{Method, Request, Response, Site};

/// The page and what it is made of; the same for everybody, and without a word about the daemon.
const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("files/index.html")),
    ("/status.css", CSS, include_str!("files/status.css")),
    ("/icon.svg", SVG, include_str!("files/icon.svg")),
    ("/status.js", SCRIPT, include_str!("files/status.js")),
    ("/dom.js", SCRIPT, include_str!("files/dom.js")),
    ("/feed.js", SCRIPT, include_str!("files/feed.js")),
    ("/parts.js", SCRIPT, include_str!("files/parts.js")),
    ("/plot.js", SCRIPT, include_str!("files/plot.js")),
    ("/table.js", SCRIPT, include_str!("files/table.js")),
    ("/text.js", SCRIPT, include_str!("files/text.js")),
];
/// What it shows.
const DATA: &str = "/status.json";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Nothing but these files and what they ask of this server; no text becomes markup; no page has it in a frame, and no
/// other origin reads it.
const GUARDS: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'\r\n\
                      X-Frame-Options: DENY\r\n\
                      Cross-Origin-Resource-Policy: same-origin\r\n\
                      Referrer-Policy: no-referrer\r\n";
/// The same with the question for the token.
const ASK: &str = "WWW-Authenticate: Bearer realm=\"rpxy-l4\"\r\nCross-Origin-Resource-Policy: same-origin\r\n";

impl Site for Page {
    async fn answer(&self, request: &Request<'_>, local: Option<SocketAddr>) -> Response {
        let access = self.access.load_full();
        if !access.is_ours(request, local) {
            let body =
                "not the name of this server: status_hosts of the configuration has the names that are answered\n";
            return Response::plain("421 Misdirected Request", body);
        }
        let file = FILES.iter().find(|(path, ..)| *path == request.path);
        if file.is_none() && request.path != DATA {
            return Response::plain("404 Not Found", "there are / and /status.json\n");
        }
        if request.method == Method::Other {
            return Response::method();
        }
        if let Some((_, content_type, text)) = file {
            return guarded(content_type, *text);
        }
        if !access.is_trusted(request) {
            let refused = Response::plain("401 Unauthorized", "the token of status_token_file is needed\n");
            return Response { fields: ASK, ..refused };
        }
        match self.tell().await {
            Some(text) => guarded(JSON, text),
            None => Response::plain("503 Service Unavailable", "the daemon is stopping\n"),
        }
    }
}

fn guarded(content_type: &'static str, body: impl Into<std::borrow::Cow<'static, str>>) -> Response {
    Response { status: "200 OK", content_type, fields: GUARDS, body: body.into() }
}
