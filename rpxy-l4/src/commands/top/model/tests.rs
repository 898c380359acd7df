//! What keys and answers do.

use super::*;
use crate::{
    admin::{Command, List},
    commands::top::lines::Line,
    overview::{Rule, Target},
};

fn overview(uptime_ms: u64) -> Overview {
    let mut overview = Overview { uptime_ms, pid: 7, ready: true, ..Overview::default() };
    for name in ["web", "api", "mail"] {
        overview.rules.push(Rule { protocol: "tls".into(), ..Rule::new(name.into(), Transport::Tcp) });
    }
    overview.rules.push(Rule { protocol: "any".into(), ..Rule::new("tcp_target".into(), Transport::Tcp) });
    for (name, state) in [("a:1", "up"), ("b:1", "drained")] {
        overview.targets.push(Target { state: state.into(), ..Target::new(Transport::Tcp, name.to_owned()) });
    }
    overview
}

fn told(uptime_ms: u64) -> Told {
    Told { overview: overview(uptime_ms), list: None, may_change: Some(true) }
}

fn model() -> Model {
    Model::new(told(1000), Duration::from_secs(1))
}

/// Presses keys: letters, and `\n`, `\t`, `\u{1b}`, `v` for those without.
fn press(model: &mut Model, keys: &str) -> Vec<Effect> {
    let key = |c| match c {
        '\n' => Key::Enter,
        '\t' => Key::Tab,
        '\u{1b}' => Key::Escape,
        '\u{8}' => Key::Backspace,
        '\u{3}' => Key::Interrupt,
        other => Key::Char(other),
    };
    keys.chars().flat_map(|c| model.update(Event::Key(key(c)))).collect()
}

fn shown(model: &Model) -> String {
    let rows = model.rows();
    let names: Vec<&str> = rows.iter().map(|row| row.cells[0].text.as_str()).collect();
    names.join(" ")
}

fn selected(model: &Model) -> String {
    let rows = model.rows();
    rows[model.selected(&rows)].cells[0].text.clone()
}

fn list(only: List) -> Effect {
    Effect::Ask(Wanted { list: Some((Transport::Tcp, only)), rights: false })
}

#[test]
fn keys_choose_what_is_shown() {
    for (row, keys, view, rows, chosen) in [
        ("rules in the order of the file", "2", View::Rules, "web api mail tcp_target", "web"),
        ("the next one", "2j", View::Rules, "web api mail tcp_target", "api"),
        ("not beyond the end", "2jjjjjjj", View::Rules, "web api mail tcp_target", "tcp_target"),
        ("nor the beginning", "2jkkkk", View::Rules, "web api mail tcp_target", "web"),
        ("the last, the first", "2Gg", View::Rules, "web api mail tcp_target", "web"),
        ("by name", "2>", View::Rules, "api mail tcp_target web", "api"),
        ("the other way round", "2>r", View::Rules, "web tcp_target mail api", "web"),
        ("as in the file again", "2><", View::Rules, "web api mail tcp_target", "web"),
        ("a filter while it is typed", "2/A", View::Rules, "api mail tcp_target", "api"),
        ("of all columns", "2/TLS", View::Rules, "web api mail", "web"),
        ("a filter that stays", "2/mai\n", View::Rules, "mail", "mail"),
        ("corrected", "2/maxi\u{8}\u{8}i\n", View::Rules, "mail", "mail"),
        ("taken back", "2/mai\u{1b}", View::Rules, "web api mail tcp_target", "web"),
        ("cleared", "2/mai\n\u{1b}", View::Rules, "web api mail tcp_target", "web"),
        ("one for each view", "2/mai\n3", View::Targets, "a:1 b:1", "a:1"),
        ("the next view", "\t\t", View::Targets, "a:1 b:1", "a:1"),
        ("letters of a filter are no keys", "2/q3\n", View::Rules, "", ""),
        ("help goes away with any key", "2?q", View::Rules, "web api mail tcp_target", "web"),
    ] {
        let mut model = model();
        press(&mut model, keys);
        assert_eq!((model.view, shown(&model).as_str()), (view, rows), "{row}");
        if !chosen.is_empty() {
            assert_eq!(selected(&model), chosen, "{row}");
        }
    }
}

#[test]
fn the_selection_follows_its_row() {
    let mut model = model();
    press(&mut model, "2jj>");
    assert_eq!((shown(&model).as_str(), selected(&model).as_str()), ("api mail tcp_target web", "mail"));
    let mut next = told(2000);
    next.overview.rules.remove(2);
    model.update(Event::Told(Ok(Box::new(next))));
    assert_eq!(selected(&model), "api", "the first where it has gone");
}

#[test]
fn the_daemon_is_asked_for_what_is_shown_and_once_at_a_time() {
    let mut model = model();
    let all = action::everything;
    assert_eq!(model.update(Event::Tick), [Effect::Ask(Wanted { list: None, rights: false })]);
    assert_eq!(model.update(Event::Tick), [], "it has not answered yet");
    assert_eq!(press(&mut model, "4"), [], "nor now");
    let effects = model.update(Event::Told(Ok(Box::new(told(2000)))));
    assert_eq!(effects, [list(all())], "as soon as it has answered");
    model.update(Event::Told(Ok(Box::new(told(3000)))));
    assert_eq!(press(&mut model, "2jj\n"), [list(List { rule: Some("mail".to_owned()), ..all() })], "those of a rule");
    assert_eq!(model.view, View::Connections);
    model.update(Event::Told(Ok(Box::new(told(4000)))));
    assert_eq!(press(&mut model, "\u{1b}"), [list(all())], "all again");
    press(&mut model, "p");
    model.update(Event::Told(Ok(Box::new(told(5000)))));
    assert_eq!(model.update(Event::Tick), [], "paused");
    press(&mut model, "2G");
    assert_eq!(press(&mut model, "\n"), []);
    assert!(model.message.as_ref().is_some_and(|message| message.is_error), "default targets have no name in lists");
}

#[test]
fn nothing_is_changed_without_a_clear_yes() {
    let drain = || Command::Drain(admin::TargetArgs { target: "a:1".to_owned(), transport: Some(Transport::Tcp) });
    for (row, keys, expected) in [
        ("asked only", "3d", None),
        ("yes", "3dy", Some(drain())),
        ("no", "3dny", None),
        ("back", "3d\u{1b}y", None),
        ("q is no", "3dq", None),
        ("Enter is no answer", "3d\n", None),
        ("nor are other keys", "3dYjx2", None),
        ("after them", "3djy", Some(drain())),
        ("without a question", "3y", None),
        ("drained already", "3jdy", None),
        ("in service", "3uy", None),
        ("nothing to be done with a rule", "2dy", None),
        ("or here", "1dy", None),
    ] {
        let effects = press(&mut model(), keys);
        let commands: Vec<_> = effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Command { command, .. } => Some(command),
                Effect::Ask(_) | Effect::Redraw => None,
                Effect::Quit => panic!("{row}: left"),
            })
            .collect();
        assert_eq!(commands, expected.into_iter().collect::<Vec<_>>(), "{row}");
    }
}

#[test]
fn whoever_may_only_look_is_not_asked() {
    let mut model = Model::new(Told { may_change: Some(false), ..told(1000) }, Duration::from_secs(1));
    assert_eq!(press(&mut model, "3dy"), []);
    assert_eq!(model.prompt, Prompt::Nothing);
    let mut model = Model::new(Told { may_change: Some(false), ..told(1000) }, Duration::from_secs(1));
    press(&mut model, "3d");
    assert!(model.message.as_ref().is_some_and(|message| message.text.contains("only look")), "{:?}", model.message);
}

#[test]
fn what_was_done_is_said() {
    let mut model = model();
    model.update(Event::Done(Err("there is no t0-1-2".to_owned())));
    assert_eq!(model.message, Some(Message { text: "there is no t0-1-2".to_owned(), is_error: true }));
    press(&mut model, "2");
    assert_eq!(model.message, None, "until the next key");
}

#[test]
fn a_daemon_that_is_started_again_is_another_one() {
    let mut model = model();
    model.update(Event::Tick);
    model.update(Event::Told(Ok(Box::new(told(2000)))));
    assert_eq!((model.history.len(), model.rates.is_some()), (1, true));
    model.update(Event::Tick);
    model.update(Event::Told(Err("cannot connect".to_owned())));
    assert_eq!(
        (model.lost.as_deref(), model.overview.uptime_ms),
        (Some("cannot connect"), 2000),
        "what is known stays"
    );
    assert_eq!(model.update(Event::Tick), [Effect::Ask(Wanted { list: None, rights: true })], "who asks may change");
    model.update(Event::Told(Ok(Box::new(told(10)))));
    assert_eq!((model.lost, model.history.len(), model.rates), (None, 0, None));
}

#[test]
fn rates_of_connections_are_of_the_same_list() {
    let mut model = model();
    let lines = |age_ms, bytes_up| {
        let line = Line { id: "t0-0-1".to_owned(), age_ms, bytes_up, ..Line::default() };
        Lines { lines: vec![line], more: false }
    };
    let answer =
        |uptime, lines| Event::Told(Ok(Box::new(Told { list: Some((Transport::Tcp, lines)), ..told(uptime) })));
    press(&mut model, "4");
    model.update(answer(2000, lines(1000, 0)));
    assert_eq!(model.lines.lines[0].rates, None);
    model.update(answer(3000, lines(2000, 500)));
    assert_eq!(model.lines.lines[0].rates, Some((500.0, 0.0)));
    press(&mut model, "5");
    model.update(answer(4000, lines(3000, 500)));
    assert_eq!(model.lines, Lines::default(), "an answer to an earlier question");
}

#[test]
fn memory_is_bounded() {
    let mut model = model();
    for uptime in 2..1000 {
        model.update(Event::Told(Ok(Box::new(told(uptime * 1000)))));
    }
    assert_eq!(model.history.len(), HISTORY);
    press(&mut model, &format!("2/{}", "x".repeat(1000)));
    assert_eq!(model.shown().filter.len(), LONGEST_FILTER);
}

#[test]
fn leaving() {
    for (row, keys) in [("q", "q"), ("Ctrl-C", "\u{3}"), ("in a question", "3d\u{3}"), ("in a filter", "2/a\u{3}")] {
        assert_eq!(press(&mut model(), keys).last(), Some(&Effect::Quit), "{row}");
    }
}

#[test]
fn the_interval_changes_in_steps() {
    for (row, keys, expected) in
        [("longer", "+", 2000), ("shorter", "-", 500), ("shortest", "-----", 200), ("longest", "++++++++++", 60_000)]
    {
        let mut model = model();
        press(&mut model, keys);
        assert_eq!(model.interval, Duration::from_millis(expected), "{row}");
    }
}
