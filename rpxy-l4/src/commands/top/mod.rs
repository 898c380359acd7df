//! `rpxy-l4 top`: a running daemon, watched in a terminal or told once.
//!
//! [`model`] decides what keys, answers and passing time change, without IO and clock; [`feed`] asks the daemon;
//! [`screen`] draws; [`watch`] moves events between them. [`view`] and [`table`] are what is shown, as data.

mod action;
mod feed;
mod keys;
mod lines;
mod model;
mod once;
mod page;
mod rates;
mod screen;
mod table;
mod view;
mod watch;

use std::{
    io::{self, IsTerminal as _, Write},
    path::PathBuf,
};

use anyhow::{Result, bail};

use crate::cli::TopArgs;

/// Watches the daemon that listens on `socket`, or writes to `out` what there is.
///
/// # Errors
///
/// The daemon does not answer, or there is no terminal to watch it in.
pub(super) fn run(socket: PathBuf, json: bool, args: &TopArgs, mut out: impl Write) -> Result<()> {
    if args.once {
        return once::tell(&socket, json, args.interval, &mut out);
    }
    if json {
        bail!("top --json needs --once, which prints one look");
    }
    if !io::stdout().is_terminal() {
        bail!("the standard output is no terminal; top --once prints one look");
    }
    // Whoever restores the terminal after a panic must not wait for it.
    drop(out);
    watch::watch(socket, args.interval)
}
