//! The status page in the life of the daemon.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{admin, daemon::Daemon, scrape};
use crate::{
    config::model::{Config, StatusListen},
    status_page::{self, Access, Page},
    web::Listener,
};

/// Binds the status page, if the configuration has one and it is not where `held` has it.
pub(super) fn bind(config: &Config, held: Option<&Config>) -> Result<Option<Listener>> {
    let Some(page) = &config.status else { return Ok(None) };
    let ours = held.and_then(|held| match held.status.as_ref()?.listen {
        StatusListen::Ip(address) => Some(address.port()),
        StatusListen::Unix(_) => None,
    });
    Ok(Some(match &page.listen {
        StatusListen::Ip(address) => {
            let bound = scrape::bind_tcp(*address, ours);
            Listener::Tcp(bound.with_context(|| format!("status_listen: cannot listen on {address}"))?)
        }
        StatusListen::Unix(path) => Listener::Unix(admin::bind_private("status_listen", path, config.admin_group)?),
    }))
}

/// Returns whether the status page moves between two configurations.
pub(super) fn moves(from: &Config, to: &Config) -> bool {
    let listen = |config: &Config| config.status.as_ref().map(|page| page.listen.clone());
    listen(from) != listen(to)
}

impl Daemon {
    /// Serves the status page on `listener` in place of the present one, or not at all. The history goes on.
    pub(super) fn serve_page(&mut self, listener: Option<Listener>) {
        if let Some(old) = self.page_server.take() {
            old.abort();
        }
        self.page_members = match &listener {
            Some(Listener::Unix(listener)) => Some(Arc::clone(listener.members())),
            Some(Listener::Tcp(_)) | None => None,
        };
        let (Some(listener), Some(status)) = (listener, &self.config.status) else {
            self.page = None;
            return;
        };
        let access = Access::new(status);
        let page = self
            .page
            .get_or_insert_with(|| Page::new(Access::default(), self.started, &self.metrics, self.requests.clone()));
        page.set_access(access);
        self.page_server = Some(tokio::spawn(status_page::serve(listener, Arc::clone(page))));
    }

    /// Tells the status page, which stays where it is, who may see it.
    pub(super) fn tell_page(&self) {
        if let (Some(page), Some(status)) = (&self.page, &self.config.status) {
            page.set_access(Access::new(status));
        }
        if let Some(members) = &self.page_members {
            members.set(self.config.admin_group);
        }
    }

    /// Closes the status page and removes the file of its socket.
    pub(super) async fn close_page(&mut self) {
        if let Some(serving) = self.page_server.take() {
            serving.abort();
            // An aborted task lets go of the listener only when it has been dropped.
            drop(serving.await);
        }
    }
}
