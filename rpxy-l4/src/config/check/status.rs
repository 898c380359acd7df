//! The status page: where it is served, and what a viewer has to know. Errs towards refusing: beyond this machine there is
//! no page without a token.

use std::{fs, io, net::IpAddr, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use zeroize::Zeroizing;

use super::{admin, listen, names};
use crate::config::{
    file::{Field, Table},
    model::{StatusListen, StatusPage, StatusToken},
    report::{Report, open_to_others, quote},
};

/// Longest token file, in bytes: a token and the end of its line.
const MAX_FILE: u64 = 1024;
/// How to make a token.
const MAKE: &str = "make one: (umask 077; openssl rand -hex 32 > FILE)";

/// The status page, if there is to be one.
pub(super) fn status(report: &mut Report<'_>, root: &Table<'_>, directory: &Path) -> Option<StatusPage> {
    let token = root.field("status_token_file").map(|field| token(report, &field, directory));
    let hosts = root.field("status_hosts").map(|field| hosts(report, &field)).unwrap_or_default();
    let Some(field) = root.field("status_listen") else {
        for key in ["status_token_file", "status_hosts"] {
            if let Some(field) = root.field(key) {
                report.warn(&field.position, "without status_listen it has no effect");
            }
        }
        return None;
    };
    let listen = address(report, root, &field)?;
    if let StatusListen::Ip(address) = &listen {
        if !address.ip().to_canonical().is_loopback() && token.is_none() {
            report.error_with(
                &field.position,
                format!("{address} can be reached from other machines, and there is no status_token_file"),
                format!("listen on 127.0.0.1 or at unix:/run/rpxy-l4/status.sock, or {MAKE}"),
            );
        }
        let metrics = root.field("metrics_listen").and_then(|field| field.as_string()?.parse().ok());
        if metrics == Some(*address) {
            report.error_with(&field.position, "metrics_listen has this address", "give it another port");
        }
    }
    Some(StatusPage { listen, token: token.flatten(), hosts })
}

/// An address and port, or `unix:` with a path.
fn address(report: &mut Report<'_>, root: &Table<'_>, field: &Field<'_>) -> Option<StatusListen> {
    let Some(text) = field.as_string().and_then(|text| text.strip_prefix(admin::UNIX)) else {
        return listen::socket_address(report, field).map(StatusListen::Ip);
    };
    let path = admin::path(report, &field.position, text)?;
    if root.field("admin_socket").and_then(|field| field.as_string()) == Some(text) {
        report.error_with(&field.position, "admin_socket has this path", "give it another one");
    }
    Some(StatusListen::Unix(path))
}

/// The token of a file: its only line.
fn token(report: &mut Report<'_>, field: &Field<'_>, directory: &Path) -> Option<StatusToken> {
    let path = directory.join(field.string(report)?);
    report.reads(&path);
    let shown = path.display();
    match read(&path) {
        Ok((text, mode)) => {
            if let Some(mode) = open_to_others(mode) {
                // The daemon's group is meant to read it where root owns it.
                let message = format!("token file is open to everybody (mode {mode:04o})");
                report.warn_with(&field.position, message, format!("chmod o-rwx {shown}"));
            }
            let token = StatusToken::new(text.trim_end_matches(['\r', '\n']));
            if token.is_none() {
                let (shortest, longest) = (StatusToken::SHORTEST, StatusToken::LONGEST);
                let message = format!(
                    "{shown} has no token: one line of {shortest} to {longest} letters, digits and characters of -._~+/="
                );
                report.error_with(&field.position, message, MAKE);
            }
            token
        }
        Err(error) => {
            report.error(&field.position, format!("cannot read {shown}: {error}"));
            None
        }
    }
}

/// The text of a file with its mode.
fn read(path: &Path) -> io::Result<(Zeroizing<String>, u32)> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(io::Error::other(format!("not a file of at most {MAX_FILE} bytes")));
    }
    Ok((Zeroizing::new(fs::read_to_string(path)?), metadata.mode()))
}

/// Names, or addresses without a port.
fn hosts(report: &mut Report<'_>, field: &Field<'_>) -> Vec<Arc<str>> {
    let mut hosts = Vec::new();
    for (position, text) in field.strings(report).unwrap_or_default() {
        let host = text.parse().map(|address: IpAddr| address.to_string().into());
        match host.or_else(|_name| names::host(text)) {
            Ok(host) => hosts.push(host),
            Err(reason) => {
                report.error_with(
                    &position,
                    format!("{}: {reason}", quote(text)),
                    "as in \"gateway.example\", without a port",
                );
            }
        }
    }
    hosts
}
