//! Paths of unix sockets.

use std::path::{Path, PathBuf};

use super::group;
use crate::config::{
    file::{Field, Table},
    model::{ADMIN_SOCKET, MAX_SOCKET_PATH},
    report::{Position, Report, quote},
};

/// What is written before the path of a unix socket where an address could stand.
pub(super) const UNIX: &str = "unix:";

/// The path of a unix socket: absolute, since a daemon is started from anywhere.
pub(super) fn socket(report: &mut Report<'_>, field: &Field<'_>) -> Option<PathBuf> {
    let text = field.string(report)?;
    path(report, &field.position, text)
}

/// The same, of a text.
pub(super) fn path(report: &mut Report<'_>, position: &Position, text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    if !path.is_absolute() {
        let remedy = format!("as in {}", quote(ADMIN_SOCKET));
        report.error_with(position, format!("{} is not an absolute path", quote(text)), remedy);
    } else if text.contains('\0') || text.ends_with('/') || path.file_name().is_none() {
        report.error(position, format!("{} does not name a file", quote(text)));
    } else if text.len() > MAX_SOCKET_PATH {
        let message = format!("the path has {} bytes; the path of a socket has {MAX_SOCKET_PATH} at most", text.len());
        report.error(position, message);
    } else {
        return Some(path.to_owned());
    }
    None
}

/// The group that may read through the socket.
pub(super) fn readers(report: &mut Report<'_>, root: &Table<'_>) -> Option<u32> {
    let field = root.field("admin_group")?;
    let page = root.field("status_listen").and_then(|field| field.as_string());
    if root.field("admin_socket").is_none() && !page.is_some_and(|page| page.starts_with(UNIX)) {
        report.warn(&field.position, "without admin_socket, or status_listen at a unix socket, it has no effect");
    }
    group::group(report, &field)
}
