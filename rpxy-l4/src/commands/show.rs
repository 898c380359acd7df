//! Answers of the admin socket as tables. Fields that a daemon of another version does not send are shown as `-`.

use std::io::{self, Write};

use serde_json::Value;

use super::{
    explanation,
    units::time,
    values::{millis, size, text},
};
use crate::{
    admin::{Command, List},
    config::model::TOP,
    escape,
};

/// Writes the answer to `command`. `more` means that the daemon left out lines beyond the limit.
pub(super) fn show(command: &Command, lines: &[Value], more: bool, out: &mut dyn Write) -> io::Result<()> {
    match command {
        Command::Status {} => lines.iter().try_for_each(|line| status(line, out)),
        Command::Overview {} | Command::Rights {} => lines.iter().try_for_each(|line| writeln!(out, "{line}")),
        Command::Flows(List { limit, .. }) => {
            table(&FLOW, lines.iter().map(flow).collect(), out)?;
            if more { writeln!(out, "there are more than {limit}; see --limit") } else { Ok(()) }
        }
        Command::Connections(List { limit, .. }) => {
            table(&CONNECTION, lines.iter().map(connection).collect(), out)?;
            if more { writeln!(out, "there are more than {limit}; see --limit") } else { Ok(()) }
        }
        Command::Close { .. } => lines.iter().try_for_each(|line| writeln!(out, "{} is closed", text(&line["id"]))),
        Command::Targets {} => table(&TARGET, lines.iter().map(target).collect(), out),
        Command::Explain(_) => lines.iter().try_for_each(|line| explanation::show(line, out)),
        Command::Drain(_) | Command::Up(_) => lines.iter().try_for_each(|line| maintained(line, out)),
        Command::DrainListeners(_) | Command::UpListeners(_) => {
            lines.iter().try_for_each(|line| listeners_maintained(line, out))
        }
        Command::HandOver { .. } => Ok(()),
        Command::Ban { .. } | Command::Unban { .. } => lines.iter().try_for_each(|line| ban(line, out)),
        Command::Bans {} => {
            let rows = lines.iter().map(|line| vec![text(&line["network"]), text(&line["source"])]).collect();
            table(&["NETWORK", "BANNED BY"], rows, out)
        }
    }
}

const FLOW: [&str; 12] =
    ["ID", "CLIENT", "LISTENER", "BACKEND", "CARRIES", "RULE", "AGE", "IDLE", "UP", "DOWN", "STATE", "PLANE"];

fn flow(line: &Value) -> Vec<String> {
    let state = match (line["stage"].as_str(), line["answered"].as_bool(), line["confirmed"].as_bool()) {
        (Some("open"), _, Some(true)) => "confirmed".to_owned(),
        (Some("open"), Some(true), _) => "answered".to_owned(),
        (Some("open"), ..) => "unanswered".to_owned(),
        _ => text(&line["stage"]),
    };
    let plane = match line["reason"].as_str() {
        Some(_) => format!("{}: {}", text(&line["plane"]), text(&line["reason"])),
        None => text(&line["plane"]),
    };
    vec![
        text(&line["id"]),
        text(&line["client"]),
        listener(line),
        backend(line),
        text(&line["carries"]),
        text(&line["rule"]),
        millis(&line["age_ms"]),
        millis(&line["idle_ms"]),
        size(&line["bytes_up"]),
        size(&line["bytes_down"]),
        state,
        plane,
    ]
}

const CONNECTION: [&str; 12] =
    ["ID", "CLIENT", "LISTENER", "BACKEND", "CARRIES", "RULE", "SERVER NAME", "AGE", "IDLE", "UP", "DOWN", "STATE"];

fn connection(line: &Value) -> Vec<String> {
    let inner = line["inner_server_name"].as_str().map(|_| &line["inner_server_name"]);
    vec![
        text(&line["id"]),
        text(&line["client"]),
        listener(line),
        backend(line),
        text(&line["carries"]),
        text(&line["rule"]),
        text(inner.unwrap_or(&line["server_name"])),
        millis(&line["age_ms"]),
        millis(&line["idle_ms"]),
        size(&line["bytes_up"]),
        size(&line["bytes_down"]),
        text(&line["stage"]),
    ]
}

/// The address that is listened on, with the listener's name unless it is the top of the file.
fn listener(line: &Value) -> String {
    match line["listener_name"].as_str() {
        Some(name) if name != TOP => format!("{} ({})", text(&line["listener"]), text(&line["listener_name"])),
        _ => text(&line["listener"]),
    }
}

/// The backend's address, with its target where that is a name.
fn backend(line: &Value) -> String {
    match (line["backend"].as_str(), line["target"].as_str()) {
        (Some(address), Some(target)) if address != target => {
            format!("{} ({})", text(&line["backend"]), text(&line["target"]))
        }
        _ => text(&line["backend"]),
    }
}

const TARGET: [&str; 9] =
    ["TARGET", "TRANSPORT", "RULE", "LISTENERS", "STATE", "SINCE", "ACTIVE", "FAILURES", "REASON"];

fn target(line: &Value) -> Vec<String> {
    let state = match line["backup"].as_bool() {
        Some(true) => format!("{} (backup)", text(&line["state"])),
        _ => text(&line["state"]),
    };
    vec![
        text(&line["target"]),
        text(&line["transport"]),
        text(&line["rule"]),
        words(line["listeners"].as_array().into_iter().flatten().map(text), "-"),
        state,
        millis(&line["since_ms"]),
        text(&line["active"]),
        text(&line["failures"]),
        text(&line["reason"]),
    ]
}

fn maintained(line: &Value, out: &mut dyn Write) -> io::Result<()> {
    let (target, transport) = (text(&line["target"]), text(&line["transport"]));
    match line["drained"].as_bool() {
        Some(true) => writeln!(out, "{target} ({transport}) is drained; {} go on", text(&line["active"])),
        _ => writeln!(out, "{target} ({transport}) is in service"),
    }
}

fn listeners_maintained(line: &Value, out: &mut dyn Write) -> io::Result<()> {
    if let Some(drained) = line["drained"].as_bool() {
        let state = if drained { "drained; what it has goes on" } else { "in service" };
        return writeln!(out, "the listener {} is {state}", text(&line["listener"]));
    }
    match line["listeners_drained"].as_bool() {
        Some(true) => {
            let (connections, sessions) = (text(&line["connections"]), text(&line["sessions"]));
            writeln!(out, "the listeners are drained; {connections} connections and {sessions} sessions go on")
        }
        _ => writeln!(out, "the listeners are in service"),
    }
}

fn status(line: &Value, out: &mut dyn Write) -> io::Result<()> {
    let load = |of: &Value| {
        let listen: Vec<String> = of["listen"].as_array().into_iter().flatten().map(text).collect();
        let listen = if listen.is_empty() { "not served".to_owned() } else { listen.join(", ") };
        format!("{listen}; {} of {}", text(&of["active"]), text(&of["max"]))
    };
    let down: Vec<String> = line["targets_down"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|down| {
            let why = match (down["check"].as_str(), down["reason"].as_str()) {
                (Some(check), Some(reason)) => format!(", {check}: {reason}"),
                (Some(_), None) | (None, _) => String::new(),
            };
            format!("{} ({}{why})", text(&down["target"]), text(&down["transport"]))
        })
        .collect();
    let drained_since = line["drained"]["listeners_s"].as_u64();
    let ago = |since: u64| format!("drained by command {} ago", time(since));
    let named = line["drained"]["listeners"].as_array().into_iter().flatten();
    let named =
        named.map(|of| format!("{} {}", text(&of["listener"]), of["since_s"].as_u64().map_or_else(String::new, ago)));
    let listeners = drained_since.map_or_else(|| words(named, "in service"), ago);
    let drained = line["drained"]["targets"].as_array().into_iter().flatten().map(|target| {
        format!("{} ({}, {} go on)", text(&target["target"]), text(&target["transport"]), text(&target["active"]))
    });
    let plane = &line["kernel_plane"];
    let kernel = match (plane["reason"].as_str(), plane["flows"].as_u64()) {
        (Some(_), _) => format!("{}: {}", text(&plane["state"]), text(&plane["reason"])),
        (None, Some(flows)) => {
            let on = words(plane["interfaces"].as_array().into_iter().flatten().map(text), "no interface yet");
            format!("{} on {on}; {flows} of {} flows", text(&plane["state"]), text(&plane["max_flows"]))
        }
        (None, None) => text(&plane["state"]),
    };
    let counters = plane["counters"].as_object().into_iter().flatten();
    let packets = words(counters.map(|(name, count)| format!("{name} {}", text(count))), "none");
    let lost = line["udp_kernel_drops"].as_u64();
    for (name, value) in [
        ("version", text(&line["version"])),
        ("process", text(&line["pid"])),
        ("uptime", line["uptime_s"].as_u64().map_or_else(|| "-".to_owned(), time)),
        ("configuration", format!("{}, {} rules", text(&line["config"]), text(&line["rules"]))),
        ("last reload", reload(&line["last_reload"])),
        ("workers", text(&line["workers"])),
        ("listeners", listeners),
        ("TCP connections", load(&line["tcp"])),
        ("UDP sessions", load(&line["udp"])),
        ("UDP lost", format!("{} for want of room in a socket", lost.map_or("-".to_owned(), |lost| lost.to_string()))),
        ("kernel plane", kernel),
        ("kernel packets", packets),
        ("targets down", if down.is_empty() { "none".to_owned() } else { down.join(", ") }),
        ("targets drained", words(drained, "none")),
        ("bans", text(&line["bans"])),
    ] {
        writeln!(out, "{name:<16} {value}")?;
    }
    Ok(())
}

fn reload(last: &Value) -> String {
    let Some(result) = last["result"].as_str() else { return "none".to_owned() };
    let ago = last["age_s"].as_u64().map_or_else(|| "-".to_owned(), time);
    if result != "refused" {
        return format!("{}, {ago} ago", escape::line(result));
    }
    let problems: Vec<&Value> = last["problems"].as_array().into_iter().flatten().collect();
    let first = problems.first().map_or_else(|| "see the log".to_owned(), |first| text(first));
    let more = if problems.len() > 1 { "; the log has more" } else { "" };
    format!("refused, {ago} ago: the file is not what runs: {first}{more}")
}

/// With commas between; `none` when there is nothing.
fn words(words: impl Iterator<Item = String>, none: &str) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { none.to_owned() } else { words.join(", ") }
}

fn ban(line: &Value, out: &mut dyn Write) -> io::Result<()> {
    let network = text(&line["network"]);
    match (line["banned"].as_bool(), line["source"].as_str()) {
        (Some(true), Some("command")) => writeln!(out, "{network} is banned"),
        (Some(true), _) => writeln!(out, "{network} is banned by the {}", text(&line["source"])),
        _ => writeln!(out, "{network} is not banned any more"),
    }
}

/// Columns as wide as they have to be; the last is ragged.
fn table(head: &[&str], rows: Vec<Vec<String>>, out: &mut dyn Write) -> io::Result<()> {
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::{ListenerArgs, TargetArgs};

    fn shown(command: &Command, lines: &[Value], more: bool) -> String {
        let mut out = Vec::new();
        show(command, lines, more, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn flows_are_a_table() {
        let line = json!({
            "id": "u0-1-2", "client": "192.0.2.1:5", "listener": "0.0.0.0:443", "backend": null, "stage": "opening", "carries": "udp:quic",
            "rule": "a\u{1b}b", "age_ms": 61_500, "idle_ms": 10, "bytes_up": 2048, "bytes_down": 0, "answered": false,
            "confirmed": false, "plane": "userspace", "reason": "off",
        });
        let text = shown(&Command::Flows(list(1)), &[line], true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), FLOW);
        assert_eq!(
            lines[1],
            "u0-1-2  192.0.2.1:5  0.0.0.0:443  -        udp:quic  a\\u{1b}b  1m1s  0s    2.0 KiB  0 B   opening  userspace: off"
        );
        assert_eq!(lines[2], "there are more than 1; see --limit");
    }

    fn list(limit: usize) -> List {
        List { limit, client: None, rule: None, target: None }
    }

    #[test]
    fn connections_are_a_table() {
        let line = json!({
            "id": "t0-1-2", "client": "192.0.2.1:5", "listener": "0.0.0.0:443", "backend": "192.0.2.9:443",
            "target": "a.example:443", "stage": "open", "carries": "tcp:tls", "rule": "web", "server_name": "b.example",
            "age_ms": 61_500, "idle_ms": 10, "bytes_up": 2048, "bytes_down": 0,
        });
        let text = shown(&Command::Connections(list(9)), std::slice::from_ref(&line), false);
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "t0-1-2  192.0.2.1:5  0.0.0.0:443  192.0.2.9:443 (a.example:443)  tcp:tls  web   b.example    1m1s  0s    2.0 \
             KiB  0 B   open"
        );
        let mut literal = line;
        literal["listener_name"] = json!("in");
        literal["target"] = json!("192.0.2.9:443");
        literal["inner_server_name"] = json!("private.example");
        let text = shown(&Command::Connections(list(9)), &[literal], false);
        assert!(
            text.contains("  0.0.0.0:443 (in)  192.0.2.9:443  tcp:tls") && text.contains("  private.example  "),
            "{text}"
        );
    }

    #[test]
    fn targets_are_a_table() {
        let line = json!({
            "transport": "tcp", "rule": "web", "target": "a.example:443", "backup": true, "weight": 1, "state": "down",
            "listeners": ["default", "in"],
            "reason": "connection refused", "since_ms": 61_500, "active": 3, "failures": 7,
        });
        let text = shown(&Command::Targets {}, &[line], false);
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "a.example:443  tcp        web   default, in  down (backup)  1m1s   3       7         connection refused"
        );
    }

    #[test]
    fn what_is_drained_is_told() {
        let target = |drained| json!({ "transport": "tcp", "target": "a:1", "drained": drained, "active": 3 });
        let listeners = |drained| json!({ "listeners_drained": drained, "connections": 3, "sessions": 4 });
        let listener = |drained| json!({ "listener": "wg", "drained": drained });
        let one = || ListenerArgs { listener: Some("wg".to_owned()) };
        let args = || TargetArgs { target: "a:1".to_owned(), transport: None };
        for (command, line, expected) in [
            (Command::Drain(args()), target(true), "a:1 (tcp) is drained; 3 go on\n"),
            (Command::Up(args()), target(false), "a:1 (tcp) is in service\n"),
            (
                Command::DrainListeners(ListenerArgs::default()),
                listeners(true),
                "the listeners are drained; 3 connections and 4 sessions go on\n",
            ),
            (Command::UpListeners(ListenerArgs::default()), listeners(false), "the listeners are in service\n"),
            (Command::DrainListeners(one()), listener(true), "the listener wg is drained; what it has goes on\n"),
            (Command::UpListeners(one()), listener(false), "the listener wg is in service\n"),
        ] {
            assert_eq!(shown(&command, &[line], false), expected, "{command:?}");
        }
        let drained = json!({ "listeners_s": 61, "targets": [{ "transport": "tcp", "target": "a:1", "active": 3 }] });
        let text = shown(&Command::Status {}, &[json!({ "drained": drained })], false);
        assert!(text.contains("listeners        drained by command 1m1s ago\n"), "{text}");
        let drained = json!({ "listeners_s": null, "listeners": [{ "listener": "wg", "since_s": 61 }] });
        let some = shown(&Command::Status {}, &[json!({ "drained": drained })], false);
        assert!(some.contains("listeners        wg drained by command 1m1s ago\n"), "{some}");
        assert!(text.contains("targets drained  a:1 (tcp, 3 go on)\n"), "{text}");
    }

    #[test]
    fn the_kernel_plane_in_a_status() {
        let plane = json!({
            "state": "tc", "reason": null, "interfaces": ["eth0 (tcx)", "eth1 (tcx)"], "flows": 3, "max_flows": 65536,
            "counters": { "foreign": 7, "steered": 1000 },
        });
        let text = shown(&Command::Status {}, &[json!({ "kernel_plane": plane })], false);
        assert!(text.contains("kernel plane     tc on eth0 (tcx), eth1 (tcx); 3 of 65536 flows\n"), "{text}");
        assert!(text.contains("kernel packets   foreign 7, steered 1000\n"), "{text}");
        let plane = json!({ "state": "off", "reason": "why", "interfaces": [], "flows": null, "counters": {} });
        let text = shown(&Command::Status {}, &[json!({ "kernel_plane": plane })], false);
        assert!(text.contains("kernel plane     off: why\n") && text.contains("kernel packets   none\n"), "{text}");
    }

    #[test]
    fn the_last_reload_in_a_status() {
        for (row, last, expected) in [
            ("none", Value::Null, "none"),
            ("applied", json!({ "result": "applied", "age_s": 61, "problems": [] }), "applied, 1m1s ago"),
            (
                "refused",
                json!({ "result": "refused", "age_s": 4, "problems": ["a.toml:1: \u{1b}"] }),
                "refused, 4s ago: the file is not what runs: a.toml:1: \\u{1b}",
            ),
            (
                "for several reasons",
                json!({ "result": "refused", "age_s": 4, "problems": ["first", "second"] }),
                "refused, 4s ago: the file is not what runs: first; the log has more",
            ),
        ] {
            let text = shown(&Command::Status {}, &[json!({ "last_reload": last })], false);
            assert!(text.contains(&format!("last reload      {expected}\n")), "{row}: {text}");
        }
    }

    #[test]
    fn a_status_of_another_version_is_shown_as_far_as_it_goes() {
        let text =
            shown(&Command::Status {}, &[json!({ "version": "9.9.9", "tcp": { "active": 3, "max": 4 } })], false);
        assert!(text.contains("version          9.9.9\n"), "{text}");
        assert!(text.contains("TCP connections  not served; 3 of 4\n"), "{text}");
        assert!(text.contains("workers          -\n"), "{text}");
    }
}
