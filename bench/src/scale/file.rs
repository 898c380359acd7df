//! The files that the suite measures.

use std::{fmt::Write as _, path::Path};

use clap::ValueEnum;
use rpxy_l4_tests::topology::BACKENDS_V4;

/// Port of the backend that is there for the first shape; the others follow.
const LIVING: u16 = 7000;

/// First port that is listened on.
const FRONT: u16 = 20_000;

/// Listeners where there are many.
const LISTENERS: u16 = 100;

/// What a file is full of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// 10 rules at the top.
    Rules10,
    /// 1,000 rules.
    Rules1k,
    /// 10,000 rules.
    Rules10k,
    /// 30,000 rules.
    Rules30k,
    /// 10,000 rules, 100 on each of 100 listeners.
    Listeners,
    /// 100 rules, each on 100 listeners.
    Shared,
    /// 10,000 bans.
    Bans10k,
    /// 60,000 bans.
    Bans60k,
    /// 1,000 targets of one rule.
    Targets,
}

impl Shape {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::Rules10,
        Self::Rules1k,
        Self::Rules10k,
        Self::Rules30k,
        Self::Listeners,
        Self::Shared,
        Self::Bans10k,
        Self::Bans60k,
        Self::Targets,
    ];

    /// Port of the backend that is there, another one for each: connections that are over hold local ports for a minute.
    pub fn backend(self) -> u16 {
        LIVING + self as u16
    }

    /// As the report says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rules10 => "10 rules",
            Self::Rules1k => "1,000 rules",
            Self::Rules10k => "10,000 rules",
            Self::Rules30k => "30,000 rules",
            Self::Listeners => "10,000 rules, 100 on each of 100 listeners",
            Self::Shared => "100 rules, each on 100 listeners",
            Self::Bans10k => "10,000 bans",
            Self::Bans60k => "60,000 bans",
            Self::Targets => "1,000 targets",
        }
    }
}

/// One file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) text: String,
    /// The port and the server name by which the backend is reached that is there, if the file has rules.
    pub(super) living: Option<(u16, String)>,
}

impl File {
    /// A file full of `shape`. Another `version` has other rules, bans or targets.
    pub(super) fn new(shape: Shape, version: u32, socket: &Path) -> Self {
        let mut text = format!("admin_socket = \"{}\"\ntcp_max_connections = 1000\n", socket.display());
        let mut living = None;
        let mut rules = String::new();
        let mut rule = |number: u32, port: u16, listeners: &str, last: bool| {
            let name = format!("s{number}.v{version}.test");
            // The last one's backend is there; the others have a target each.
            let target = if last { shape.backend() } else { u16::try_from(10_000 + number % 30_000).unwrap_or(LIVING) };
            rules += &format!(
                "[protocols.\"r{number}\"]\nprotocol = \"tls\"\nserver_names = [\"{name}\"]\n{listeners}\
                 target = \"{}:{target}\"\n",
                BACKENDS_V4[0]
            );
            if last {
                living = Some((port, name));
            }
        };
        let listener = |number: u16| format!("listeners = \"l{number}\"\n");
        match shape {
            Shape::Rules10 => rules_at_the_top(10, &mut rule),
            Shape::Rules1k => rules_at_the_top(1_000, &mut rule),
            Shape::Rules10k => rules_at_the_top(10_000, &mut rule),
            Shape::Rules30k => rules_at_the_top(30_000, &mut rule),
            Shape::Listeners => {
                for (number, of) in (0..10_000).zip((0..LISTENERS).cycle()) {
                    rule(number, FRONT + 1 + of, &listener(of), number == 9_999);
                }
            }
            Shape::Shared => {
                let all: Vec<String> = (0..LISTENERS).map(|of| format!("\"l{of}\"")).collect();
                let all = format!("listeners = [{}]\n", all.join(", "));
                (0..100).for_each(|number| rule(number, FRONT + LISTENERS, &all, number == 99));
            }
            Shape::Bans10k | Shape::Bans60k => {
                let count = if shape == Shape::Bans10k { 10_000 } else { 60_000_u32 };
                let bans: Vec<String> = (0..count)
                    .map(|number| {
                        let [_, a, b, c] = (number * 2 + version).to_be_bytes();
                        format!("\"10.{a}.{b}.{c}\"")
                    })
                    .collect();
                let _infallible = writeln!(text, "ban = [{}]\ntcp_target = \"192.0.2.99:1\"", bans.join(", "));
            }
            Shape::Targets => {
                let targets: Vec<String> = (0..1_000)
                    .map(|number| format!("\"10.{version}.{}.{}:443\"", number / 250, number % 250 + 1))
                    .collect();
                let _infallible = writeln!(text, "tcp_target = [{}]", targets.join(", "));
            }
        }
        if matches!(shape, Shape::Listeners | Shape::Shared) {
            for number in 0..LISTENERS {
                let _infallible = writeln!(rules, "[listeners.\"l{number}\"]\nlisten_port = {}", FRONT + 1 + number);
            }
        } else {
            let _infallible = writeln!(text, "listen_port = {FRONT}");
        }
        Self { text: text + &rules, living }
    }
}

/// Calls `rule` with number, port, listeners, and whether it is the last.
fn rules_at_the_top(count: u32, rule: &mut impl FnMut(u32, u16, &str, bool)) {
    (0..count).for_each(|number| rule(number, FRONT, "", number + 1 == count));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_what_its_name_says_and_versions_differ() {
        for (shape, rules, listeners) in [
            (Shape::Rules10, 10, 0),
            (Shape::Rules10k, 10_000, 0),
            (Shape::Listeners, 10_000, 100),
            (Shape::Shared, 100, 100),
            (Shape::Bans10k, 0, 0),
        ] {
            let file = File::new(shape, 1, Path::new("/run/x"));
            let count = |text: &str| file.text.matches(text).count();
            assert_eq!((count("[protocols."), count("[listeners.")), (rules, listeners), "{shape:?}");
            assert_eq!(file.living.is_some(), rules > 0, "{shape:?}");
            assert_ne!(file.text, File::new(shape, 2, Path::new("/run/x")).text, "{shape:?}");
        }
    }
}
