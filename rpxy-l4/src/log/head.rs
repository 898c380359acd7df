//! What stands in front of the message of a line of text: the time and the level, as whoever reads the output wants them.
//! The journal of systemd has a time of its own, and takes the level as a number (sd-daemon(3)).

use std::{
    fmt::{self, Write},
    io::IsTerminal,
    os::fd::AsFd,
};

use rustix::fs::fstat;
use tracing::Level;

use super::timestamp;

/// The form of what stands in front of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// `<time> <LEVEL>`
    Plain,
    /// The same for a terminal.
    Coloured,
    /// `<n><LEVEL>`, of which the journal keeps the number apart.
    Journal,
}

impl Head {
    /// As the reader of the standard output wants it.
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if is_journal(&stdout) {
            Self::Journal
        } else if stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) {
            Self::Coloured
        } else {
            Self::Plain
        }
    }

    /// Writes it in front of a message of this level.
    pub(super) fn write(self, level: Level, out: &mut dyn Write) -> fmt::Result {
        match self {
            Self::Plain => write!(out, "{} {level:>5} ", timestamp()),
            Self::Coloured => write!(out, "\x1b[2m{}\x1b[0m {}{level:>5}\x1b[0m ", timestamp(), colour(level)),
            Self::Journal => write!(out, "{}{level} ", self.priority(level)),
        }
    }

    /// What stands in front of a line in JSON, which has time and level in it.
    pub(super) fn priority(self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Plain | Self::Coloured, _) => "",
            (Self::Journal, Level::ERROR) => "<3>",
            (Self::Journal, Level::WARN) => "<4>",
            (Self::Journal, Level::INFO) => "<6>",
            (Self::Journal, Level::DEBUG | Level::TRACE) => "<7>",
        }
    }
}

/// Returns whether an output is the journal: `JOURNAL_STREAM` has its device and inode (systemd.exec(5)).
pub(super) fn is_journal(output: &impl AsFd) -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(output, &stream))
}

fn is_stream(output: &impl AsFd, stream: &str) -> bool {
    let told = stream.split_once(':').and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    fstat(output).is_ok_and(|of| told == Some((of.st_dev, of.st_ino)))
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let of = fstat(&file).unwrap();
        for (row, stream, expected) in [
            ("this one", format!("{}:{}", of.st_dev, of.st_ino), true),
            ("another inode", format!("{}:{}", of.st_dev, of.st_ino + 1), false),
            ("another device", format!("{}:{}", of.st_dev + 1, of.st_ino), false),
            ("half of it", of.st_dev.to_string(), false),
            ("nothing", String::new(), false),
        ] {
            assert_eq!(is_stream(&file, &stream), expected, "{row}");
        }
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let head = |head: Head, level| {
            let mut text = String::new();
            head.write(level, &mut text).unwrap();
            text
        };
        for (level, expected, priority) in [
            (Level::ERROR, "<3>ERROR ", "<3>"),
            (Level::WARN, "<4>WARN ", "<4>"),
            (Level::INFO, "<6>INFO ", "<6>"),
            (Level::DEBUG, "<7>DEBUG ", "<7>"),
            (Level::TRACE, "<7>TRACE ", "<7>"),
        ] {
            assert_eq!(head(Head::Journal, level), expected);
            assert_eq!(Head::Journal.priority(level), priority);
            assert!(head(Head::Plain, level).ends_with(&format!("Z {level:>5} ")), "{level}");
            assert_eq!((Head::Plain.priority(level), Head::Coloured.priority(level)), ("", ""));
        }
    }
}
