//! The form of a line of the system log. Messages may quote strangers and files: each stays on its line, and nothing in it
//! is obeyed by a terminal.

use std::fmt::{self, Debug, Write as _};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::{
    form::{Form, as_json},
    head::Head,
};
use crate::escape;

/// Formats events as text, a [`Head`] and the message, or as JSON.
#[derive(Debug)]
pub(super) struct SystemLines {
    pub(super) form: Form,
    pub(super) head: Head,
}

impl<S, N> FormatEvent<S, N> for SystemLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        let message = text.finish();
        let level = *event.metadata().level();
        if self.form.is_json() {
            return writeln!(writer, "{}{}", self.head.priority(level), as_json(level.as_str(), &message));
        }
        self.head.write(level, &mut writer)?;
        writeln!(writer, "{}", escape::line(&message))
    }
}

/// The message of an event, and its other fields behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(mut self) -> String {
        self.message.push_str(if self.message.is_empty() { self.fields.trim_start() } else { &self.fields });
        self.message
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(json: bool, head: Head, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = SystemLines { form: Form::new(json), head };
        let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_event_is_one_line_whatever_it_says() {
        let hostile = "a\nb\u{1b}[2J\u{9b}\u{202e}";
        for (json, head, expected) in [
            (false, Head::Plain, "  WARN name a\\nb\\u{1b}[2J\\u{9b}\\u{202e} n=7\n"),
            (false, Head::Coloured, "\x1b[33m WARN\x1b[0m name a\\nb\\u{1b}[2J\\u{9b}\\u{202e} n=7\n"),
            (true, Head::Plain, "\"level\":\"WARN\",\"message\":\"name a\\nb\\u001b[2J\\u009b\\u202e n=7\"}\n"),
            (false, Head::Journal, "<4>WARN name a\\nb\\u{1b}[2J\\u{9b}\\u{202e} n=7\n"),
        ] {
            let text = written(json, head, || tracing::warn!(n = 7, "name {hostile}"));
            assert!(text.ends_with(expected), "{text:?}");
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        }
    }
}
