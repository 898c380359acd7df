//! What each key does.

use super::{
    super::{
        action::{self, Question},
        keys::Key,
        lines::Lines,
        page,
        table::Sort,
        view::{Subject, View},
    },
    Effect, LONGEST_FILTER, Message, Model, Prompt, STEPS,
};
use crate::{admin, config::model::Transport};

impl Model {
    /// Takes note of a key; what is to be done then, in order.
    pub(super) fn key(&mut self, key: Key) -> Vec<Effect> {
        self.message = None;
        match (key, std::mem::replace(&mut self.prompt, Prompt::Nothing)) {
            (Key::Interrupt, _) => vec![Effect::Quit],
            (Key::Redraw, prompt) => {
                self.prompt = prompt;
                vec![Effect::Redraw]
            }
            (key, Prompt::Filter { before }) => {
                self.filter_key(key, before);
                Vec::new()
            }
            (Key::Char('y'), Prompt::Question(Question { command, done, .. })) => {
                vec![Effect::Command { command, done }]
            }
            (Key::Char('n' | 'q') | Key::Escape, Prompt::Question(_)) => {
                self.say("nothing was changed");
                Vec::new()
            }
            // Only a clear answer is one.
            (_, prompt @ Prompt::Question(_)) => {
                self.prompt = prompt;
                Vec::new()
            }
            (Key::Char('q'), Prompt::Nothing) => vec![Effect::Quit],
            (_, Prompt::Help) => Vec::new(),
            (key, Prompt::Nothing) => self.view_key(key),
        }
    }

    fn filter_key(&mut self, key: Key, before: String) {
        let filter = &mut self.shown_mut().filter;
        match key {
            Key::Enter => return,
            Key::Escape => {
                *filter = before;
                return;
            }
            Key::Backspace => drop(filter.pop()),
            Key::Char(c) if filter.chars().count() < LONGEST_FILTER => filter.push(c),
            Key::Char(_)
            | Key::Up
            | Key::Down
            | Key::Left
            | Key::Right
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End
            | Key::Tab
            | Key::BackTab
            | Key::Interrupt
            | Key::Redraw => {}
        }
        self.prompt = Prompt::Filter { before };
    }

    fn view_key(&mut self, key: Key) -> Vec<Effect> {
        match key {
            Key::Char(digit @ '1'..='6') => {
                let index = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()).unwrap_or(1) - 1;
                return self.look_at(View::ALL.get(index).copied().unwrap_or_default());
            }
            Key::Tab => return self.turn(1),
            Key::BackTab => return self.turn(View::ALL.len() - 1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::Up | Key::Char('k') => self.step(-1),
            Key::PageDown | Key::Char(' ') => self.step(self.page.try_into().unwrap_or(isize::MAX)),
            Key::PageUp => self.step(-self.page.try_into().unwrap_or(isize::MAX)),
            Key::Home | Key::Char('g') => self.step(isize::MIN),
            Key::End | Key::Char('G') => self.step(isize::MAX),
            Key::Right | Key::Char('>') => self.sort_by(1),
            Key::Left | Key::Char('<') => self.sort_by(-1),
            Key::Char('r') => self.reverse(),
            Key::Char('/') if self.view != View::Overview => {
                self.prompt = Prompt::Filter { before: self.shown().filter.clone() };
            }
            Key::Char('p') => self.paused = !self.paused,
            Key::Char('+') => self.change_interval(1),
            Key::Char('-') => self.change_interval(-1),
            Key::Char('?' | 'h') => self.prompt = Prompt::Help,
            Key::Escape => return self.widen(),
            Key::Enter => return self.follow(),
            Key::Char(key) => self.act(key),
            Key::Backspace | Key::Interrupt | Key::Redraw => {}
        }
        Vec::new()
    }

    fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message { text: text.into(), is_error: false });
    }

    fn complain(&mut self, text: impl Into<String>) {
        self.message = Some(Message { text: text.into(), is_error: true });
    }

    fn look_at(&mut self, view: View) -> Vec<Effect> {
        if self.view == view {
            return Vec::new();
        }
        self.view = view;
        if view.lists().is_none() {
            return Vec::new();
        }
        // What was listed is of something else.
        if self.listed.as_ref().map(|(transport, _)| *transport) != view.lists() {
            self.lines = Lines::default();
        }
        self.ask_anew()
    }

    fn turn(&mut self, by: usize) -> Vec<Effect> {
        let at = View::ALL.iter().position(|view| *view == self.view).unwrap_or(0);
        self.look_at(View::ALL.get((at + by) % View::ALL.len()).copied().unwrap_or_default())
    }

    fn step(&mut self, by: isize) {
        if self.view == View::Overview {
            let lines = page::lines(&self.overview, self.rates.as_ref()).len();
            self.scroll = self.scroll.saturating_add_signed(by).min(lines.saturating_sub(self.page + 1));
            return;
        }
        let rows = self.rows();
        let at = self.selected(&rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.shown_mut().selected = rows.into_iter().nth(at).map(|row| row.key);
    }

    /// Sorts by the next column, or the one before; beyond the first is the order that things come in.
    fn sort_by(&mut self, by: isize) {
        let columns = self.view.columns().len();
        let at = self.shown().sort.map_or(0, |sort| sort.column + 1);
        let next = match at.checked_add_signed(by) {
            Some(next) if next <= columns => next,
            Some(_) => 0,
            None => columns,
        };
        self.shown_mut().sort = next.checked_sub(1).map(|column| {
            let numbers = self.view.columns().get(column).is_some_and(|column| column.right);
            Sort { column, descending: numbers }
        });
    }

    fn reverse(&mut self) {
        if let Some(sort) = &mut self.shown_mut().sort {
            sort.descending = !sort.descending;
        }
    }

    fn change_interval(&mut self, by: isize) {
        let at = STEPS.iter().position(|step| *step >= self.interval).unwrap_or(STEPS.len() - 1);
        let at = at.saturating_add_signed(by).min(STEPS.len() - 1);
        self.interval = STEPS.get(at).copied().unwrap_or(self.interval);
        self.say(format!("a look every {:?}", self.interval));
    }

    /// Shows what the selected rule or target has.
    fn follow(&mut self) -> Vec<Effect> {
        let rows = self.rows();
        let Some(row) = rows.get(self.selected(&rows)) else { return Vec::new() };
        let (transport, only) = match &row.subject {
            Subject::Rule { transport, name: Some(name) } => {
                (*transport, admin::List { rule: Some(name.clone()), ..action::everything() })
            }
            Subject::Rule { name: None, .. } => {
                self.complain("the daemon lists connections by rule, and default targets have none: see their targets");
                return Vec::new();
            }
            Subject::Target { transport, target, .. } => {
                (*transport, admin::List { target: Some(target.clone()), ..action::everything() })
            }
            Subject::Line { transport, address: Some(address), .. } => {
                (*transport, admin::List { client: Some((*address).into()), ..action::everything() })
            }
            Subject::Client(Some(address)) => {
                let transport = if row.cells.get(2).is_some_and(|proto| proto.text.starts_with("udp")) {
                    Transport::Udp
                } else {
                    Transport::Tcp
                };
                (transport, admin::List { client: Some((*address).into()), ..action::everything() })
            }
            Subject::Client(None) | Subject::Line { address: None, .. } => return Vec::new(),
        };
        self.only = only;
        self.view = if transport == Transport::Tcp { View::Connections } else { View::Sessions };
        self.lines = Lines::default();
        self.ask_anew()
    }

    /// Takes back what was narrowed last: a filter, or what is listed.
    fn widen(&mut self) -> Vec<Effect> {
        if !self.shown().filter.is_empty() {
            self.shown_mut().filter.clear();
        } else if self.view.lists().is_some() && self.only != action::everything() {
            self.only = action::everything();
            return self.ask_anew();
        }
        Vec::new()
    }

    /// Asks whether to do what `key` stands for with the selected row.
    fn act(&mut self, key: char) {
        let rows = self.rows();
        let Some(row) = rows.get(self.selected(&rows)) else { return };
        match (action::question(key, &row.subject), self.may_change) {
            (Ok(None), _) => {}
            (_, Some(false)) => {
                self.complain("you may only look: ask as root, or as the user of the daemon, to change anything");
            }
            (Err(why), _) => self.complain(why),
            (Ok(Some(question)), _) => self.prompt = Prompt::Question(question),
        }
    }
}
