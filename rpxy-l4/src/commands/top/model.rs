//! What is shown, and what keys, answers and passing time change about it. Without IO and clock: [`Event`]s come in,
//! [`Effect`]s go out.

mod press;

use std::{collections::VecDeque, time::Duration};

use super::{
    action::{self, Question},
    keys::Key,
    lines::Lines,
    rates::Rates,
    table::{self, Row, Sort},
    view::{self, Subject, View},
};
use crate::{admin, cli::INTERVALS, config::model::Transport, overview::Overview};

/// Longest text of a filter in characters.
const LONGEST_FILTER: usize = 64;
/// Looks that are remembered for plots.
const HISTORY: usize = 240;
/// Intervals to choose from.
const STEPS: [Duration; 8] = [
    *INTERVALS.start(),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    *INTERVALS.end(),
];

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A key was pressed.
    Key(Key),
    /// An interval has passed.
    Tick,
    /// The daemon was asked for [`Wanted`].
    Told(Result<Box<Told>, String>),
    /// A command was carried out, or refused.
    Done(Result<String, String>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Leave.
    Quit,
    /// Ask the daemon.
    Ask(Wanted),
    /// Have a command carried out, of which `done` tells.
    Command { command: admin::Command, done: String },
    /// Draw everything anew.
    Redraw,
}

/// What the daemon is asked for, beside an overview.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// What is listed.
    pub(super) list: Option<(Transport, admin::List)>,
    /// Whether anything may be changed.
    pub(super) rights: bool,
}

/// What the daemon has told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) overview: Overview,
    pub(super) list: Option<(Transport, Lines)>,
    pub(super) may_change: Option<bool>,
}

/// One look in the plots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) bytes: f64,
    pub(super) started: f64,
}

/// How one view is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub(super) sort: Option<Sort>,
    pub(super) filter: String,
    /// The key of the selected row.
    selected: Option<String>,
}

/// What keys go to, if not to the view.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prompt {
    Nothing,
    /// A filter is typed; it was `before`.
    Filter {
        before: String,
    },
    /// A question waits for its answer.
    Question(Question),
    Help,
}

/// A message, until the next key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) is_error: bool,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) view: View,
    shown: [Shown; View::ALL.len()],
    pub(super) overview: Overview,
    pub(super) rates: Option<Rates>,
    pub(super) lines: Lines,
    /// Of what `lines` are, and which of them.
    listed: Option<(Transport, admin::List)>,
    /// The only connections or sessions that are listed.
    pub(super) only: admin::List,
    /// Why the daemon does not answer, while it does not: what is shown is old.
    pub(super) lost: Option<String>,
    pub(super) may_change: Option<bool>,
    pub(super) prompt: Prompt,
    pub(super) message: Option<Message>,
    pub(super) paused: bool,
    pub(super) interval: Duration,
    pub(super) history: VecDeque<Sample>,
    /// Rows that have room on the screen.
    pub(super) page: usize,
    /// Lines of the overview above the screen.
    pub(super) scroll: usize,
    /// The daemon was asked and has not answered yet.
    asked: bool,
    /// It is to be asked again at once.
    again: bool,
}

impl Model {
    /// Begins with what the daemon tells first.
    pub(super) fn new(told: Told, interval: Duration) -> Self {
        let shown = View::ALL.map(|view| Shown { sort: view.sort(), ..Shown::default() });
        Self {
            view: View::default(),
            shown,
            overview: told.overview,
            rates: None,
            lines: Lines::default(),
            listed: None,
            only: action::everything(),
            lost: None,
            may_change: told.may_change,
            prompt: Prompt::Nothing,
            message: None,
            paused: false,
            interval,
            history: VecDeque::new(),
            page: 1,
            scroll: 0,
            asked: false,
            again: false,
        }
    }

    /// How the present view is shown.
    pub(super) fn shown(&self) -> &Shown {
        let [overview, rules, targets, connections, sessions, refused] = &self.shown;
        match self.view {
            View::Overview => overview,
            View::Rules => rules,
            View::Targets => targets,
            View::Connections => connections,
            View::Sessions => sessions,
            View::Refused => refused,
        }
    }

    fn shown_mut(&mut self) -> &mut Shown {
        let [overview, rules, targets, connections, sessions, refused] = &mut self.shown;
        match self.view {
            View::Overview => overview,
            View::Rules => rules,
            View::Targets => targets,
            View::Connections => connections,
            View::Sessions => sessions,
            View::Refused => refused,
        }
    }

    /// The rows of the present view, in order.
    pub(super) fn rows(&self) -> Vec<Row<Subject>> {
        let mut rows = view::rows(self.view, &self.overview, self.rates.as_ref(), &self.lines);
        table::filter(&mut rows, &self.shown().filter);
        table::sort(&mut rows, self.shown().sort);
        rows
    }

    /// The index of the selected row among `rows`: the first where the selected one has gone.
    pub(super) fn selected(&self, rows: &[Row<Subject>]) -> usize {
        let selected = self.shown().selected.as_deref();
        rows.iter().position(|row| Some(row.key.as_str()) == selected).unwrap_or(0)
    }

    /// Takes note of an event; what is to be done then, in order.
    pub(super) fn update(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Key(key) => self.key(key),
            Event::Tick if self.paused => Vec::new(),
            Event::Tick => self.ask(),
            Event::Told(told) => {
                self.asked = false;
                match told {
                    Ok(told) => self.told(*told),
                    Err(error) => {
                        // Whoever answers next may be another daemon, with another opinion about who asks.
                        (self.lost, self.may_change) = (Some(error), None);
                    }
                }
                if std::mem::take(&mut self.again) { self.ask() } else { Vec::new() }
            }
            Event::Done(done) => {
                let is_error = done.is_err();
                let (Ok(text) | Err(text)) = done;
                self.message = Some(Message { text, is_error });
                self.ask()
            }
        }
    }

    fn told(&mut self, told: Told) {
        let Told { overview, list, may_change } = told;
        self.lost = None;
        self.may_change = may_change.or(self.may_change);
        self.rates = Rates::between(&self.overview, &overview);
        match &self.rates {
            Some(rates) => {
                let sample =
                    Sample { bytes: rates.bytes_up + rates.bytes_down, started: rates.connections + rates.sessions };
                self.history.truncate(HISTORY - 1);
                self.history.push_front(sample);
            }
            // The daemon was started again: nothing of what was is of this one.
            None => (self.history, self.lines) = (VecDeque::new(), Lines::default()),
        }
        self.overview = overview;
        if let Some((transport, lines)) = list.filter(|(transport, _)| self.view.lists() == Some(*transport)) {
            let now = Some((transport, self.only.clone()));
            self.lines = if self.listed == now { lines.since(&self.lines) } else { lines };
            self.listed = now;
        }
    }

    /// Asks the daemon, unless it has yet to answer.
    fn ask(&mut self) -> Vec<Effect> {
        if self.asked {
            return Vec::new();
        }
        self.asked = true;
        let list = self.view.lists().map(|transport| (transport, self.only.clone()));
        vec![Effect::Ask(Wanted { list, rights: self.may_change.is_none() })]
    }

    /// Asks the daemon as soon as it has answered.
    fn ask_anew(&mut self) -> Vec<Effect> {
        self.again = self.asked;
        self.ask()
    }
}

#[cfg(test)]
mod tests;
