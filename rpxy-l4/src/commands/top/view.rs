//! The tables of what can be looked at: columns, and a row for each thing.

use std::net::IpAddr;

use super::{
    lines::{Line, Lines},
    rates::Rates,
    table::{Cell, Column, Row, Sort, Tone},
};
use crate::{config::model::Transport, overview::Overview};

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum View {
    #[default]
    Overview,
    Rules,
    Targets,
    Connections,
    Sessions,
    Refused,
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Subject {
    /// A rule, or default targets, which have no name in lists.
    Rule { transport: Transport, name: Option<String> },
    /// A target.
    Target { transport: Transport, target: String, drained: bool, active: u32 },
    /// A connection or session, by its ID.
    Line { transport: Transport, id: String, client: String, rule: Option<String>, address: Option<IpAddr> },
    /// A client that was turned away; by a unix socket it has no address.
    Client(Option<IpAddr>),
}

const RULES: &[Column] = &[
    Column::text("RULE", 12, 0),
    Column::word("PROTO", 9, 1),
    Column::text("LISTENER", 8, 8),
    Column::number("ACTIVE", 7, 0),
    Column::number("MAX", 6, 7),
    Column::number("NEW/s", 6, 1),
    Column::number("UP", 10, 2),
    Column::number("DOWN", 10, 2),
    Column::number("REFUSED/s", 9, 5),
    Column::number("REFUSED", 7, 3),
    Column::number("TOTAL", 7, 4),
    Column::number("SENT UP", 8, 6),
    Column::number("SENT DOWN", 9, 6),
];

const TARGETS: &[Column] = &[
    Column::text("TARGET", 18, 0),
    Column::word("OVER", 4, 3),
    Column::text("RULE", 6, 4),
    Column::word("STATE", 7, 0),
    Column::number("SINCE", 6, 5),
    Column::number("ACTIVE", 6, 0),
    Column::number("NEW/s", 5, 2),
    Column::number("UP", 10, 6),
    Column::number("DOWN", 10, 6),
    Column::number("FAILED", 6, 2),
    Column::number("CONNECT", 7, 3),
    Column::number("p99", 7, 7),
    Column::number("1st BYTE", 8, 8),
    Column::text("REASON", 18, 1),
];

const CONNECTIONS: &[Column] = &[
    Column::text("CLIENT", 18, 0),
    Column::text("RULE", 6, 1),
    Column::text("NAME", 16, 1),
    Column::text("TARGET", 16, 4),
    Column::word("CARRIES", 10, 6),
    Column::number("AGE", 6, 2),
    Column::number("IDLE", 6, 5),
    Column::number("UP", 10, 3),
    Column::number("DOWN", 10, 3),
    Column::number("SENT UP", 8, 7),
    Column::number("SENT DOWN", 9, 7),
    Column::word("STATE", 9, 4),
    Column::word("ID", 8, 8),
];

const SESSIONS: &[Column] = &[
    Column::text("CLIENT", 18, 0),
    Column::text("RULE", 6, 1),
    Column::text("TARGET", 16, 3),
    Column::word("CARRIES", 13, 6),
    Column::number("AGE", 6, 2),
    Column::number("IDLE", 6, 5),
    Column::number("UP", 10, 2),
    Column::number("DOWN", 10, 2),
    Column::number("SENT UP", 8, 7),
    Column::number("SENT DOWN", 9, 7),
    Column::word("STATE", 10, 4),
    Column::text("PLANE", 14, 3),
    Column::word("ID", 8, 8),
];

const REFUSED: &[Column] = &[
    Column::number("AGO", 6, 0),
    Column::text("CLIENT", 18, 0),
    Column::word("PROTO", 13, 2),
    Column::text("LISTENER", 12, 3),
    Column::word("REASON", 18, 0),
    Column::text("NAME", 16, 1),
];

impl View {
    pub(super) const ALL: [Self; 6] =
        [Self::Overview, Self::Rules, Self::Targets, Self::Connections, Self::Sessions, Self::Refused];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Rules => "Rules",
            Self::Targets => "Targets",
            Self::Connections => "Connections",
            Self::Sessions => "Sessions",
            Self::Refused => "Refused",
        }
    }

    /// The columns of its table; the overview has none.
    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Overview => &[],
            Self::Rules => RULES,
            Self::Targets => TARGETS,
            Self::Connections => CONNECTIONS,
            Self::Sessions => SESSIONS,
            Self::Refused => REFUSED,
        }
    }

    /// The order that it begins with: that of the file or of time, but for what the daemon lists in none.
    pub(super) fn sort(self) -> Option<Sort> {
        match self {
            Self::Overview | Self::Rules | Self::Targets | Self::Refused => None,
            Self::Connections => Some(Sort { column: 8, descending: true }),
            Self::Sessions => Some(Sort { column: 7, descending: true }),
        }
    }

    /// The transport of what it lists, if the daemon has to be asked for that.
    pub(super) fn lists(self) -> Option<Transport> {
        match self {
            Self::Connections => Some(Transport::Tcp),
            Self::Sessions => Some(Transport::Udp),
            Self::Overview | Self::Rules | Self::Targets | Self::Refused => None,
        }
    }
}

/// The rows of `view`.
pub(super) fn rows(view: View, overview: &Overview, rates: Option<&Rates>, lines: &Lines) -> Vec<Row<Subject>> {
    match view {
        View::Overview => Vec::new(),
        View::Rules => rules(overview, rates),
        View::Targets => targets(overview, rates),
        View::Connections => lines.lines.iter().map(connection).collect(),
        View::Sessions => lines.lines.iter().map(session).collect(),
        View::Refused => refused(overview),
    }
}

fn rules(overview: &Overview, rates: Option<&Rates>) -> Vec<Row<Subject>> {
    let row = |(index, rule): (usize, &crate::overview::Rule)| {
        let rates = rates.and_then(|rates| rates.rules.get(index));
        let full = rule.max.is_some_and(|max| rule.active >= u64::from(max));
        let listeners: Vec<&str> = rule.listeners.iter().map(|name| &**name).collect();
        let active = Cell::count(rule.active);
        Row {
            key: format!("{} {}", rule.transport.name(), rule.name),
            cells: vec![
                Cell::text(&rule.name),
                Cell::text(if rule.protocol == "any" { rule.transport.name() } else { &rule.protocol }),
                Cell::text(&listeners.join(", ")),
                if full { active.with(Tone::Bad) } else { active },
                rule.max.map_or_else(Cell::nothing, |max| Cell::count(max.into())),
                Cell::rate(rates.map(|rates| rates.carried.started)),
                Cell::byte_rate(rates.map(|rates| rates.carried.bytes_up)),
                Cell::byte_rate(rates.map(|rates| rates.carried.bytes_down)),
                warn(Cell::rate(rates.map(|rates| rates.refused))),
                Cell::count(rule.refused.values().sum()),
                Cell::count(rule.started),
                Cell::bytes(rule.bytes_up),
                Cell::bytes(rule.bytes_down),
            ],
            subject: Subject::Rule {
                transport: rule.transport,
                name: (rule.protocol != "any").then(|| rule.name.to_string()),
            },
        }
    };
    overview.rules.iter().enumerate().map(row).collect()
}

fn targets(overview: &Overview, rates: Option<&Rates>) -> Vec<Row<Subject>> {
    let row = |(index, target): (usize, &crate::overview::Target)| {
        let rates = rates.and_then(|rates| rates.targets.get(index));
        let state = match target.backup {
            true => Cell::text(&format!("{} (b)", target.state)),
            false => Cell::text(&target.state),
        };
        let median = target.connect.filter(|times| times.count > 0);
        let of = |micros: u64| super::rates::as_f64(micros);
        Row {
            key: format!(
                "{} {} {}",
                target.transport.name(),
                target.target,
                target.rule.as_deref().unwrap_or_default()
            ),
            cells: vec![
                Cell::text(&target.target),
                Cell::text(target.transport.name()),
                Cell::optional(target.rule.as_deref()),
                state.with(match &*target.state {
                    "up" => Tone::Good,
                    "down" => Tone::Bad,
                    "drained" => Tone::Warning,
                    _ => Tone::Faint,
                }),
                Cell::time(target.since_ms),
                Cell::count(target.active.into()),
                Cell::rate(rates.map(|rates| rates.carried.started)),
                Cell::byte_rate(rates.map(|rates| rates.carried.bytes_up)),
                Cell::byte_rate(rates.map(|rates| rates.carried.bytes_down)),
                warn(Cell::count(target.failures)),
                Cell::micros(rates.and_then(|rates| rates.connect_us).or(median.map(|times| of(times.p50_us)))),
                Cell::micros(median.map(|times| of(times.p99_us))),
                Cell::micros(
                    target.first_byte.filter(|times| times.count > 0).map(|times| of(times.sum_us) / of(times.count)),
                ),
                Cell::optional(target.reason.as_deref()),
            ],
            subject: Subject::Target {
                transport: target.transport,
                target: target.target.clone(),
                drained: target.state == "drained",
                active: target.active,
            },
        }
    };
    overview.targets.iter().enumerate().map(row).collect()
}

fn connection(line: &Line) -> Row<Subject> {
    Row {
        key: line.id.clone(),
        cells: vec![
            Cell::text(&line.client),
            Cell::optional(line.rule.as_deref()),
            Cell::optional(line.name()),
            Cell::optional(line.target.as_deref().or(line.backend.as_deref())),
            Cell::text(&line.carries),
            Cell::time(Some(line.age_ms)),
            Cell::time(Some(line.idle_ms)),
            Cell::byte_rate(line.rates.map(|(up, _)| up)),
            Cell::byte_rate(line.rates.map(|(_, down)| down)),
            Cell::bytes(line.bytes_up),
            Cell::bytes(line.bytes_down),
            Cell::text(&line.stage),
            Cell::text(&line.id),
        ],
        subject: subject(Transport::Tcp, line),
    }
}

fn session(line: &Line) -> Row<Subject> {
    let plane = match line.reason.as_deref() {
        Some(reason) => Cell::text(&format!("{}: {reason}", line.plane)),
        None if line.plane == "kernel" => Cell::text(&line.plane).with(Tone::Good),
        None => Cell::text(&line.plane),
    };
    Row {
        key: line.id.clone(),
        cells: vec![
            Cell::text(&line.client),
            Cell::optional(line.rule.as_deref()),
            Cell::optional(line.target.as_deref().or(line.backend.as_deref())),
            Cell::text(&line.carries),
            Cell::time(Some(line.age_ms)),
            Cell::time(Some(line.idle_ms)),
            Cell::byte_rate(line.rates.map(|(up, _)| up)),
            Cell::byte_rate(line.rates.map(|(_, down)| down)),
            Cell::bytes(line.bytes_up),
            Cell::bytes(line.bytes_down),
            Cell::text(line.state()),
            plane,
            Cell::text(&line.id),
        ],
        subject: subject(Transport::Udp, line),
    }
}

fn subject(transport: Transport, line: &Line) -> Subject {
    Subject::Line {
        transport,
        id: line.id.clone(),
        client: line.client.clone(),
        rule: line.rule.clone(),
        address: line.client.parse().ok().map(|client: std::net::SocketAddr| client.ip()),
    }
}

fn refused(overview: &Overview) -> Vec<Row<Subject>> {
    let row = |refused: &crate::overview::Refused| Row {
        // When it was does not change from look to look, but for a millisecond.
        key: format!(
            "{} {} {}",
            refused.source,
            refused.reason,
            overview.uptime_ms.saturating_sub(refused.age_ms) / 100
        ),
        cells: vec![
            Cell::time(Some(refused.age_ms)),
            Cell::text(&refused.source),
            Cell::text(&refused.proto),
            Cell::text(&refused.listener),
            Cell::text(&refused.reason),
            Cell::optional(refused.server_name.as_deref()),
        ],
        subject: Subject::Client(refused.source.parse().ok().map(|client: std::net::SocketAddr| client.ip())),
    };
    overview.refused.iter().map(row).collect()
}

/// Something that should not be.
fn warn(cell: Cell) -> Cell {
    if cell.tone == Tone::Plain { cell.with(Tone::Warning) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::{Rule, Target};

    #[test]
    fn every_row_has_a_cell_for_each_column() {
        let mut overview = Overview::default();
        overview.rules.push(Rule::new("web".into(), Transport::Tcp));
        overview.targets.push(Target::new(Transport::Udp, "a:1".to_owned()));
        let address = "192.0.2.1:1".to_owned();
        overview.refused.push(crate::overview::Refused {
            age_ms: 1,
            proto: "tcp".into(),
            source: address.clone(),
            listener: address,
            reason: "banned".into(),
            server_name: None,
        });
        let lines = Lines { lines: vec![Line::default()], more: false };
        for view in View::ALL.into_iter().filter(|view| *view != View::Overview) {
            let rows = rows(view, &overview, None, &lines);
            assert_eq!(rows.len(), 1, "{}", view.name());
            assert_eq!(rows[0].cells.len(), view.columns().len(), "{}", view.name());
            assert!(view.sort().is_none_or(|sort| view.columns()[sort.column].title == "DOWN"), "{}", view.name());
        }
    }
}
