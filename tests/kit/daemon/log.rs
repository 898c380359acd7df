//! Lines of the system log, `<timestamp> <LEVEL> <message>`, `<n><LEVEL> <message>` for the journal, or `{"time":"..","level":"..","message":".."}`.

/// Returns the level of a line.
pub fn level(line: &str) -> Option<&str> {
    if line.starts_with('{') {
        return Some(line.split_once("\"level\":\"")?.1.split('"').next().unwrap_or_default());
    }
    if let Some((level, _)) = journal(line) {
        return Some(level);
    }
    line.split_ascii_whitespace().nth(1)
}

/// Level and message of a line for the journal.
fn journal(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('<')?.split_once('>')?.1.split_once(' ')
}

/// Returns the message of a line, with the escapes that it has.
pub fn message(line: &str) -> &str {
    if line.starts_with('{') {
        let rest = line.split_once("\"message\":\"").map_or("", |(_, rest)| rest);
        return rest.strip_suffix("\"}").unwrap_or(rest);
    }
    if let Some((_, message)) = journal(line) {
        return message;
    }
    let after_word = |text| str::trim_start(text).split_once(' ').map_or("", |(_, rest)| rest);
    after_word(after_word(line)).trim_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_taken_apart() {
        let line = "2026-01-01T00:00:00.000000Z  INFO ready: 2 sockets";
        assert_eq!(level(line), Some("INFO"));
        assert_eq!(message(line), "ready: 2 sockets");
        assert_eq!(message("2026-01-01T00:00:00.000000Z ERROR broken"), "broken");
        assert_eq!(message("one"), "");
        assert_eq!((level("<4>WARN a b"), message("<4>WARN a b")), (Some("WARN"), "a b"));
        let json = r#"{"time":"2026-01-01T00:00:00.000000Z","level":"WARN","message":"a \"b\""}"#;
        assert_eq!((level(json), message(json)), (Some("WARN"), r#"a \"b\""#));
        let access = r#"{"time":"2026-01-01T00:00:00.000000Z","event":"start"}"#;
        assert_eq!((level(access), message(access)), (None, ""));
    }
}
