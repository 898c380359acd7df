//! A terminal with a shell in it, as a person has one: tmux draws what programs write, and presses keys.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{OrFail as _, owned, peers::programs, process::Process, wait};

/// A terminal; dropping it ends what runs in it.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
    _server: Process,
    _directory: TempDir,
}

impl Terminal {
    /// Opens one of `width` by `height` cells whose shell has `variables` in its environment.
    ///
    /// # Panics
    ///
    /// When there is no tmux.
    #[track_caller]
    pub fn open(width: u16, height: u16, variables: &[(&str, &str)]) -> Self {
        let directory = owned::directory();
        let socket = directory.path().join("tmux");
        let mut command = tmux(&socket);
        // Not in the background, so that it ends with this test. Its own locale decides about UTF-8.
        command.args(["-u", "-f", "/dev/null", "-D"]).env_remove("TMUX");
        let server = Process::spawn("tmux", &mut command).or_fail("tmux");
        wait::until("tmux listens", || socket.exists().then_some(()));
        let terminal = Self { socket, _server: server, _directory: directory };
        let size = [("-x", width), ("-y", height)].map(|(name, value)| [name.to_owned(), value.to_string()]).concat();
        let mut session = tmux(&terminal.socket);
        session.args(["new-session", "-d"]).args(size);
        for (name, value) in variables.iter().chain(&[("PS1", "shell> ")]) {
            session.arg("-e").arg(format!("{name}={value}"));
        }
        programs::output(session.args(["env", "-u", "ENV", "sh"]));
        terminal.wait_for("shell>");
        terminal
    }

    /// Types `text`, then Enter.
    pub fn type_line(&self, text: &str) {
        self.type_text(text);
        self.press("Enter");
    }

    /// Types `text`.
    pub fn type_text(&self, text: &str) {
        programs::output(tmux(&self.socket).args(["send-keys", "-l", text]));
    }

    /// Presses a key that tmux(1) calls so.
    pub fn press(&self, key: &str) {
        programs::output(tmux(&self.socket).args(["send-keys", key]));
    }

    /// Makes it of another size.
    pub fn resize(&self, width: u16, height: u16) {
        let [width, height] = [width, height].map(|cells| cells.to_string());
        programs::output(tmux(&self.socket).args(["resize-window", "-x", &width, "-y", &height]));
    }

    /// What is on it.
    pub fn screen(&self) -> String {
        programs::text(tmux(&self.socket).args(["capture-pane", "-p"]))
    }

    /// The same with colours, as escape sequences.
    pub fn coloured_screen(&self) -> String {
        programs::text(tmux(&self.socket).args(["capture-pane", "-p", "-e"]))
    }

    /// Waits until `text` is on it; what is on it then.
    ///
    /// # Panics
    ///
    /// When it never is.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let mut last = String::new();
        let mut seen = || {
            last = self.screen();
            last.contains(text).then(|| last.clone())
        };
        wait::until(&format!("{text:?} is on the terminal"), &mut seen)
    }

    /// The process in front.
    pub fn command(&self) -> String {
        self.tell("#{pane_current_command}")
    }

    /// Returns whether a program has taken the whole screen.
    pub fn is_taken(&self) -> bool {
        self.tell("#{alternate_on}") == "1"
    }

    fn tell(&self, what: &str) -> String {
        programs::text(tmux(&self.socket).args(["display-message", "-p", what]))
    }
}

fn tmux(socket: &Path) -> Command {
    let mut command = Command::new("tmux");
    command.arg("-S").arg(socket);
    command
}
