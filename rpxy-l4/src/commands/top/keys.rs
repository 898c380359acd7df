//! Keys as the model knows them.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Tab,
    BackTab,
    Backspace,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-L.
    Redraw,
}

impl Key {
    /// The key of an event of the terminal; `None` if it means nothing here.
    pub(super) fn of(event: &KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        let control = event.modifiers.contains(KeyModifiers::CONTROL);
        Some(match (event.code, control) {
            (KeyCode::Char('c'), true) => Self::Interrupt,
            (KeyCode::Char('l'), true) => Self::Redraw,
            (KeyCode::Char('h'), true) => Self::Backspace,
            (KeyCode::Char(_), true) => return None,
            (KeyCode::Char(c), false) => Self::Char(c),
            (KeyCode::Up, _) => Self::Up,
            (KeyCode::Down, _) => Self::Down,
            (KeyCode::Left, _) => Self::Left,
            (KeyCode::Right, _) => Self::Right,
            (KeyCode::PageUp, _) => Self::PageUp,
            (KeyCode::PageDown, _) => Self::PageDown,
            (KeyCode::Home, _) => Self::Home,
            (KeyCode::End, _) => Self::End,
            (KeyCode::Enter, _) => Self::Enter,
            (KeyCode::Esc, _) => Self::Escape,
            (KeyCode::Tab, _) => Self::Tab,
            (KeyCode::BackTab, _) => Self::BackTab,
            (KeyCode::Backspace, _) => Self::Backspace,
            _ => return None,
        })
    }
}
