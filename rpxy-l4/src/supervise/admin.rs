//! Carries out what comes through the admin socket.

use std::{io, path::Path, sync::Arc};

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde::Serialize;

use super::daemon::Daemon;
use crate::{
    admin::{self, Answer, Command, ListenerArgs, Request},
    config::model::{Config, StatusListen, canonical},
    limit::{BanSource, Unban},
    net::unix::{self, PrivateListener},
    udp::Control,
};

/// One line of `ban`, `unban` and `bans`.
#[derive(Debug, Serialize)]
struct Ban {
    network: String,
    banned: bool,
    source: Option<&'static str>,
}

/// Opens the admin socket, if the configuration has one.
pub(super) fn bind(config: &Config) -> Result<Option<PrivateListener>> {
    let Some(path) = &config.admin_socket else { return Ok(None) };
    bind_private("admin_socket", path, config.admin_group).map(Some)
}

/// Opens the socket of `key` for root, this user and the members of `group`.
pub(super) fn bind_private(key: &'static str, path: &Path, group: Option<u32>) -> Result<PrivateListener> {
    let bound = PrivateListener::bind(path, group).map_err(|error| match error {
        unix::BindError::Listen(error) => explain(error).context(key),
        unix::BindError::Group(error) => explain_group(error),
    });
    bound.with_context(|| format!("cannot listen on {}", path.display()))
}

/// Gives the sockets of `config`, which stay where they are, to its group, if that is another one than before.
pub(super) fn give(config: &Config, before: &Config) -> Result<()> {
    if before.admin_group == config.admin_group {
        return Ok(());
    }
    let page = |config: &Config| match config.status.as_ref().map(|page| page.listen.clone()) {
        Some(StatusListen::Unix(path)) => Some(path),
        Some(StatusListen::Ip(_)) | None => None,
    };
    let sockets = [(config.admin_socket.clone(), before.admin_socket.clone()), (page(config), page(before))];
    for path in sockets.into_iter().filter(|(now, before)| now == before).filter_map(|(now, _)| now) {
        unix::give_to(&path, config.admin_group).map_err(explain_group)?;
    }
    Ok(())
}

fn explain_group(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error)
        .context("admin_group: cannot give the socket to the group; the daemon's user must be one of its members")
}

fn explain(error: io::Error) -> anyhow::Error {
    let remedies = [
        (io::ErrorKind::NotFound, "its directory does not exist; create it"),
        (io::ErrorKind::PermissionDenied, "permission denied; choose a directory that the daemon's user owns"),
    ];
    let Some((_, remedy)) = remedies.into_iter().find(|(kind, _)| *kind == error.kind()) else { return error.into() };
    anyhow::Error::new(error).context(remedy)
}

impl Daemon {
    /// Carries out one command. What takes time goes on in a task.
    pub(super) async fn handle_command(&mut self, request: Request) {
        let Request { command, answer } = request;
        let done = match command {
            Command::Status {} => Answer::one(&self.status()),
            Command::Overview {} => Answer::one(&self.overview()),
            // The server answers it.
            Command::Rights {} => Answer::lines::<()>([]),
            Command::Flows(list) => return self.flows(&list, answer),
            Command::Connections(list) => return self.connections(&list, answer),
            Command::Close { id } => return self.close(id, answer),
            Command::Targets {} => Answer::lines(self.target_lines()),
            Command::Drain(args) => self.drain_target(&args),
            Command::Up(args) => self.up_target(&args),
            Command::Explain(question) => return self.explain(question, answer),
            Command::DrainListeners(ListenerArgs { listener }) => self.drain_listeners(listener.as_deref()),
            Command::UpListeners(ListenerArgs { listener }) => self.up_listeners(listener.as_deref()).await,
            // The server has passed it on elsewhere.
            Command::HandOver { .. } => return,
            Command::Ban { network } => self.ban(network),
            Command::Unban { network } => self.unban(network),
            Command::Bans {} => Answer::lines(self.bans.list().into_iter().map(|(network, source)| Ban {
                network: network.to_string(),
                banned: true,
                source: Some(source.name()),
            })),
        };
        // The client may have left.
        drop(answer.send(done));
    }

    /// Serves the admin socket from now on, or no more.
    pub(super) fn serve_admin(&mut self, listener: Option<PrivateListener>) {
        if let Some(old) = self.admin_server.take() {
            old.abort();
        }
        self.admin_members = listener.as_ref().map(|listener| Arc::clone(listener.members()));
        self.admin_server = listener
            .map(|listener| tokio::spawn(admin::serve(listener, self.requests.clone(), self.successors.clone())));
    }

    /// Closes the admin socket and removes its file, so that a successor can have the path.
    pub(super) async fn close_admin(&mut self) {
        if let Some(serving) = self.admin_server.take() {
            serving.abort();
            // An aborted task lets go of the listener only when it has been dropped.
            drop(serving.await);
        }
    }

    fn ban(&self, network: IpNet) -> Answer {
        match self.bans.ban(network) {
            Ok(new) => {
                if new {
                    tracing::info!("banned by command: {network}");
                    self.ban_changed(network);
                }
                Answer::one(&Ban { network: network.to_string(), banned: true, source: Some("command") })
            }
            Err(error) => Answer::refused(error.to_string(), "lift some, or ban larger networks"),
        }
    }

    fn unban(&self, network: IpNet) -> Answer {
        let lifted = self.bans.unban(network);
        if matches!(lifted, Unban::Lifted | Unban::Covered(..)) {
            tracing::info!("unbanned by command: {network}");
            self.ban_changed(network);
        }
        let network = network.to_string();
        match lifted {
            Unban::Lifted => Answer::one(&Ban { network, banned: false, source: None }),
            // Done as asked, and yet without effect so far.
            Unban::Covered(_, source) => Answer::one(&Ban { network, banned: true, source: Some(source.name()) }),
            Unban::NotByCommand(around, source) => Answer::refused(
                format!("{network} is banned by {around}, which the {} asks for", source.name()),
                match source {
                    BanSource::Configuration => format!("take {around} out of the configuration file"),
                    BanSource::Command => format!("unban {around}"),
                },
            ),
            Unban::NotBanned => Answer::refused(format!("{network} is not banned"), "`rpxy-l4 bans` lists what is"),
        }
    }

    /// Applies the ban of one network, or that it was lifted, whatever number of others there is.
    fn ban_changed(&self, network: IpNet) {
        self.listeners.tell_udp(|| Control::Bans);
        if let Some(kernel) = &self.kernel {
            kernel.set_ban(canonical(network), self.bans.lists(network));
        }
    }
}
