//! Draws the model: a header with the numbers that matter, the view, and a line of keys.

mod pen;

use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    model::{Model, Prompt, Sample},
    page,
    table::{self, Column, GAP, Tone, bytes_per_second, per_second},
    view::View,
};
use crate::escape;
use pen::Pen;
pub(super) use pen::Theme;

/// The least that something is drawn in, in cells.
const LEAST: (u16, u16) = (40, 10);
/// Lines of the header, with that of the views.
const HEADER: u16 = 5;
/// Lines of messages and keys.
const FOOTER: u16 = 2;

const HELP: [&str; 17] = [
    "1-6, Tab      overview, rules, targets, connections, sessions, refused",
    "Up, Down      select; also j, k, PgUp, PgDn, Home, End",
    "Left, Right   sort by another column; also < and >",
    "r             the other way round",
    "/             show only what has a text; Esc shows all again",
    "Enter         connections of a rule, a target or a client",
    "p             pause",
    "+, -          look more seldom, more often",
    "",
    "b             ban a client",
    "B             ban its network (IPv4 /24, IPv6 /64)",
    "x             close a connection, end a session",
    "d, u          drain a target, put it back",
    "              each after a question",
    "",
    "Ctrl-L        draw anew",
    "q, Ctrl-C     leave",
];

/// Rows of a table on a screen of `height`.
pub(super) fn page(height: u16) -> usize {
    usize::from(height.saturating_sub(HEADER + FOOTER + 1)).max(1)
}

/// Draws everything.
pub(super) fn draw(model: &Model, theme: Theme, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut pen = Pen::new(buffer, theme);
    if area.width < LEAST.0 || area.height < LEAST.1 {
        pen.put(area.x, area.y, &format!("{} x {} is needed", LEAST.0, LEAST.1), area.width, pen.plain());
        return;
    }
    header(model, &mut pen, area);
    let body = Rect { y: area.y + HEADER, height: area.height - HEADER - FOOTER, ..area };
    if model.view == View::Overview {
        overview(model, &mut pen, body);
    } else {
        list(model, &mut pen, body);
    }
    footer(model, &mut pen, Rect { y: area.bottom() - FOOTER, height: FOOTER, ..area });
    match &model.prompt {
        Prompt::Question(question) => {
            let lines = wrap(&question.text, usize::from(area.width.min(76) - 6));
            dialog(&mut pen, area, &lines, "y  yes, do it     n  no");
        }
        Prompt::Help => dialog(&mut pen, area, &HELP.map(str::to_owned), "any key goes back"),
        Prompt::Nothing | Prompt::Filter { .. } => {}
    }
}

fn header(model: &Model, pen: &mut Pen<'_>, area: Rect) {
    let overview = &model.overview;
    let (x, width) = (area.x, area.width);
    let (state, tone) = match (&model.lost, overview.ready) {
        (Some(_), _) => ("LOST".to_owned(), Tone::Bad),
        (None, true) => ("READY".to_owned(), Tone::Good),
        (None, false) => {
            (format!("NOT READY: {}", escape::line(overview.not_ready.as_deref().unwrap_or("-"))), Tone::Bad)
        }
    };
    let uptime = super::super::units::time(overview.uptime_ms / 1000);
    let version = escape::line(&overview.version);
    let name = format!("rpxy-l4 {version}");
    let at = pen.put(x, area.y, &name, width, pen.strong());
    let about = format!("  pid {}  up {uptime}  ", overview.pid);
    let at = pen.put(at, area.y, &about, width.saturating_sub(at - x), pen.plain());
    let at = pen.put(at, area.y, &state, width.saturating_sub(at - x), pen.tone(tone).patch(pen.strong()));
    let mut right = String::new();
    if model.may_change == Some(false) {
        right.push_str("read only  ");
    }
    right.push_str(&if model.paused { "PAUSED".to_owned() } else { format!("every {:?}", model.interval) });
    pen.put_right(at + 2, area.right(), area.y, &right, pen.plain());

    let rate = |of: fn(&super::rates::Rates) -> f64| {
        model.rates.as_ref().map_or_else(|| "-".to_owned(), |rates| per_second(of(rates)))
    };
    let bar = usize::from(width / 5).clamp(10, 30);
    let (tcp, udp) = (&overview.tcp, &overview.udp);
    let most = if tcp.room == 0 { tcp.max } else { tcp.max.min(tcp.room.into()) };
    let rows = [
        (
            "TCP",
            tcp.active,
            most,
            "open",
            format!("{}/s new  {}/s refused", rate(|rates| rates.connections), rate(|rates| rates.connections_refused)),
        ),
        (
            "UDP",
            udp.active,
            udp.max,
            "sessions",
            format!("{}/s new  {}/s refused", rate(|rates| rates.sessions), rate(|rates| rates.datagrams_refused)),
        ),
    ];
    for (y, (name, active, max, what, rates)) in (area.y + 1..).zip(rows) {
        let at = pen.put(x, y, &format!("{name:<5}"), width, pen.strong());
        let at = pen.bar(at, y, bar, u64::from(active), max);
        let text = format!(" {active} of {max} {what}");
        let at = pen.put(at, y, &format!("{text:<27}"), width.saturating_sub(at - x), pen.plain());
        pen.put(at, y, &rates, width.saturating_sub(at - x), pen.plain());
    }
    traffic(model, pen, Rect { y: area.y + 3, height: 1, ..area });
    let mut at = x;
    for (number, view) in (1..).zip(View::ALL) {
        let style = if view == model.view { pen.selected() } else { pen.plain() };
        let label =
            if width < 76 { format!("{number} {:.6} ", view.name()) } else { format!(" {number} {} ", view.name()) };
        at = pen.put(at, area.y + 4, &label, area.right().saturating_sub(at), style);
    }
}

/// The line of bytes, and of the plane that carries them.
fn traffic(model: &Model, pen: &mut Pen<'_>, area: Rect) {
    let (x, y, width) = (area.x, area.y, area.width);
    let Some(rates) = &model.rates else {
        pen.put(x, y, "Sent after the next look", width, pen.tone(Tone::Faint));
        return;
    };
    let mut text = format!("{} up  {} down", bytes_per_second(rates.bytes_up), bytes_per_second(rates.bytes_down));
    if rates.datagrams + rates.steered > 0.0 {
        text.push_str(&format!("  {} datagrams/s", per_second(rates.datagrams + rates.steered)));
    }
    if let Some(share) = page::share(rates).filter(|_| model.overview.kernel_plane.flows.is_some()) {
        text.push_str(&format!(", {share:.0} % in the kernel"));
    }
    let at = pen.put(x, y, "Sent ", width, pen.strong());
    let at = pen.put(at, y, &text, width.saturating_sub(at - x), pen.plain());
    let room = usize::from(area.right().saturating_sub(at + 2)).min(60);
    let plot: Vec<f64> = model.history.iter().take(room).map(|Sample { bytes, .. }| *bytes).collect();
    pen.plot(area.right(), y, &plot);
}

fn overview(model: &Model, pen: &mut Pen<'_>, area: Rect) {
    let lines = page::lines(&model.overview, model.rates.as_ref());
    let most = lines.len().saturating_sub(usize::from(area.height));
    for (y, line) in (area.y..area.bottom()).zip(lines.iter().skip(model.scroll.min(most))) {
        let mut x = area.x;
        for piece in line {
            let style = if piece.bold { pen.strong() } else { pen.tone(piece.tone) };
            x = pen.put(x, y, &piece.text, area.right().saturating_sub(x), style);
        }
    }
}

fn list(model: &Model, pen: &mut Pen<'_>, area: Rect) {
    let rows = model.rows();
    let columns = model.view.columns();
    let wanted: Vec<usize> = (0..columns.len())
        .map(|column| rows.iter().filter_map(|row| row.cells.get(column)).map(|cell| pen.width(&cell.text)).max())
        .map(|width| width.unwrap_or(0))
        .collect();
    let fitting = table::fit(columns, &wanted, usize::from(area.width));
    heads(model, pen, area, columns, &fitting);
    let selected = model.selected(&rows);
    let height = usize::from(area.height) - 1;
    // The selected row stays in the middle, but for the ends of the list.
    let first = selected.saturating_sub(height / 2).min(rows.len().saturating_sub(height));
    for (y, (index, row)) in (area.y + 1..area.bottom()).zip(rows.iter().enumerate().skip(first)) {
        let chosen = index == selected;
        if chosen {
            pen.fill(Rect { y, height: 1, ..area }, pen.selected());
        }
        let mut x = area.x;
        for (column, width) in &fitting {
            let (Some(cell), Some(column)) = (row.cells.get(*column), columns.get(*column)) else { continue };
            let style = if chosen { pen.selected() } else { pen.tone(cell.tone) };
            x = pen.cell((x, y), &cell.text, (*width, column.right), style);
        }
    }
    if rows.is_empty() {
        let text = if model.shown().filter.is_empty() { "nothing" } else { "nothing has this text" };
        pen.put(area.x, area.y + 1, text, area.width, pen.tone(Tone::Faint));
    }
}

fn heads(model: &Model, pen: &mut Pen<'_>, area: Rect, columns: &[Column], fitting: &[(usize, usize)]) {
    pen.fill(Rect { height: 1, ..area }, pen.head());
    let mut x = area.x;
    for (index, width) in fitting {
        let Some(column) = columns.get(*index) else { continue };
        let sorted = model.shown().sort.filter(|sort| sort.column == *index);
        let style = if sorted.is_some() { pen.head().patch(pen.strong()) } else { pen.head() };
        let start = x;
        x = pen.cell((x, area.y), column.title, (*width, column.right), style);
        if let Some(sort) = sorted {
            // In the gap behind, or over the last letter at the edge.
            let at = x.saturating_sub(u16::try_from(GAP).unwrap_or(0)).min(area.right() - 1).max(start);
            pen.put(at, area.y, pen.arrow(sort.descending), 1, style);
        }
    }
}

fn footer(model: &Model, pen: &mut Pen<'_>, area: Rect) {
    let (x, y, width) = (area.x, area.y, area.width);
    match (&model.prompt, &model.message, &model.lost) {
        (Prompt::Filter { .. }, ..) => {
            let at = pen.put(x, y, "Show only: ", width, pen.strong());
            let filter = escape::line(&model.shown().filter).into_owned();
            let at = pen.put(at, y, &filter, width.saturating_sub(at - x), pen.plain());
            pen.put(at, y, " ", width.saturating_sub(at - x), pen.selected());
            pen.put_right(at + 2, area.right(), y, "Enter keep  Esc back", pen.tone(Tone::Faint));
        }
        (_, Some(message), _) => {
            let tone = if message.is_error { Tone::Bad } else { Tone::Good };
            pen.put(x, y, &escape::line(&message.text), width, pen.tone(tone));
        }
        (_, None, Some(lost)) => {
            let text = format!("the daemon does not answer, trying again: {}", escape::line(lost));
            pen.put(x, y, &text, width, pen.tone(Tone::Bad));
        }
        (..) => drop(pen.put(x, y, &about_list(model), width, pen.tone(Tone::Faint))),
    }
    let mut at = x;
    for (key, what) in keys(model) {
        at = pen.put(at, y + 1, key, area.right().saturating_sub(at), pen.strong());
        at = pen.put(at, y + 1, &format!(" {what}  "), area.right().saturating_sub(at), pen.plain());
    }
}

/// What a list has of all there is.
fn about_list(model: &Model) -> String {
    if model.view == View::Overview {
        return String::new();
    }
    let all = super::view::rows(model.view, &model.overview, model.rates.as_ref(), &model.lines).len();
    let mut text = match model.shown().filter.as_str() {
        "" => format!("{all} {}", model.view.name().to_lowercase()),
        filter => format!("{} of {all} with \"{}\"", model.rows().len(), escape::line(filter)),
    };
    if model.view.lists().is_some() {
        let crate::admin::List { client, rule, target, .. } = &model.only;
        if let Some(rule) = rule {
            text.push_str(&format!(" of rule {}", escape::line(rule)));
        }
        if let Some(target) = target {
            text.push_str(&format!(" to {}", escape::line(target)));
        }
        if let Some(client) = client {
            text.push_str(&format!(" from {client}"));
        }
        if model.lines.more {
            text.push_str("; the daemon has more, choose a rule or target (Enter) to see its own");
        }
    }
    text
}

/// The keys that mean something now.
fn keys(model: &Model) -> Vec<(&'static str, &'static str)> {
    let mut keys = vec![("?", "help"), ("q", "quit")];
    if model.view != View::Overview {
        keys.extend([("/", "filter"), ("<>", "sort"), ("r", "reverse")]);
    }
    let changes: &[_] = match model.view {
        View::Overview => &[],
        View::Rules => &[("Enter", "connections")],
        View::Targets => &[("Enter", "connections"), ("d", "drain"), ("u", "up")],
        View::Connections | View::Sessions => &[("b", "ban"), ("x", "close")],
        View::Refused => &[("Enter", "its connections"), ("b", "ban")],
    };
    let may = model.may_change != Some(false);
    keys.extend(changes.iter().filter(|(key, _)| may || *key == "Enter"));
    keys.push(("p", if model.paused { "go on" } else { "pause" }));
    keys
}

/// Text in a frame in the middle.
fn dialog(pen: &mut Pen<'_>, area: Rect, lines: &[String], keys: &str) {
    let widest = lines.iter().map(|line| pen.width(line)).max().unwrap_or(0).max(keys.len());
    let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 4).unwrap_or(u16::MAX).min(area.height);
    let frame = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    pen.frame(frame);
    let room = width.saturating_sub(4);
    for (y, line) in (frame.y + 1..frame.bottom().saturating_sub(2)).zip(lines) {
        pen.put(frame.x + 2, y, line, room, pen.plain());
    }
    pen.put(frame.x + 2, frame.bottom().saturating_sub(2), keys, room, pen.strong());
}

/// Lines of `width` at most, broken between words, or within those that are longer.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines: Vec<Vec<char>> = Vec::new();
    for word in text.split(' ') {
        let word: Vec<char> = word.chars().collect();
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.extend(word);
            }
            Some(_) | None => lines.extend(word.chunks(width).map(<[char]>::to_vec)),
        }
    }
    lines.into_iter().map(String::from_iter).collect()
}

#[cfg(test)]
mod tests;
