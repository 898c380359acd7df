//! The terminal, the clock and the way to the daemon: moves events into the model and carries out what it says.

use std::{io, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use ratatui::{DefaultTerminal, crossterm::event};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    super::client,
    feed,
    keys::Key,
    model::{Effect, Event, Model, Wanted},
    screen::{self, Theme},
};

/// Events of the terminal and of the daemon that wait.
const QUEUE: usize = 64;

/// The terminal while it is ours. The hook of panics gives it back, too.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self> {
        let opened = ratatui::try_init();
        if opened.is_err() {
            ratatui::restore();
        }
        opened.map(Self).context("cannot use the terminal")
    }

    fn draw(&mut self, model: &mut Model, theme: Theme) -> io::Result<()> {
        self.0.draw(|frame| {
            model.page = screen::page(frame.area().height);
            screen::draw(model, theme, frame.buffer_mut());
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Watches the daemon until somebody has seen enough.
pub(super) fn watch(socket: PathBuf, interval: Duration) -> Result<()> {
    // A daemon that is not there, or does not let us in, is told of before the screen changes.
    let told = feed::ask(&socket, &Wanted { list: None, rights: true })?;
    let model = Model::new(told, interval);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let screen = Screen::open()?;
    let watched = runtime.block_on(go_on(socket, model, screen));
    // A daemon that is stuck must not hold up the end.
    runtime.shutdown_background();
    watched
}

async fn go_on(socket: PathBuf, mut model: Model, mut screen: Screen) -> Result<()> {
    let theme = Theme::of(|name| std::env::var(name).ok());
    let (answers, mut answered) = mpsc::channel(QUEUE);
    let mut pressed = terminal_events();
    let mut ends = Ends::new().context("cannot handle signals")?;
    let mut ticks = ticks(model.interval);
    loop {
        screen.draw(&mut model, theme)?;
        let event = tokio::select! {
            event = pressed.recv() => match event.context("the terminal has gone")?? {
                event::Event::Key(key) => Key::of(&key).map(Event::Key),
                // Everything is drawn in the new size.
                event::Event::Resize(..)
                | event::Event::FocusGained
                | event::Event::FocusLost
                | event::Event::Mouse(_)
                | event::Event::Paste(_) => None,
            },
            Some(event) = answered.recv() => Some(event),
            _ = ticks.tick() => Some(Event::Tick),
            () = ends.next() => return Ok(()),
        };
        for effect in event.map(|event| model.update(event)).unwrap_or_default() {
            let (socket, answers) = (socket.clone(), answers.clone());
            match effect {
                Effect::Quit => return Ok(()),
                Effect::Redraw => screen.0.clear()?,
                Effect::Ask(wanted) => drop(tokio::task::spawn_blocking(move || {
                    let told = feed::ask(&socket, &wanted).map(Box::new).map_err(|error| format!("{error:#}"));
                    drop(answers.blocking_send(Event::Told(told)));
                })),
                Effect::Command { command, done } => drop(tokio::task::spawn_blocking(move || {
                    let told = client::ask(&socket, &command).map(|_| done).map_err(|error| format!("{error:#}"));
                    drop(answers.blocking_send(Event::Done(told)));
                })),
            }
        }
        if ticks.period() != model.interval {
            ticks = self::ticks(model.interval);
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What is pressed, read by a thread that ends with the process.
fn terminal_events() -> mpsc::Receiver<io::Result<event::Event>> {
    let (events, read) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let gone = event.is_err();
            if events.blocking_send(event).is_err() || gone {
                return;
            }
        }
    });
    read
}

/// Signals that end the program, which restores the terminal first.
struct Ends([Signal; 4]);

impl Ends {
    fn new() -> io::Result<Self> {
        let [terminate, interrupt, hangup, quit] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
        Ok(Self([signal(terminate)?, signal(interrupt)?, signal(hangup)?, signal(quit)?]))
    }

    /// Resolves with the first of them. Cancel-safe.
    async fn next(&mut self) {
        let [terminate, interrupt, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
