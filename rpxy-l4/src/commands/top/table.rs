//! Tables as they are before they are drawn: cells with an order, sorted, filtered, and columns that fit a width.
//!
//! All text goes through [`Cell`], which escapes what a terminal could obey.

use std::cmp::Ordering;

use super::{super::units, rates::as_f64};
use crate::escape;

/// Longest text of a cell in characters.
const LONGEST: usize = 256;
/// Between two columns.
pub(super) const GAP: usize = 2;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// At least, in cells of the terminal.
    pub(super) width: usize,
    /// It takes what is left, as far as it has something to show.
    pub(super) grows: bool,
    /// Numbers end at the right.
    pub(super) right: bool,
    /// In a narrow terminal those with the highest number go first; 0 stays.
    pub(super) rank: u8,
}

impl Column {
    pub(super) const fn text(title: &'static str, width: usize, rank: u8) -> Self {
        Self { title, width, grows: true, right: false, rank }
    }

    pub(super) const fn word(title: &'static str, width: usize, rank: u8) -> Self {
        Self { title, width, grows: false, right: false, rank }
    }

    pub(super) const fn number(title: &'static str, width: usize, rank: u8) -> Self {
        Self { title, width, grows: false, right: true, rank }
    }
}

/// How something is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    #[default]
    Plain,
    Faint,
    Good,
    Warning,
    Bad,
}

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    /// What it is ordered by; `None` is its text.
    order: Option<f64>,
    pub(super) tone: Tone,
}

impl Cell {
    /// A text from anywhere.
    pub(super) fn text(text: &str) -> Self {
        Self { text: escape::line(escape::bounded(text, LONGEST)).into_owned(), order: None, tone: Tone::Plain }
    }

    /// A text that may not be there.
    pub(super) fn optional(text: Option<&str>) -> Self {
        text.map_or_else(Self::nothing, Self::text)
    }

    /// Nothing, which is less than anything.
    pub(super) fn nothing() -> Self {
        Self { text: "-".to_owned(), order: Some(-1.0), tone: Tone::Faint }
    }

    pub(super) fn count(count: u64) -> Self {
        Self::number(short(as_f64(count)), as_f64(count))
    }

    pub(super) fn bytes(count: u64) -> Self {
        Self::number(units::bytes(count), as_f64(count))
    }

    /// So many in a second.
    pub(super) fn rate(rate: Option<f64>) -> Self {
        rate.map_or_else(Self::nothing, |rate| Self::number(per_second(rate), rate))
    }

    /// So many bytes in a second.
    pub(super) fn byte_rate(rate: Option<f64>) -> Self {
        rate.map_or_else(Self::nothing, |rate| Self::number(bytes_per_second(rate), rate))
    }

    pub(super) fn time(millis: Option<u64>) -> Self {
        millis.map_or_else(Self::nothing, |millis| Self {
            text: units::time(millis / 1000),
            order: Some(as_f64(millis)),
            tone: Tone::Plain,
        })
    }

    /// A time in microseconds.
    pub(super) fn micros(micros: Option<f64>) -> Self {
        micros.map_or_else(Self::nothing, |micros| Self {
            text: latency(micros),
            order: Some(micros),
            tone: Tone::Plain,
        })
    }

    pub(super) fn with(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    fn number(text: String, number: f64) -> Self {
        Self { text, order: Some(number), tone: if number == 0.0 { Tone::Faint } else { Tone::Plain } }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.order, other.order) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.text.to_lowercase().cmp(&other.text.to_lowercase()),
        }
    }
}

/// A row, and what it is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row<S> {
    /// The same row in the next table.
    pub(super) key: String,
    pub(super) cells: Vec<Cell>,
    pub(super) subject: S,
}

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) descending: bool,
}

/// Sorts rows; without an order they stay as they are.
pub(super) fn sort<S>(rows: &mut [Row<S>], by: Option<Sort>) {
    let Some(Sort { column, descending }) = by else { return };
    rows.sort_by(|one, other| {
        let order = match (one.cells.get(column), other.cells.get(column)) {
            (Some(one), Some(other)) => one.compare(other),
            _ => Ordering::Equal,
        };
        let order = if descending { order.reverse() } else { order };
        order.then_with(|| one.key.cmp(&other.key))
    });
}

/// Keeps the rows that have `text` in one of their cells, whatever the case of letters.
pub(super) fn filter<S>(rows: &mut Vec<Row<S>>, text: &str) {
    let text = text.to_lowercase();
    if !text.is_empty() {
        rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&text)));
    }
}

/// The columns that have room in `width`, each with its index and its own width; `wanted` tells how much each could show.
pub(super) fn fit(columns: &[Column], wanted: &[usize], width: usize) -> Vec<(usize, usize)> {
    let least = |column: &Column| column.width.max(column.title.len());
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let of = |index: usize| columns.get(index).copied();
    let needed = |shown: &[usize]| {
        let gaps = GAP * shown.len().saturating_sub(1);
        shown.iter().filter_map(|index| of(*index)).map(|column| least(&column)).sum::<usize>() + gaps
    };
    let rank = |index: &usize| of(*index).map_or(0, |column| column.rank);
    while needed(&shown) > width {
        let Some(last @ 1..) = shown.iter().map(rank).max() else { break };
        // What belongs together goes together.
        shown.retain(|index| rank(index) != last);
    }
    let mut left = width.saturating_sub(needed(&shown));
    let mut widths: Vec<(usize, usize)> =
        shown.iter().filter_map(|index| Some((*index, least(&of(*index)?)))).collect();
    // One after the other gets another cell, until none wants more.
    loop {
        let before = left;
        for (index, width) in &mut widths {
            let wants =
                of(*index).is_some_and(|column| column.grows) && wanted.get(*index).is_some_and(|want| want > width);
            if left > 0 && wants {
                *width += 1;
                left -= 1;
            }
        }
        if left == before {
            return widths;
        }
    }
}

/// A number in five characters or so.
pub(super) fn short(number: f64) -> String {
    let units = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e5, "k")];
    match units.into_iter().find(|(from, _)| number >= *from) {
        None => format!("{number:.0}"),
        Some((_, "k")) => format!("{:.0}k", number / 1e3),
        Some((unit, name)) if number < unit * 10.0 => format!("{:.2}{name}", number / unit),
        Some((unit, name)) if number < unit * 100.0 => format!("{:.1}{name}", number / unit),
        Some((unit, name)) => format!("{:.0}{name}", number / unit),
    }
}

/// So many in a second, with a decimal where that says something.
pub(super) fn per_second(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { short(rate) }
}

/// So many bytes in a second.
pub(super) fn bytes_per_second(rate: f64) -> String {
    format!("{}/s", units::bytes(whole(rate)))
}

/// A time in microseconds, in three digits or so.
pub(super) fn latency(micros: f64) -> String {
    match micros {
        ..9_950.0 => format!("{:.1} ms", micros / 1e3),
        ..999_500.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and rates are not negative")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, cells: Vec<Cell>) -> Row<()> {
        Row { key: key.to_owned(), cells, subject: () }
    }

    fn keys(rows: &[Row<()>]) -> String {
        rows.iter().map(|row| row.key.as_str()).collect()
    }

    #[test]
    fn rows_are_in_the_order_of_a_column() {
        let rows = vec![
            row("a", vec![Cell::text("web"), Cell::count(900)]),
            row("b", vec![Cell::text("API"), Cell::count(20_000_000)]),
            row("c", vec![Cell::text("mail"), Cell::rate(None)]),
            row("d", vec![Cell::text("mail"), Cell::count(900)]),
        ];
        for (row, column, descending, expected) in [
            ("text, whatever its case", 0, false, "bcda"),
            ("the other way round, equal ones as before", 0, true, "acdb"),
            ("numbers by what they are, not as they are written", 1, true, "badc"),
            ("nothing is least", 1, false, "cadb"),
            ("there is no such column", 7, false, "abcd"),
        ] {
            let mut sorted = rows.clone();
            sort(&mut sorted, Some(Sort { column, descending }));
            assert_eq!(keys(&sorted), expected, "{row}");
        }
        let mut same = rows.clone();
        sort(&mut same, None);
        assert_eq!(same, rows);
    }

    #[test]
    fn a_filter_looks_at_every_cell() {
        let rows = vec![
            row("a", vec![Cell::text("Web"), Cell::text("x")]),
            row("b", vec![Cell::text("api"), Cell::text("webby")]),
        ];
        for (text, expected) in [("", "ab"), ("WEB", "ab"), ("webb", "b"), ("x", "a"), ("nothing", "")] {
            let mut left = rows.clone();
            filter(&mut left, text);
            assert_eq!(keys(&left), expected, "{text}");
        }
    }

    #[test]
    fn columns_fit_or_go() {
        let columns = [Column::text("NAME", 6, 0), Column::number("UP", 4, 1), Column::text("WHY", 5, 2)];
        type Case = (&'static str, usize, [usize; 3], &'static [(usize, usize)]);
        let rows: [Case; 6] = [
            ("all, and what is left goes to those who want it", 40, [9, 4, 7], &[(0, 9), (1, 4), (2, 7)]),
            ("turn by turn", 22, [30, 4, 30], &[(0, 8), (1, 4), (2, 6)]),
            ("just all", 19, [30, 4, 30], &[(0, 6), (1, 4), (2, 5)]),
            ("the last goes first", 18, [9, 4, 30], &[(0, 9), (1, 4)]),
            ("then the next", 11, [9, 4, 30], &[(0, 9)]),
            ("the first stays", 3, [9, 4, 30], &[(0, 6)]),
        ];
        for (row, width, wanted, expected) in rows {
            assert_eq!(fit(&columns, &wanted, width), expected, "{row}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (number, expected) in
            [(0.0, "0"), (99_999.0, "99999"), (1e5, "100k"), (1_234_567.0, "1.23M"), (45e6, "45.0M"), (789e9, "789G")]
        {
            assert_eq!(short(number), expected, "{number}");
        }
        for (rate, expected) in [(0.0, "0"), (0.25, "0.2"), (9.94, "9.9"), (9.96, "10"), (120.4, "120")] {
            assert_eq!(per_second(rate), expected, "{rate}");
        }
        for (micros, expected) in [(80.0, "0.1 ms"), (1_500.0, "1.5 ms"), (25_000.0, "25 ms"), (2_500_000.0, "2.5 s")] {
            assert_eq!(latency(micros), expected, "{micros}");
        }
        assert_eq!(bytes_per_second(2048.4), "2.0 KiB/s");
    }

    #[test]
    fn what_a_terminal_could_obey_is_escaped() {
        assert_eq!(Cell::text("a\u{1b}[2J\u{202e}b\n").text, "a\\u{1b}[2J\\u{202e}b\\n");
        assert_eq!(Cell::text(&"x".repeat(1000)).text.len(), LONGEST);
    }
}
