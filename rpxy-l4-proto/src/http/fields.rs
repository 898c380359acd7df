//! The field lines of an HTTP/1 head (RFC 9112 section 5), read for `Host` alone. It errs towards no host: a line
//! that servers read differently (a space before the colon, a bare CR, a folded `Host`) spoils the whole head.

use super::{MAX_HEAD, authority, request_line::is_tchar};
use crate::Probe;

/// The place in a head that is still arriving.
#[derive(Debug)]
pub(super) struct Fields {
    /// Offset of the current line.
    line: usize,
    /// Up to where the current line is known to have no end.
    scanned: usize,
    host: Host,
    /// A folded line here would change the host: directly behind the request line, and behind a `Host` field.
    fold_matters: bool,
}

#[derive(Debug)]
enum Host {
    Unseen,
    Named(String),
    /// Named in ways that do not agree, or in a way that cannot be used.
    Spoilt,
}

impl Fields {
    /// For the fields behind a request line of `start` bytes.
    pub(super) const fn after(start: usize) -> Self {
        Self { line: start, scanned: start, host: Host::Unseen, fold_matters: true }
    }

    /// A match with the host, if there is a good one, at the end of the head.
    pub(super) fn advance(&mut self, stream: &[u8]) -> Probe<Option<String>> {
        let head = stream.get(..MAX_HEAD).unwrap_or(stream);
        loop {
            let unscanned = head.get(self.scanned..).unwrap_or_default();
            let Some(len) = unscanned.iter().position(|&byte| byte == b'\n') else {
                self.scanned = head.len();
                return if head.len() >= MAX_HEAD { Probe::Unreadable } else { Probe::NeedMore };
            };
            let end = self.scanned.saturating_add(len);
            let line = head.get(self.line..end).unwrap_or_default();
            self.line = end.saturating_add(1);
            self.scanned = self.line;
            // RFC 9112 section 2.2: a bare LF ends a line too.
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                return Probe::Match(match std::mem::replace(&mut self.host, Host::Unseen) {
                    Host::Named(host) => Some(host),
                    Host::Unseen | Host::Spoilt => None,
                });
            }
            self.field_line(line);
        }
    }

    fn field_line(&mut self, line: &[u8]) {
        if line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
            self.host = Host::Spoilt;
            return;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            if self.fold_matters {
                self.host = Host::Spoilt;
            }
            return;
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let Some((name, value)) = colon.and_then(|at| line.split_at_checked(at)) else {
            self.host = Host::Spoilt;
            return;
        };
        // RFC 9112 section 5.1: a server has to refuse white space between name and colon.
        if name.is_empty() || !name.iter().all(|&byte| is_tchar(byte)) {
            self.host = Host::Spoilt;
            return;
        }
        self.fold_matters = name.eq_ignore_ascii_case(b"host");
        if self.fold_matters {
            let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
            self.host = match (std::mem::replace(&mut self.host, Host::Spoilt), authority::host(value)) {
                (Host::Unseen, Some(host)) => Host::Named(host),
                (Host::Named(before), Some(host)) if before == host => Host::Named(host),
                (Host::Unseen | Host::Named(_) | Host::Spoilt, _) => Host::Spoilt,
            };
        }
    }
}
