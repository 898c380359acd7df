//! Puts text and shapes into a buffer, as a terminal can show them.

use std::borrow::Cow;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::Span,
};

use super::super::table::{GAP, Tone};

/// What a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Theme {
    /// Colours; without them, weight and inversion tell things apart.
    pub(in super::super) colours: bool,
    /// Characters beyond ASCII.
    pub(in super::super) unicode: bool,
}

impl Theme {
    /// What the environment says: `NO_COLOR`, and the character set of the locale.
    pub(in super::super) fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        // The first that is set decides (locale(7)).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self {
            colours: set("NO_COLOR").is_none() && !dumb,
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

/// A buffer, and how to draw in it.
#[derive(Debug)]
pub(super) struct Pen<'a> {
    buffer: &'a mut Buffer,
    theme: Theme,
}

impl<'a> Pen<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, theme: Theme) -> Self {
        Self { buffer, theme }
    }

    /// Puts `text` into `width` cells from `x` on; what does not fit is cut, with a mark. Returns where it ends.
    pub(super) fn put(&mut self, x: u16, y: u16, text: &str, width: u16, style: Style) -> u16 {
        let area = self.buffer.area;
        if y < area.y || y >= area.bottom() || x >= area.right() || width == 0 {
            return x;
        }
        let width = width.min(area.right() - x);
        let text = self.shown(text);
        let (end, _) = self.buffer.set_stringn(x, y, &text, width.into(), style);
        if Span::raw(&*text).width() > usize::from(width) {
            let mark = if self.theme.unicode { "…" } else { "~" };
            self.buffer.set_stringn(x + width - 1, y, mark, 1, style);
            return x + width;
        }
        end
    }

    /// Puts `text` in front of `right`, if there is room behind `left`.
    pub(super) fn put_right(&mut self, left: u16, right: u16, y: u16, text: &str, style: Style) {
        let width = u16::try_from(self.width(text)).unwrap_or(u16::MAX);
        if left.saturating_add(width) <= right {
            self.put(right - width, y, text, width, style);
        }
    }

    /// Puts the text of a column of `width` cells, at its right end for numbers; returns where the next one begins.
    pub(super) fn cell(&mut self, (x, y): (u16, u16), text: &str, (width, right): (usize, bool), style: Style) -> u16 {
        let width = u16::try_from(width).unwrap_or(u16::MAX).min(self.buffer.area.right().saturating_sub(x));
        let wide = u16::try_from(self.width(text)).unwrap_or(u16::MAX);
        let from = if right { x + width.saturating_sub(wide) } else { x };
        self.put(from, y, text, width.saturating_sub(from - x), style);
        x.saturating_add(width).saturating_add(u16::try_from(GAP).unwrap_or(1))
    }

    /// How full something is; returns where it ends.
    pub(super) fn bar(&mut self, x: u16, y: u16, width: usize, value: u64, max: u64) -> u16 {
        let cells = width.saturating_sub(2);
        let full =
            usize::try_from(u128::from(value) * cells as u128 / u128::from(max.max(1))).unwrap_or(cells).min(cells);
        // A little is not nothing.
        let full = if value > 0 { full.max(1) } else { 0 };
        let percent = u128::from(value) * 100 / u128::from(max.max(1));
        let tone = match percent {
            90.. => Tone::Bad,
            70.. => Tone::Warning,
            _ => Tone::Good,
        };
        let room = u16::try_from(width).unwrap_or(u16::MAX);
        let at = self.put(x, y, "[", room, self.plain());
        let at = self.put(at, y, &"|".repeat(full), room, self.tone(tone));
        let at = self.put(at, y, &" ".repeat(cells - full), room, self.plain());
        self.put(at, y, "]", room, self.plain())
    }

    /// Plots values up to `right`, the first of them last, in a terminal that has the characters for it.
    pub(super) fn plot(&mut self, right: u16, y: u16, values: &[f64]) {
        const LEVELS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
        let most = values.iter().copied().fold(0.0, f64::max);
        if !self.theme.unicode || most <= 0.0 {
            return;
        }
        for (x, value) in (self.buffer.area.x..right).rev().zip(values) {
            let place = LEVELS.iter().zip(1_u32..).find(|(_, level)| *value <= most * f64::from(*level) / 8.0);
            let level = place.map_or("█", |(level, _)| level);
            self.put(x, y, level, 1, self.tone(Tone::Good));
        }
    }

    pub(super) fn fill(&mut self, area: Rect, style: Style) {
        self.buffer.set_style(area.intersection(self.buffer.area), style);
    }

    /// An empty area with a frame.
    pub(super) fn frame(&mut self, area: Rect) {
        let [corners, across, down] =
            if self.theme.unicode { ["┌┐└┘", "─", "│"] } else { ["++++", "-", "|"] };
        let inside = usize::from(area.width.saturating_sub(2));
        let mut corners = corners.chars();
        let mut edge =
            || format!("{}{}{}", corners.next().unwrap_or('+'), across.repeat(inside), corners.next().unwrap_or('+'));
        let (top, bottom) = (edge(), edge());
        for y in area.y..area.bottom() {
            let line = if y == area.y {
                top.clone()
            } else if y + 1 == area.bottom() {
                bottom.clone()
            } else {
                format!("{down}{}{down}", " ".repeat(inside))
            };
            self.fill(Rect { y, height: 1, ..area }, Style::reset());
            self.put(area.x, y, &line, area.width, self.strong());
        }
    }

    pub(super) fn arrow(&self, descending: bool) -> &'static str {
        match (self.theme.unicode, descending) {
            (true, true) => "↓",
            (true, false) => "↑",
            (false, true) => "v",
            (false, false) => "^",
        }
    }

    /// Cells that `text` takes.
    pub(super) fn width(&self, text: &str) -> usize {
        Span::raw(self.shown(text)).width()
    }

    /// `text` in the characters that the terminal has.
    fn shown<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.theme.unicode || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let escaped = |c: char| if c.is_ascii() { c.to_string() } else { c.escape_default().to_string() };
        Cow::Owned(text.chars().map(escaped).collect())
    }

    pub(super) fn plain(&self) -> Style {
        Style::new()
    }

    pub(super) fn strong(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn tone(&self, tone: Tone) -> Style {
        let colour = |colour| if self.theme.colours { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => self.plain(),
            Tone::Faint => colour(Color::DarkGray),
            Tone::Good => colour(Color::Green),
            Tone::Warning if self.theme.colours => colour(Color::Yellow),
            Tone::Bad if self.theme.colours => colour(Color::Red),
            Tone::Warning | Tone::Bad => self.strong(),
        }
    }

    pub(super) fn selected(&self) -> Style {
        if self.theme.colours { Style::new().fg(Color::Black).bg(Color::Cyan) } else { inverse() }
    }

    pub(super) fn head(&self) -> Style {
        if self.theme.colours { Style::new().fg(Color::Black).bg(Color::Green) } else { inverse() }
    }
}

fn inverse() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_tells_what_a_terminal_can_show() {
        for (row, variables, colours, unicode) in [
            ("nothing is said", &[] as &[(&str, &str)], true, false),
            ("UTF-8", &[("LANG", "de_DE.UTF-8")], true, true),
            ("the first decides", &[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], true, false),
            ("an empty one does not", &[("LANG", "C.utf8"), ("LC_ALL", "")], true, true),
            ("no colours", &[("NO_COLOR", "1"), ("LANG", "C.UTF-8")], false, true),
            ("empty", &[("NO_COLOR", "")], true, false),
            ("dumb", &[("TERM", "dumb")], false, false),
        ] {
            let theme =
                Theme::of(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()));
            assert_eq!(theme, Theme { colours, unicode }, "{row}");
        }
    }
}
