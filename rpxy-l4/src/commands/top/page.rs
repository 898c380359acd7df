//! The overview as lines of text: first what somebody should look at, then the rest.

use super::{
    super::units,
    rates::{Rates, RuleRates, as_f64},
    table::{Cell, Tone, bytes_per_second, per_second, short},
};
use crate::{
    escape,
    overview::{Bounded, Counts, Listener, LoadedFile, Overview, Rule, Word},
};

/// Things of one kind that are listed by name.
const FEW: usize = 5;
/// Characters of a name in front of a line.
const NAME: usize = 15;

/// A piece of a line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) tone: Tone,
    pub(super) bold: bool,
}

/// A line of the page.
pub(super) type Line = Vec<Piece>;

impl Piece {
    fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone, bold: false }
    }
}

/// All lines about a daemon.
pub(super) fn lines(overview: &Overview, rates: Option<&Rates>) -> Vec<Line> {
    let mut lines = Vec::new();
    let attention = attention(overview);
    let nothing = vec![Piece::new("nothing", Tone::Good)];
    section(&mut lines, "Attention", if attention.is_empty() { vec![nothing] } else { attention });
    section(&mut lines, "Configuration", vec![plain(configuration(overview))]);
    section(&mut lines, "Listeners", overview.listeners.iter().flat_map(listener).collect());
    section(&mut lines, "Busiest rules", busiest(overview, rates));
    section(
        &mut lines,
        "Refused",
        vec![
            plain(format!("TCP: {}", counts(&overview.tcp.refused))),
            plain(format!("UDP: {}", counts(&overview.udp.refused))),
        ],
    );
    section(&mut lines, "Kernel plane", kernel(overview, rates).into_iter().map(plain).collect());
    section(&mut lines, "Bans", vec![plain(bans(overview))]);
    section(&mut lines, "Process", vec![plain(process(overview, rates))]);
    lines
}

/// Adds lines behind a name.
fn section(lines: &mut Vec<Line>, name: &str, of: Vec<Line>) {
    for (index, line) in of.into_iter().enumerate() {
        let head = if index == 0 { name } else { "" };
        let head = Piece { text: format!("{head:<NAME$}"), tone: Tone::Plain, bold: true };
        lines.push(std::iter::once(head).chain(line).collect());
    }
}

fn plain(text: String) -> Line {
    vec![Piece::new(text, Tone::Plain)]
}

/// What is not as it should be, the worst first.
fn attention(overview: &Overview) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut bad = |text: String| lines.push(vec![Piece::new(text, Tone::Bad)]);
    if !overview.ready {
        bad(format!("not ready: {}", overview.not_ready.as_deref().map_or("-".into(), escape::line)));
    }
    if overview.config.state == LoadedFile::Refused {
        let last = overview.config.last_reload.as_ref();
        let why = last.and_then(|reload| reload.problems.first()).map_or("see the log", String::as_str);
        bad(format!("the file is not what runs: {}", escape::line(why)));
    }
    let down = overview.targets.iter().filter(|target| target.state == "down");
    for target in down.clone().take(FEW) {
        let since = target.since_ms.map_or_else(String::new, |millis| format!(" for {}", units::time(millis / 1000)));
        let of = target.rule.as_deref().map_or_else(String::new, |rule| format!(" of {}", escape::line(rule)));
        let why = target.reason.as_deref().map_or_else(String::new, |why| format!(": {}", escape::line(why)));
        bad(format!("{}{of} ({}) is down{since}{why}", escape::line(&target.target), target.transport.name()));
    }
    if let more @ 1.. = down.count().saturating_sub(FEW) {
        bad(format!("{more} more targets are down"));
    }
    let mut warn = |text: String| lines.push(vec![Piece::new(text, Tone::Warning)]);
    if let Some(since) = overview.drained.listeners_s {
        warn(format!("the listeners are drained for {}", units::time(since)));
    }
    for target in overview.drained.targets.iter().take(FEW) {
        let (name, since) = (escape::line(&target.target), units::time(target.since_s));
        let (over, left) = (target.transport.name(), target.active);
        warn(format!("{name} ({over}) is drained for {since}; {left} go on"));
    }
    let mut counted = |count: u64, what: &str| {
        if count > 0 {
            warn(format!("{} {what} since the start", short(as_f64(count))));
        }
    };
    counted(overview.tcp.accept_paused, "times accepting paused: descriptors or memory ran out");
    counted(overview.udp.kernel_drops, "datagrams found no room in a socket");
    counted(overview.log_lines_lost, "lines of logs were lost");
    lines
}

fn configuration(overview: &Overview) -> String {
    let path = escape::line(&overview.config.path);
    match &overview.config.last_reload {
        None => format!("{path}, not reloaded yet"),
        Some(reload) => {
            format!("{path}, last reload {} {} ago", escape::line(&reload.result), units::time(reload.age_s))
        }
    }
}

fn listener(listener: &Listener) -> Vec<Line> {
    let line = |transport: &str, addresses: &[String], bounded: &Option<Bounded>| {
        let Bounded { started, active, max, shared } = bounded.as_ref()?;
        let full = if active >= max { Tone::Bad } else { Tone::Plain };
        let shared = if *shared { " (shared)" } else { "" };
        let on: Vec<_> = addresses.iter().map(|address| escape::line(address)).collect();
        let on = if on.is_empty() { "closed".to_owned() } else { format!("on {}", on.join(", ")) };
        Some(vec![
            Piece::new(format!("{} {transport}: ", escape::line(&listener.name)), Tone::Plain),
            Piece::new(format!("{active} of {max}"), full),
            Piece::new(format!("{shared}, {} so far, {on}", short(as_f64(*started))), Tone::Plain),
        ])
    };
    let tcp = line("tcp", &listener.tcp, &listener.connections);
    tcp.into_iter().chain(line("udp", &listener.udp, &listener.sessions)).collect()
}

fn busiest(overview: &Overview, rates: Option<&Rates>) -> Vec<Line> {
    let Some(rates) = rates else { return vec![plain("known after the next look".to_owned())] };
    let mut rules: Vec<_> = overview.rules.iter().zip(&rates.rules).collect();
    rules.retain(|(rule, rates)| rule.active > 0 || rates.carried.started > 0.0);
    rules.sort_by(|(_, one), (_, other)| {
        let bytes = |rates: &RuleRates| rates.carried.bytes_up + rates.carried.bytes_down;
        bytes(other).total_cmp(&bytes(one)).then(other.carried.started.total_cmp(&one.carried.started))
    });
    let line = |(rule, rates): (&Rule, &RuleRates)| {
        plain(format!(
            "{}: {} up, {} down, {}/s new, {} now",
            Cell::text(&rule.name).text,
            bytes_per_second(rates.carried.bytes_up),
            bytes_per_second(rates.carried.bytes_down),
            per_second(rates.carried.started),
            rule.active
        ))
    };
    let lines: Vec<Line> = rules.into_iter().take(FEW).map(line).collect();
    if lines.is_empty() { vec![vec![Piece::new("none has traffic", Tone::Faint)]] } else { lines }
}

/// The largest first.
fn counts(counts: &Counts) -> String {
    let mut all: Vec<_> = counts.iter().collect();
    all.sort_by(|one, other| other.1.cmp(one.1));
    match all.as_slice() {
        [] => "none".to_owned(),
        all => {
            let word = |(name, count): &(&Word, &u64)| format!("{} {}", escape::line(name), short(as_f64(**count)));
            all.iter().map(word).collect::<Vec<_>>().join(", ")
        }
    }
}

fn kernel(overview: &Overview, rates: Option<&Rates>) -> Vec<String> {
    let plane = &overview.kernel_plane;
    let first = match (plane.reason.as_deref(), plane.flows) {
        (None, Some(flows)) => {
            let on = plane.interfaces.iter().map(|name| escape::line(name)).collect::<Vec<_>>().join(", ");
            let on = if on.is_empty() { "no interface yet".to_owned() } else { on };
            let max = plane.max_flows.unwrap_or_default();
            let share = rates.and_then(share).map_or_else(String::new, |share| format!("; {share:.0} % of packets"));
            format!("{} on {on}; {flows} of {max} flows{share}", escape::line(&plane.state))
        }
        (Some(reason), _) => format!("{}: {}", escape::line(&plane.state), escape::line(reason)),
        (None, None) => escape::line(&plane.state).into_owned(),
    };
    let not = (plane.flows.is_some() && !plane.not_steered.is_empty())
        .then(|| format!("sessions not steered: {}", counts(&plane.not_steered)));
    std::iter::once(first).chain(not).collect()
}

/// The part of all datagrams that the kernel forwards, in percent.
pub(super) fn share(rates: &Rates) -> Option<f64> {
    let all = rates.steered + rates.datagrams;
    (all > 0.0).then(|| 100.0 * rates.steered / all)
}

fn bans(overview: &Overview) -> String {
    let bans = &overview.bans;
    let first = bans.first.iter().take(FEW).map(|ban| escape::line(&ban.network).into_owned());
    match bans.count {
        0 => "none".to_owned(),
        count => {
            let first = first.collect::<Vec<_>>().join(", ");
            format!("{count}: {first}{}", if count > FEW { ", .." } else { "" })
        }
    }
}

fn process(overview: &Overview, rates: Option<&Rates>) -> String {
    let process = &overview.process;
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let memory = process.resident_bytes.map_or_else(|| "-".to_owned(), units::bytes);
    let processors = rates.map_or_else(String::new, |rates| format!(", {:.2} processors", rates.processors));
    format!(
        "{memory} of memory, {} of {} descriptors{processors}, {} workers",
        number(process.open_files),
        number(process.max_open_files),
        overview.workers
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::model::Transport, overview::Target};

    fn text(overview: &Overview) -> String {
        let line = |line: Line| line.into_iter().map(|piece| piece.text).collect::<String>() + "\n";
        lines(overview, None).into_iter().map(line).collect()
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let mut overview = Overview { ready: true, ..Overview::default() };
        assert!(text(&overview).starts_with("Attention      nothing\nConfiguration  "), "{}", text(&overview));
        overview.ready = false;
        overview.not_ready = Some("draining".into());
        overview.config.state = LoadedFile::Refused;
        for number in 0..FEW + 2 {
            let mut target = Target::new(Transport::Tcp, format!("a:{number}"));
            (target.state, target.reason, target.rule) =
                ("down".into(), Some("why\u{1b}".to_owned()), Some("web".into()));
            target.since_ms = Some(61_000);
            overview.targets.push(target);
        }
        overview.udp.kernel_drops = 3;
        let text = text(&overview);
        for expected in [
            "Attention      not ready: draining\n",
            "               the file is not what runs: see the log\n",
            "               a:4 of web (tcp) is down for 1m1s: why\\u{1b}\n               2 more targets are down\n",
            "               3 datagrams found no room in a socket since the start\nConfiguration  ",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
