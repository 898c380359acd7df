//! Text that strangers or files chose, on its way to a log, a terminal or an operator's tool: what a terminal or viewer
//! could obey is escaped. Every output goes through here; it errs towards escaping.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

/// Returns whether a terminal or viewer could obey `c`: C0 and C1 controls, DEL, line and paragraph separators, and what
/// changes the direction of text (Unicode Standard Annex 9, section 2).
#[must_use]
pub(crate) fn is_obeyed(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// Most text is printable ASCII, which is quickly seen.
fn is_harmless(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.contains(is_obeyed)
}

/// `text` on one line, with escapes as in Rust: `\n`, `\u{202e}`.
#[must_use]
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if is_harmless(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 16), |mut line, c| {
        if is_obeyed(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    }))
}

/// `json`, a JSON text on one line, with escapes that mean the same: `\u202e`. What is escaped can only be in a string.
#[must_use]
pub(crate) fn json(json: String) -> String {
    if is_harmless(&json) {
        return json;
    }
    json.chars().fold(String::with_capacity(json.len() + 16), |mut line, c| {
        if is_obeyed(c) {
            // All of them are below U+10000. Writing to a string does not fail.
            let _written = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
        line
    })
}

/// The first `longest` characters of `text`.
#[must_use]
pub(crate) fn bounded(text: &str, longest: usize) -> &str {
    text.char_indices().nth(longest).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Lines on their way to a terminal: everything but the line feeds between them is escaped.
#[derive(Debug)]
pub(crate) struct Lines<W>(pub W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Formatting hands over whole characters.
        for part in String::from_utf8_lossy(bytes).split_inclusive('\n') {
            match part.strip_suffix('\n') {
                Some(text) => {
                    self.0.write_all(line(text).as_bytes())?;
                    self.0.write_all(b"\n")?;
                }
                None => self.0.write_all(line(part).as_bytes())?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_obeyed_is_escaped_and_nothing_else() {
        for (row, text, expected, expected_json) in [
            ("plain", "a.example", "a.example", "a.example"),
            ("letters beyond ASCII", "bücher 本", "bücher 本", "bücher 本"),
            ("escape sequence", "\u{1b}[31m", "\\u{1b}[31m", "\\u001b[31m"),
            ("line feed", "a\nb", "a\\nb", "a\\u000ab"),
            ("DEL", "\u{7f}", "\\u{7f}", "\\u007f"),
            ("C1, the 8-bit CSI", "\u{9b}31m", "\\u{9b}31m", "\\u009b31m"),
            ("right-to-left override", "a\u{202e}b", "a\\u{202e}b", "a\\u202eb"),
            ("isolates", "\u{2066}\u{2069}", "\\u{2066}\\u{2069}", "\\u2066\\u2069"),
            ("marks", "\u{200e}\u{200f}\u{61c}", "\\u{200e}\\u{200f}\\u{61c}", "\\u200e\\u200f\\u061c"),
            ("separators", "\u{2028}\u{2029}", "\\u{2028}\\u{2029}", "\\u2028\\u2029"),
            (
                "next to them",
                "\u{a0}\u{2027}\u{202f}\u{206a}",
                "\u{a0}\u{2027}\u{202f}\u{206a}",
                "\u{a0}\u{2027}\u{202f}\u{206a}",
            ),
        ] {
            assert_eq!(line(text), expected, "{row}");
            assert_eq!(json(text.to_owned()), expected_json, "{row}");
        }
    }

    #[test]
    fn bounds_are_characters() {
        for (text, longest, expected) in [("", 0, ""), ("ab", 1, "a"), ("ab", 2, "ab"), ("ab", 3, "ab"), ("üb", 1, "ü")]
        {
            assert_eq!(bounded(text, longest), expected, "{text} {longest}");
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        let c = prop_oneof![
            any::<char>(),
            proptest::char::range('\0', '\u{a0}'),
            proptest::char::range('\u{2000}', '\u{2070}')
        ];
        proptest::collection::vec(c, 0..40).prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn nothing_that_is_obeyed_gets_out(text in hostile()) {
            prop_assert!(!line(&text).contains(is_obeyed));
            let mut out = Lines(Vec::new());
            write!(out, "{text}\n{text}").unwrap();
            let out = String::from_utf8(out.0).unwrap();
            prop_assert!(out.split('\n').all(|line| !line.contains(is_obeyed)), "{out:?}");
        }

        #[test]
        fn json_stays_on_one_line_and_means_the_same(text in hostile()) {
            let plain = serde_json::to_string(&serde_json::json!({ text.clone(): [text.clone()] })).unwrap();
            let escaped = json(plain.clone());
            prop_assert!(!escaped.contains(is_obeyed));
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(parse(&escaped), parse(&plain));
        }
    }
}
