//! Asks the daemon: an overview, and on request a list.

use std::path::Path;

use anyhow::{Context, Result};

use super::{
    super::client::{self, Answer},
    lines::Lines,
    model::{Told, Wanted},
};
use crate::{
    admin::{Command, List},
    config::model::Transport,
    overview::Overview,
};

/// What the daemon that listens on `socket` says to all that is `wanted`.
pub(super) fn ask(socket: &Path, wanted: &Wanted) -> Result<Told> {
    let list = match &wanted.list {
        Some((transport, which)) => Some((*transport, list(socket, *transport, which)?)),
        None => None,
    };
    Ok(Told { overview: overview(socket)?, list, may_change: wanted.rights.then(|| may_change(socket)) })
}

/// The overview alone.
pub(super) fn overview(socket: &Path) -> Result<Overview> {
    let Answer { lines, .. } = client::ask(socket, &Command::Overview {})?;
    let (text, _) = lines.first().context("not an answer of rpxy-l4")?;
    serde_json::from_str(text).context("an overview that this version does not understand")
}

fn list(socket: &Path, transport: Transport, which: &List) -> Result<Lines> {
    let command = match transport {
        Transport::Tcp => Command::Connections(which.clone()),
        Transport::Udp => Command::Flows(which.clone()),
    };
    let Answer { lines, more } = client::ask(socket, &command)?;
    let read = |(text, _): &(String, _)| serde_json::from_str(text);
    let lines = lines.iter().map(read).collect::<Result<_, _>>();
    Ok(Lines { lines: lines.context("a list that this version does not understand")?, more })
}

/// Returns whether the daemon takes commands that change something; where it does not say, it will refuse them itself.
fn may_change(socket: &Path) -> bool {
    let said = client::ask(socket, &Command::Rights {}).ok();
    said.and_then(|answer| answer.lines.first()?.1["change"].as_bool()).unwrap_or(true)
}
