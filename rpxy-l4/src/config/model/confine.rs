//! What the process gives up once it knows its configuration.

use std::sync::Arc;

/// All of it. Read at start only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confine {
    /// Who the process becomes when it is started as root; `None` is whoever starts it.
    pub user: Option<User>,
    /// Capabilities are given up that are not needed, by the threads for strangers' bytes all of them.
    pub capabilities: bool,
    /// Files are those that the configuration needs (Landlock).
    pub landlock: bool,
    /// System calls are those that are needed (seccomp).
    pub seccomp: bool,
    /// Where there are private keys or tokens, memory is in no core dump and open to no other process.
    pub memory: bool,
}

impl Default for Confine {
    fn default() -> Self {
        Self { user: None, capabilities: true, landlock: true, seccomp: true, memory: true }
    }
}

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// As the file has it.
    pub name: Arc<str>,
    /// Its number.
    pub id: u32,
    /// Number of its group.
    pub group: u32,
    /// Numbers of the further groups that it is a member of.
    pub groups: Vec<u32>,
}
