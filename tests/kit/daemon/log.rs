//! Lines of the system log, `<timestamp> <LEVEL> <message>`.

/// Returns the level of a line.
pub fn level(line: &str) -> Option<&str> {
    line.split_ascii_whitespace().nth(1)
}

/// Returns the message of a line.
pub fn message(line: &str) -> &str {
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
    }
}
