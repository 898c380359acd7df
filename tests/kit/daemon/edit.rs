//! Changes of the configuration under a running daemon.

use std::fs;

use super::{Daemon, builder::complete};
use crate::OrFail as _;

/// A way to change a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Truncated and written again.
    InPlace,
    /// Written under another name, then renamed.
    Rename,
    /// Moved away, and a new file written in its place, as many editors do.
    Backup,
    /// Written to a new directory that a symbolic link in the path then points to, as Kubernetes does.
    Symlink,
}

impl Daemon {
    /// Changes the configuration file, and returns the position in the log from which to wait for the consequence.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    #[track_caller]
    pub fn edit(&mut self, edit: Edit, config: &str) -> usize {
        let mark = self.process.mark();
        let config = complete(config, self.mode, self.directory.path());
        match edit {
            Edit::InPlace => fs::write(&self.config, config).or_fail("write"),
            Edit::Rename => {
                let new = self.config.with_extension("new");
                fs::write(&new, config).or_fail("write");
                fs::rename(&new, &self.config).or_fail("rename");
            }
            Edit::Backup => {
                fs::rename(&self.config, self.config.with_extension("toml~")).or_fail("rename");
                fs::write(&self.config, config).or_fail("write");
            }
            Edit::Symlink => {
                self.generation += 1;
                let name = self.generation.to_string();
                let directory = self.directory.path().join(&name);
                fs::create_dir(&directory).or_fail("directory");
                fs::write(directory.join("config.toml"), config).or_fail("write");
                let link = self.directory.path().join("next");
                std::os::unix::fs::symlink(&name, &link).or_fail("link");
                fs::rename(&link, self.directory.path().join("current")).or_fail("rename");
            }
        }
        mark
    }

    /// Changes the configuration and waits until it is in force.
    #[track_caller]
    pub fn reload(&mut self, edit: Edit, config: &str) {
        let mark = self.edit(edit, config);
        self.wait_for(mark, "configuration reloaded");
    }

    /// Changes the configuration to one that the daemon must refuse, and returns what it says.
    #[track_caller]
    pub fn reload_refused(&mut self, edit: Edit, config: &str) -> String {
        self.allow("configuration not reloaded");
        let mark = self.edit(edit, config);
        self.wait_for(mark, "configuration not reloaded")
    }
}
