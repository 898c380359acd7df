//! The form of the lines of all outputs: text or JSON.

use std::{
    fmt::Display,
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;
use tracing::Level;

use super::{
    head::{self, Head},
    timestamp,
};
use crate::{
    config::{
        Severity,
        model::{AccessLogFormat, Config},
    },
    escape,
};

/// JSON for every line where somebody asks for it: the command line from the first line on, or the file once it was
/// read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form {
    json: Arc<AtomicBool>,
    /// Whatever the file says.
    always: bool,
}

impl Form {
    /// JSON with `always`, otherwise text until a file says something else.
    #[must_use]
    pub(crate) fn new(always: bool) -> Self {
        Self { json: Arc::new(AtomicBool::new(always)), always }
    }

    /// Returns whether lines are JSON.
    #[must_use]
    pub(crate) fn is_json(&self) -> bool {
        self.json.load(Ordering::Relaxed)
    }

    /// Returns whether lines are JSON whatever the file says.
    #[must_use]
    pub(crate) fn is_asked_for(&self) -> bool {
        self.always
    }

    /// From now on lines have the form of the access log.
    pub(crate) fn follow(&self, format: AccessLogFormat) {
        self.json.store(self.always || format == AccessLogFormat::Json, Ordering::Relaxed);
    }

    /// Has the access log take the form that the command line asks for.
    pub(crate) fn overrule(&self, config: &mut Config) {
        if self.always && config.access_log_format == AccessLogFormat::Text {
            config.access_log_format = AccessLogFormat::Json;
        }
    }

    /// Writes a line to the standard error, for what ends the process or concerns the log itself.
    pub(crate) fn say(&self, severity: Severity, message: &dyn Display) {
        let message = message.to_string();
        let line = match (self.is_json(), severity) {
            (false, _) => format!("{}: {}", severity.name(), escape::line(&message)),
            (true, Severity::Error) => as_json("ERROR", &message),
            (true, Severity::Warning) => as_json("WARN", &message),
        };
        let priority = match severity {
            _ if !head::is_journal(&io::stderr()) => "",
            Severity::Error => Head::Journal.priority(Level::ERROR),
            Severity::Warning => Head::Journal.priority(Level::WARN),
        };
        // The standard error may be closed; the exit code says it all the same.
        drop(writeln!(io::stderr(), "{priority}{line}"));
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    level: &'a str,
    message: &'a str,
}

/// A line of the system log in JSON, without its end.
pub(super) fn as_json(level: &str, message: &str) -> String {
    let line = JsonLine { time: timestamp().to_string(), level, message };
    serde_json::to_string(&line).map(escape::json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_the_file_unless_the_command_line_says_json() {
        for (always, format, expected) in [
            (false, AccessLogFormat::Text, false),
            (false, AccessLogFormat::Json, true),
            (false, AccessLogFormat::Off, false),
            (true, AccessLogFormat::Text, true),
            (true, AccessLogFormat::Off, true),
        ] {
            let form = Form::new(always);
            assert_eq!(form.is_json(), always);
            form.follow(format);
            assert_eq!(form.is_json(), expected, "{always} {format:?}");
        }
    }

    #[test]
    fn a_line_in_json_to_the_letter() {
        let line = as_json("WARN", "a \"b\"\n\u{202e}");
        let without_time = &line[line.find("\"level\"").unwrap()..];
        assert_eq!(without_time, r#""level":"WARN","message":"a \"b\"\n\u202e"}"#);
    }
}
