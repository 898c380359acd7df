//! What is on the screen, in a terminal that is none.

use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::*;
use crate::{
    commands::top::{
        keys::Key,
        lines::{Line, Lines},
        model::{Event, Told},
    },
    config::model::Transport,
    overview::{Bounded, Counts, Listener, Overview, Refused, Rule, Target},
};

const PLAIN: Theme = Theme { colours: false, unicode: false };

fn told(uptime_ms: u64, more: u64) -> Told {
    let mut overview =
        Overview { version: "1.2.3".into(), pid: 812, uptime_ms, ready: true, workers: 2, ..Overview::default() };
    (overview.tcp.active, overview.tcp.max, overview.tcp.room) = (123, 4096, 9000);
    overview.tcp.accepted = 50 * more;
    overview.tcp.refused = Counts::from([("unmatched".into(), 2 * more), ("banned".into(), 7)]);
    (overview.udp.active, overview.udp.max) = (60_000, 65_536);
    overview.udp.datagrams_up = 1000 * more;
    overview.kernel_plane.state = "tc".into();
    (overview.kernel_plane.flows, overview.kernel_plane.max_flows) = (Some(3), Some(65_536));
    overview.kernel_plane.counters = Counts::from([("steered".into(), 3000 * more)]);
    overview.kernel_plane.not_steered = Counts::from([("family".into(), 4)]);
    overview.listeners.push(Listener {
        name: "default".into(),
        tcp: vec!["0.0.0.0:443".to_owned()],
        rules: 2,
        connections: Some(Bounded { started: 1_234_567, active: 123, max: 4096, shared: true }),
        ..Listener::default()
    });
    for (name, bytes) in [("web", 1 << 20), ("a-rule-with-a-name-that-is-much-too-long-for-its-column", 2048)] {
        overview.rules.push(Rule {
            protocol: "tls".into(),
            listeners: vec!["default".into()],
            active: bytes / 1000,
            started: 10 * more,
            bytes_down: bytes * more,
            ..Rule::new(name.into(), Transport::Tcp)
        });
    }
    for (target, state, reason) in [("web.internal:443", "up", None), ("192.168.0.9:443", "down", Some("refused"))] {
        overview.targets.push(Target {
            rule: Some("web".into()),
            state: state.into(),
            reason: reason.map(str::to_owned),
            since_ms: reason.map(|_| 41_000),
            ..Target::new(Transport::Tcp, target.to_owned())
        });
    }
    let address = "203.0.113.7:5000".parse().unwrap();
    overview.refused.push(Refused {
        age_ms: 61_000,
        proto: "tcp:tls".into(),
        source: address,
        listener: "192.0.2.1:443".parse().unwrap(),
        reason: "unmatched".into(),
        server_name: Some("\u{1b}[2Jx\u{202e}y\u{7f}.example".into()),
    });
    Told { overview, list: None, may_change: Some(true) }
}

fn model() -> Model {
    let mut model = Model::new(told(60_000, 1), Duration::from_secs(1));
    model.update(Event::Told(Ok(Box::new(told(61_000, 2)))));
    model
}

fn press(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        drop(model.update(Event::Key(if key == '\n' { Key::Enter } else { Key::Char(key) })));
    }
}

/// The lines of a terminal of this size, without spaces at their ends.
fn drawn(model: &Model, theme: Theme, (width, height): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(model, theme, frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn an_overview_in_80_by_24() {
    let lines = drawn(&model(), PLAIN, (80, 24));
    assert_eq!(
        lines,
        [
            "rpxy-l4 1.2.3  pid 812  up 1m1s  READY                                  every 1s",
            "TCP  [|             ] 123 of 4096 open          50/s new  2.0/s refused",
            "UDP  [||||||||||||  ] 60000 of 65536 sessions   0/s new  0/s refused",
            "Sent 0 B/s up  1.0 MiB/s down  4000 datagrams/s, 75 % in the kernel",
            " 1 Overview  2 Rules  3 Targets  4 Connections  5 Sessions  6 Refused",
            "Attention      192.168.0.9:443 of web (tcp) is down for 41s: refused",
            "Configuration  , not reloaded yet",
            "Listeners      default tcp: 123 of 4096 (shared), 1.23M so far, on 0.0.0.0:443",
            "Busiest rules  web: 0 B/s up, 1.0 MiB/s down, 10/s new, 1048 now",
            "               a-rule-with-a-name-that-is-much-too-long-for-its-column: 0 B/s u~",
            "Refused        TCP: banned 7, unmatched 4",
            "               UDP: none",
            "Kernel plane   tc on no interface yet; 3 of 65536 flows; 75 % of packets",
            "               sessions not steered: family 4",
            "Bans           none",
            "Process        - of memory, - of - descriptors, 0.00 processors, 2 workers",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "? help  q quit  p pause",
        ]
    );
}

#[test]
fn rules_in_80_columns_and_in_more() {
    let mut model = model();
    press(&mut model, "2");
    let lines = drawn(&model, PLAIN, (80, 24));
    assert_eq!(
        lines[5..8],
        [
            "RULE                 PROTO       ACTIVE   NEW/s          UP        DOWN  REFUSED",
            "web                  tls           1048      10       0 B/s   1.0 MiB/s        0",
            "a-rule-with-a-name~  tls              2      10       0 B/s   2.0 KiB/s        0",
        ]
    );
    let lines = drawn(&model, PLAIN, (160, 24));
    assert!(lines[5].starts_with("RULE ") && lines[5].ends_with("SENT UP  SENT DOWN"), "{}", lines[5]);
    assert!(lines[7].starts_with("a-rule-with-a-name-that-is-much-too"), "{}", lines[7]);
}

#[test]
fn what_strangers_send_moves_no_cursor() {
    let mut model = model();
    press(&mut model, "6");
    let lines = drawn(&model, PLAIN, (140, 24));
    assert!(lines[6].contains("\\u{1b}[2Jx\\u{202e}y\\u{7f}.example"), "{}", lines[6]);
    let list = Lines {
        lines: vec![Line {
            id: "t0-1-2".to_owned(),
            client: "192.0.2.1:5".to_owned(),
            server_name: Some("b\u{fc}cher.\u{9b}31m".to_owned()),
            ..Line::default()
        }],
        more: true,
    };
    press(&mut model, "4");
    drop(model.update(Event::Told(Ok(Box::new(Told { list: Some((Transport::Tcp, list)), ..told(62_000, 3) })))));
    let unicode = Theme { unicode: true, ..PLAIN };
    for (row, theme, expected) in [("ASCII", PLAIN, "b\\u{fc}cher.\\u{9b}31m"), ("UTF-8", unicode, "bücher.\\u{9b}31m")]
    {
        let lines = drawn(&model, theme, (140, 24));
        assert!(lines[6].contains(expected), "{row}: {}", lines[6]);
        assert!(lines[22].contains("the daemon has more"), "{row}: {}", lines[22]);
        let all = lines.concat();
        assert!(!all.contains(escape::is_obeyed) && (theme.unicode || all.is_ascii()), "{row}: {all}");
    }
}

#[test]
fn a_question_is_asked_in_a_frame() {
    let mut model = model();
    press(&mut model, "6b");
    let lines = drawn(&model, PLAIN, (80, 24));
    let text = lines.join("\n");
    for expected in
        ["+-----", "| Ban 203.0.113.7/32? UDP sessions of its clients end now,", "| y  yes, do it     n  no"]
    {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let lines = drawn(&model, PLAIN, (40, 10));
    assert!(lines.join("\n").contains("y  yes, do it     n  no"), "{lines:#?}");
}

#[test]
fn every_size_is_drawn() {
    let mut model = model();
    for keys in ["1", "2", "3", "4", "5", "6", "6b", "n?"] {
        press(&mut model, keys);
        let covered = model.prompt != Prompt::Nothing;
        for width in (1..220).step_by(7) {
            for height in 1..40 {
                let lines = drawn(&model, Theme { colours: true, unicode: true }, (width, height));
                assert!(
                    covered || width < 40 || height < 10 || lines[0].starts_with("rpxy-l4 1.2.3"),
                    "{width} x {height}: {lines:?}"
                );
            }
        }
    }
    assert_eq!(drawn(&model, PLAIN, (39, 10))[0], "40 x 10 is needed");
}

#[test]
fn colours_only_where_they_are_wanted() {
    let mut model = model();
    press(&mut model, "3");
    for (row, colours) in [("wanted", true), ("not wanted", false)] {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(&model, Theme { colours, unicode: true }, frame.buffer_mut())).unwrap();
        let cells = terminal.backend().buffer().content();
        let coloured = cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, colours, "{row}");
    }
}

#[test]
fn who_may_only_look_sees_it() {
    let mut model = Model::new(Told { may_change: Some(false), ..told(60_000, 1) }, Duration::from_secs(1));
    press(&mut model, "3");
    let lines = drawn(&model, PLAIN, (80, 24));
    assert!(lines[0].ends_with("read only  every 1s"), "{}", lines[0]);
    assert!(!lines[23].contains("drain") && lines[23].contains("Enter connections"), "{}", lines[23]);
}

#[test]
fn a_daemon_that_is_gone_is_said_to_be() {
    let mut model = model();
    drop(model.update(Event::Told(Err("no daemon runs".to_owned()))));
    let lines = drawn(&model, PLAIN, (80, 24));
    assert!(lines[0].contains("LOST"), "{}", lines[0]);
    assert_eq!(lines[22], "the daemon does not answer, trying again: no daemon runs");
}

#[test]
fn lines_break_between_words() {
    for (text, width, expected) in [
        ("one two three", 20, &["one two three"] as &[&str]),
        ("one two three", 7, &["one two", "three"]),
        ("one twothree", 5, &["one", "twoth", "ree"]),
        ("abcdef", 3, &["abc", "def"]),
    ] {
        assert_eq!(wrap(text, width), expected, "{text} in {width}");
    }
}
