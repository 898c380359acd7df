//! An explanation as text: the answer first, then what it rests on, in the order in which the daemon asks.

use std::io::{self, Write};

use serde_json::Value;

use super::values::{millis, text};

/// Width of the names in front.
const NAME: usize = 18;

/// Writes one explanation.
pub(super) fn show(line: &Value, out: &mut dyn Write) -> io::Result<()> {
    let listen = words(&line["listen"]);
    writeln!(
        out,
        "{} from {} to listener {}{}: {}",
        text(&line["transport"]).to_uppercase(),
        client(&line["from"]),
        text(&line["listener"]),
        if listen.is_empty() { String::new() } else { format!(" ({listen})") },
        given(line),
    )?;
    writeln!(out, "{}", verdict(&line["verdict"]))?;
    writeln!(out)?;
    row(out, "recognised", &recognised(&line["recognised"]))?;
    for asked in items(&line["questions"]) {
        let answer = match asked["refused"].as_str() {
            Some(_) => format!("refused ({}): {}", text(&asked["refused"]), text(&asked["answer"])),
            None => text(&asked["answer"]),
        };
        row(out, &text(&asked["question"]), &answer)?;
    }
    let chosen = &line["chosen"];
    let rule = match (chosen.is_null(), chosen["rule"].as_str()) {
        (true, _) => "none".to_owned(),
        (false, Some(_)) => format!("{}: {}", text(&chosen["rule"]), text(&chosen["because"])),
        (false, None) => format!("none, so the default target: {}", text(&chosen["because"])),
    };
    row(out, "rule", &rule)?;
    others(line, out)?;
    targets(&line["targets"], out)?;
    if line["transport"] == "tcp" {
        let header = if line["proxy_header"].is_null() { "none".to_owned() } else { text(&line["proxy_header"]) };
        row(out, "PROXY header", &header)?;
    }
    let plane = &line["plane"];
    let because: Vec<String> = items(&plane["because"]).map(text).collect();
    let plane = text(&plane["plane"]);
    let plane = if because.is_empty() { plane } else { format!("{plane}: {}", because.join("; ")) };
    row(out, "plane", &plane)?;
    for note in items(&line["notes"]) {
        row(out, "note", &text(note))?;
    }
    if line["answered_by"] == "file" {
        let note =
            "by the file alone: load, health, what is drained, bans by command and addresses of names are not known";
        row(out, "note", note)?;
    }
    Ok(())
}

fn row(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<NAME$} {value}")
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> String {
    const SHOWN: usize = 4;
    let all: Vec<String> = items(value).map(text).collect();
    match all.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ")),
        None => all.join(", "),
    }
}

/// The client; port 0 is any.
fn client(from: &Value) -> String {
    let from = text(from);
    match from.strip_suffix(":0") {
        Some(address) => address.trim_matches(['[', ']']).to_owned(),
        None => from,
    }
}

fn given(line: &Value) -> String {
    let bytes = line["bytes"].as_u64().unwrap_or(0);
    let bytes = match bytes {
        0 => "no byte".to_owned(),
        1 => "1 byte".to_owned(),
        bytes => format!("{bytes} bytes"),
    };
    match line["datagrams"].as_u64() {
        Some(datagrams @ 2..) => format!("{bytes} in {datagrams} datagrams"),
        _ => bytes,
    }
}

fn verdict(verdict: &Value) -> String {
    match verdict["is"].as_str() {
        Some("goes") => {
            let to: Vec<String> = items(&verdict["to"]).map(text).collect();
            let to = match to.as_slice() {
                [only] => only.clone(),
                _ => format!("one of {}", words(&verdict["to"])),
            };
            match verdict["rule"].as_str() {
                Some(_) => format!("goes to {to} by rule {}", text(&verdict["rule"])),
                None => format!("goes to {to}, the default target"),
            }
        }
        Some("refused") => format!("is refused ({}): {}", text(&verdict["reason"]), text(&verdict["because"])),
        Some("answered") => format!("is answered by the daemon: {}", text(&verdict["with"])),
        Some("waits") => format!("waits for {}", text(&verdict["until"])),
        _ => "-".to_owned(),
    }
}

fn recognised(recognised: &Value) -> String {
    let protocol = text(&recognised["protocol"]);
    let mut parts = match protocol.split_once(':') {
        Some((_, protocol)) => vec![protocol.to_owned()],
        None => vec!["nothing".to_owned()],
    };
    let mut add = |name: &str, value: &Value| {
        if !value.is_null() {
            parts.push(format!("{name}{}", text(value)));
        }
    };
    add("", &recognised["detail"]);
    add("server name ", &recognised["server_name"]);
    add("inner server name ", &recognised["inner_server_name"]);
    add("ECH ", &recognised["ech"]);
    let alpn = words(&recognised["alpn"]);
    if !alpn.is_empty() {
        parts.push(format!("ALPN {alpn}"));
    }
    parts.join(", ")
}

/// Other rules with their reasons, one a line.
fn others(line: &Value, out: &mut dyn Write) -> io::Result<()> {
    let others: Vec<&Value> = items(&line["others"]).collect();
    let name = |other: &Value| text(&other["rule"]);
    let width = others.iter().map(|other| name(other).chars().count()).max().unwrap_or(0);
    let mut front = "other rules";
    for other in &others {
        row(out, front, &format!("{:<width$}  {}", name(other), text(&other["because"])))?;
        front = "";
    }
    let not_listed: Vec<String> = line["not_listed"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(why, count)| format!("{} ({})", text(count), why.replace('_', " ")))
        .collect();
    if !not_listed.is_empty() {
        let more = format!("more: {}; see --rule and --limit", not_listed.join(", "));
        row(out, front, &more)?;
    }
    Ok(())
}

/// The targets in the order in which they are tried, one a line.
fn targets(targets: &Value, out: &mut dyn Write) -> io::Result<()> {
    if targets.is_null() {
        return Ok(());
    }
    let only = if targets["only_healthy"] == true { ", healthy ones only" } else { "" };
    row(out, "balance", &format!("{}: {}{only}", text(&targets["balance"]), text(&targets["by"])))?;
    let list: Vec<&Value> = items(&targets["list"]).collect();
    let width = list.iter().map(|target| text(&target["target"]).chars().count()).max().unwrap_or(0);
    let mut front = "targets";
    for target in list {
        let order = target["order"].as_u64().map_or_else(|| "-".to_owned(), |order| order.to_string());
        let described = format!("{order:>2}  {:<width$}  {}", text(&target["target"]), state(target));
        row(out, front, &described)?;
        front = "";
    }
    match targets["not_listed"].as_u64() {
        Some(more @ 1..) => row(out, front, &format!("{more} more")),
        _ => Ok(()),
    }
}

fn state(target: &Value) -> String {
    let mut parts = vec![match (target["reason"].as_str(), target["since_ms"].as_u64()) {
        (Some(_), Some(_)) => {
            format!("{} for {}: {}", text(&target["state"]), millis(&target["since_ms"]), text(&target["reason"]))
        }
        (Some(_), None) => format!("{}: {}", text(&target["state"]), text(&target["reason"])),
        (None, _) => text(&target["state"]),
    }];
    if target["backup"] == true {
        parts.push("backup".to_owned());
    }
    if target["weight"].as_u64().is_some_and(|weight| weight != 1) {
        parts.push(format!("weight {}", text(&target["weight"])));
    }
    match (target["active"].as_u64(), target["max_connections"].as_u64()) {
        (_, Some(max)) => parts.push(format!("{} of {max} connections", text(&target["active"]))),
        (Some(1..), None) => parts.push(format!("{} connections or sessions", text(&target["active"]))),
        _ => {}
    }
    let addresses = words(&target["addresses"]);
    if !addresses.is_empty() {
        parts.push(format!("is {addresses}"));
    }
    if !target["note"].is_null() {
        parts.push(text(&target["note"]));
    }
    parts.join(", ")
}
