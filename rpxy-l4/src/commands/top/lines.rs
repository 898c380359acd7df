//! Connections and sessions as the daemon lists them, with rates between two lists.

use std::collections::HashMap;

use serde::Deserialize;

use super::rates::Per;

/// A connection or session. What a daemon does not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    /// By which it is closed.
    pub(super) id: String,
    pub(super) client: String,
    pub(super) target: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) stage: String,
    pub(super) carries: String,
    pub(super) rule: Option<String>,
    pub(super) server_name: Option<String>,
    pub(super) inner_server_name: Option<String>,
    pub(super) age_ms: u64,
    pub(super) idle_ms: u64,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    pub(super) answered: bool,
    pub(super) confirmed: bool,
    pub(super) plane: String,
    pub(super) reason: Option<String>,
    /// Bytes up and down in a second.
    #[serde(skip)]
    pub(super) rates: Option<(f64, f64)>,
}

/// A list of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Lines {
    pub(super) lines: Vec<Line>,
    /// The daemon has more than it lists.
    pub(super) more: bool,
}

impl Lines {
    /// Adds rates to what was not new `since`.
    pub(super) fn since(mut self, since: &Self) -> Self {
        let old: HashMap<&str, &Line> = since.lines.iter().map(|line| (line.id.as_str(), line)).collect();
        for line in &mut self.lines {
            let Some(before) = old.get(line.id.as_str()) else { continue };
            let millis = line.age_ms.saturating_sub(before.age_ms);
            line.rates = (millis > 0).then(|| {
                let per = Per(super::rates::as_f64(millis) / 1000.0);
                (per.of(before.bytes_up, line.bytes_up), per.of(before.bytes_down, line.bytes_down))
            });
        }
        self
    }
}

impl Line {
    /// The name that the client asks for: the decrypted one where there is one.
    pub(super) fn name(&self) -> Option<&str> {
        self.inner_server_name.as_deref().or(self.server_name.as_deref())
    }

    /// How far a session has come.
    pub(super) fn state(&self) -> &str {
        match (self.stage.as_str(), self.answered, self.confirmed) {
            ("open", _, true) => "confirmed",
            ("open", true, false) => "answered",
            ("open", false, false) => "unanswered",
            (other, ..) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_was_there_before() {
        let line = |id: &str, age_ms, bytes_up| Line { id: id.to_owned(), age_ms, bytes_up, ..Line::default() };
        let list = |lines| Lines { lines, more: false };
        let before = list(vec![line("t0-1-1", 1000, 100), line("t0-2-2", 5, 0)]);
        let after = list(vec![line("t0-1-1", 3000, 300), line("t0-3-3", 1, 50), line("t0-2-2", 5, 0)]).since(&before);
        let rates: Vec<_> = after.lines.iter().map(|line| line.rates).collect();
        assert_eq!(rates, [Some((100.0, 0.0)), None, None]);
    }

    #[test]
    fn a_list_is_read_as_far_as_it_goes() {
        let line: Line =
            serde_json::from_str(r#"{"id":"u0-1-2","client":"192.0.2.1:5","news":{},"stage":"open"}"#).unwrap();
        assert_eq!((line.id.as_str(), line.state(), line.name()), ("u0-1-2", "unanswered", None));
    }
}
