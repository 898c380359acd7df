//! Reload: a changed configuration takes effect as a whole or not at all.

use std::sync::Arc;

use anyhow::Result;
use tokio::time::timeout;

use super::{
    admin,
    daemon::{Daemon, FIRST_ANSWERS},
    kernel, resources, scrape,
    sockets::Sockets,
};
use crate::{
    config::{self, LoadError, Loaded, watch::Seen},
    metrics::Reload,
    tcp, udp,
};

impl Daemon {
    /// Reads the file again and applies it if it is valid and its sockets can be bound. Returns the files that it
    /// names, also after a failure: a change of one of them may mend it.
    pub(super) async fn reload(&mut self) -> Vec<Seen> {
        let loaded = config::load(&self.path);
        let files = loaded.as_ref().map_or_else(LoadError::files, |loaded| &loaded.files).to_vec();
        let result = self.apply(loaded).await;
        let path = self.path.display();
        match result {
            Ok(Reload::Unchanged) => tracing::info!("configuration unchanged in {path}"),
            Ok(_) => tracing::info!("configuration reloaded from {path}: {}", self.summary()),
            Err(ref error) => {
                tracing::error!("configuration not reloaded, the previous one stays in effect: {error:#}");
            }
        }
        self.metrics.reloaded(result.unwrap_or(Reload::Refused));
        files
    }

    async fn apply(&mut self, loaded: Result<Loaded, LoadError>) -> Result<Reload> {
        let Loaded { mut config, warnings, .. } = loaded?;
        resources::fill_in(&mut config);
        for warning in &warnings {
            tracing::warn!("{}", warning.in_file(&self.path));
        }
        if config == self.config {
            return Ok(Reload::Unchanged);
        }
        let sockets = Sockets::new(&config)?;
        let resolver = &self.resolver;
        let snapshot = tcp::Snapshot::new(&config, &sockets.tcp(), &self.tcp, &self.targets.tcp, resolver);
        let udp_snapshot = udp::Snapshot::new(&config, &sockets.udp(), &self.udp.active, &self.targets.udp, resolver);
        let answers = async { tokio::join!(snapshot.resolved(), udp_snapshot.resolved()) };
        drop(timeout(FIRST_ANSWERS, answers).await);
        let metrics = if config.metrics_listen == self.config.metrics_listen {
            None
        } else {
            let ours = self.config.metrics_listen.map(|held| held.port());
            Some(scrape::bind(&config, ours)?)
        };
        let socket = if config.admin_socket == self.config.admin_socket { None } else { Some(admin::bind(&config)?) };
        // Last, and without a pause until they are served: these sockets get connections from now on.
        let plan = self.listeners.plan(sockets)?;

        // Nothing below can fail.
        if config.workers != self.config.workers {
            tracing::warn!("workers: the change takes effect when the daemon is started again");
        }
        kernel::warn_of_postponed(&self.config, &config);
        resources::warn_of_limits(&config);
        self.resolver.set_bounds(config.dns);
        self.tcp.snapshot.store(Arc::new(snapshot));
        self.udp.affinity.set_linger(config.quic_affinity_lifetime);
        let udp_snapshot = Arc::new(udp_snapshot);
        self.listeners.tell_udp(|| udp::Control::Snapshot(Arc::clone(&udp_snapshot)));
        self.listeners.apply(plan);
        self.config = config;
        self.apply_bans();
        self.tell_kernel();
        if let Some(listener) = metrics {
            self.serve_metrics(listener);
        }
        if let Some(listener) = socket {
            self.serve_admin(listener);
        }
        Ok(Reload::Applied)
    }
}
