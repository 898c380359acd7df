//! Paths of unix sockets.

use std::path::{Path, PathBuf};

use crate::config::{
    file::Field,
    model::MAX_SOCKET_PATH,
    report::{Position, Report, quote},
};

/// The path of a unix socket: absolute, since a daemon is started from anywhere.
pub(super) fn socket(report: &mut Report<'_>, field: &Field<'_>) -> Option<PathBuf> {
    let text = field.string(report)?;
    path(report, &field.position, text)
}

/// The same, of a text.
pub(super) fn path(report: &mut Report<'_>, position: &Position, text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    if !path.is_absolute() {
        let remedy = "as in \"/run/rpxy-l4.sock\"";
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
