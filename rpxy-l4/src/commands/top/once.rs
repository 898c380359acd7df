//! One look, printed: the overview with rules and targets, and rates over one interval.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    feed,
    lines::Lines,
    page,
    rates::Rates,
    table::{Column, Row},
    view::{self, Subject, View},
};
use crate::{escape, overview::Overview};

/// What `--json` prints.
#[derive(Serialize)]
struct Look<'a> {
    rates: &'a Rates,
    overview: &'a Overview,
}

/// Looks twice, `interval` apart, and writes what there is.
pub(super) fn tell(socket: &Path, json: bool, interval: Duration, out: &mut dyn Write) -> Result<()> {
    let before = feed::overview(socket)?;
    wait(interval);
    let overview = feed::overview(socket)?;
    let rates = Rates::between(&before, &overview).context("the daemon was started again meanwhile; try again")?;
    let written = if json {
        let look = serde_json::to_string(&Look { rates: &rates, overview: &overview })?;
        writeln!(out, "{}", escape::json(look))
    } else {
        text(&overview, &rates, out)
    };
    match written.and_then(|()| out.flush()) {
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[expect(clippy::disallowed_methods, reason = "a command that has nothing else to do")]
fn wait(interval: Duration) {
    std::thread::sleep(interval);
}

fn text(overview: &Overview, rates: &Rates, out: &mut dyn Write) -> io::Result<()> {
    let Overview { version, pid, uptime_ms, tcp, udp, .. } = overview;
    let uptime = super::super::units::time(uptime_ms / 1000);
    let (up, down) = (super::table::bytes_per_second(rates.bytes_up), super::table::bytes_per_second(rates.bytes_down));
    let rate = super::table::per_second;
    let ready = if overview.ready { "ready" } else { "NOT READY" };
    writeln!(out, "rpxy-l4 {version}, pid {pid}, up {uptime}, {ready}; rates over {:.1} s", rates.interval_s)?;
    writeln!(
        out,
        "TCP {} of {} open, {}/s new, {}/s refused",
        tcp.active,
        tcp.max,
        rate(rates.connections),
        rate(rates.connections_refused)
    )?;
    writeln!(
        out,
        "UDP {} of {} sessions, {}/s new, {}/s refused, {} datagrams/s",
        udp.active,
        udp.max,
        rate(rates.sessions),
        rate(rates.datagrams_refused),
        rate(rates.datagrams + rates.steered)
    )?;
    writeln!(out, "Sent {up} up, {down} down\n")?;
    for line in page::lines(overview, Some(rates)) {
        let line: String = line.into_iter().map(|piece| piece.text).collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    for view in [View::Rules, View::Targets, View::Refused] {
        let rows = view::rows(view, overview, Some(rates), &Lines::default());
        if !rows.is_empty() {
            writeln!(out)?;
            table(view.columns(), &rows, out)?;
        }
    }
    Ok(())
}

/// A table as wide as it has to be.
fn table(columns: &[Column], rows: &[Row<Subject>], out: &mut dyn Write) -> io::Result<()> {
    let heads: Vec<&str> = columns.iter().map(|column| column.title).collect();
    let cells = rows.iter().map(|row| row.cells.iter().map(|cell| cell.text.as_str()).collect());
    let lines: Vec<Vec<&str>> = std::iter::once(heads).chain(cells).collect();
    let width = |index: usize| {
        lines.iter().filter_map(|line| line.get(index)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for line in &lines {
        let cells = line.iter().zip(columns).zip(&widths).map(|((cell, column), width)| match column.right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::model::Transport, overview::Rule};

    #[test]
    fn a_look_is_text_with_aligned_numbers() {
        let mut overview = Overview { pid: 7, uptime_ms: 61_000, ready: true, ..Overview::default() };
        for (name, active) in [("web", 5), ("a-longer-name", 1234)] {
            overview.rules.push(Rule { active, ..Rule::new(name.into(), Transport::Tcp) });
        }
        let before = Overview { uptime_ms: 60_000, ..overview.clone() };
        let rates = Rates::between(&before, &overview).unwrap();
        let mut out = Vec::new();
        text(&overview, &rates, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("rpxy-l4 , pid 7, up 1m1s, ready; rates over 1.0 s\nTCP 0 of 0 open"), "{text}");
        let at = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        let end_of = |line: String, number: &str| line.find(number).unwrap() + number.len();
        assert_eq!(end_of(at("web "), "5"), end_of(at("a-longer-name "), "1234"), "{text}");
        assert_eq!(end_of(at("web "), "5"), end_of(at("RULE "), "ACTIVE"), "{text}");
    }
}
